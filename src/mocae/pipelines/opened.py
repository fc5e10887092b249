"""A finished run, opened: its base model, and its systems by name, each loaded when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mocae.config import SystemConfig
from mocae.errors import ArtifactError, ConfigError, MissingPackageError, MocaeError, unknown_name
from mocae.files import inside
from mocae.models import Generator, LoadedBase, Twins, load_recorded
from mocae.pipelines.manifest import refuse_changed_stages
from mocae.policies import Mixture
from mocae.prompts import FORMATS, ChatFormat
from mocae.stages.run import Made
from mocae.systems import SYSTEMS, BankSystem, System, build_system

__all__ = ["Artifact", "base_of", "refuse_system", "stage_folders", "systems_of"]


class Artifact:
    """A finished run, opened: one base model, and its systems, each loaded when it is first asked for.

    Systems over the bank share it. Every other system gets a module tree of its own over the same base weights, so that
    all of them can be asked in one process, from several threads.

    Args:
        root: folder of the run.
        base: its base model, nothing attached to it.
        manifest: of the run.

    Attributes:
        systems: by name, the default first, without upper bounds.
        prompt_format: how prompts are written.
        max_new_tokens: longest answer of the run.
    """

    def __init__(self, root: Path, base: LoadedBase, manifest: Mapping[str, Any]) -> None:
        self.root = root
        self.base = base
        self.axes = tuple(manifest["axes"])
        self.systems = systems_of(root, manifest)
        self.prompt_format = FORMATS.get(manifest["prompt_format"])
        self.max_new_tokens = int(manifest["max_new_tokens"])
        self._manifest = manifest
        self._twins = Twins(base)
        self._shared: Made | None = None
        self._loaded: dict[str, Generator] = {}
        self._one_at_a_time = threading.RLock()

    @property
    def about(self) -> dict[str, str]:
        """Name of each system -> one line about it."""
        lines = SYSTEMS.describe()
        return {name: lines[system.kind] for name, system in self.systems.items()}

    def over_the_bank(self, name: str) -> bool:
        """Return whether a system is a policy over the bank of experts."""
        return isinstance(self.systems[name], BankSystem)

    def is_loaded(self, name: str) -> bool:
        """Return whether `generator` returns at once."""
        return name in self._loaded

    @property
    def default(self) -> str:
        """Name of the system that answers where none is named."""
        return next(iter(self.systems))

    def shared_mixture(self) -> Mixture:
        """The bank under the first system over it."""
        model = self.generator(next(name for name, system in self.systems.items() if isinstance(system, BankSystem)))
        assert isinstance(model, Mixture)
        return model

    def generator(self, name: str) -> Generator:
        """Return the model of a system, loaded at the first call.

        Raises:
            ConfigError: no such system.
            ArtifactError: one of its files is missing or has changed.
            ModelMismatchError: its parts do not fit the base model.
        """
        refuse_system(name, self.systems, self._manifest)
        with self._one_at_a_time:
            if name not in self._loaded:
                self._loaded[name] = self._load(name, self.systems[name])
            return self._loaded[name]

    def _load(self, name: str, system: System) -> Generator:
        folders = stage_folders(self._manifest, system)
        refuse_changed_stages(self.root, self._manifest, folders.values())
        paths = {role: inside(self.root, folder) for role, folder in folders.items()}
        try:
            if isinstance(system, BankSystem):
                model = self._over_the_bank(system, paths)
            else:
                model = system.load(Made(self._twins.make(), self.axes, paths))
        except MocaeError:
            raise
        except Exception as error:  # whatever the code of a system meets in files that are not as it wrote them
            raise ArtifactError(
                f"{self.root}: system {name!r} cannot be loaded from its files ({type(error).__name__}: {error}); copy "
                "the folder again, or run the recipe again"
            ) from error
        refuse_changed_stages(self.root, self._manifest, folders.values())  # nothing has changed while it was read
        return model

    def _over_the_bank(self, system: BankSystem, paths: Mapping[str, Path]) -> Generator:
        experts = {f"expert:{axis}": inside(self.root, f"experts/{axis}") for axis in self.axes}
        if self._shared is None:
            refuse_changed_stages(self.root, self._manifest, (f"experts/{axis}" for axis in self.axes))
            self._shared = Made(self.base, self.axes, experts)
        bank = self._shared.bank()
        policy = system.choose(Made(self._shared.base, self.axes, {**experts, **paths}))
        return Mixture(self._shared.base, bank, policy, mode="auto")


def systems_of(root: Path, manifest: Mapping[str, Any]) -> dict[str, System]:
    """Return the systems of a finished run that can be used, by name, the default first.

    Beside those that were compared, what needs nothing but the experts can always be had: base, each expert, uniform
    and sum. Systems of a known package that is not installed are left out.

    Raises:
        ArtifactError: the manifest names a system, or options, that this version does not know.
    """
    axes = tuple(manifest["axes"])
    always = ("uniform", "sum", "base", *(f"expert:{axis}" for axis in axes))
    entries: dict[str, Any] = {name: {"policy": name, "options": {}} for name in always} | dict(manifest["systems"])
    systems = {}
    for name, entry in entries.items():
        try:
            config = SystemConfig(name=name, policy=entry["policy"], options=entry.get("options", {}))
            systems[name] = build_system(config, axes)
        except MissingPackageError:
            continue
        except (MocaeError, ValueError) as error:
            raise ArtifactError(
                f"{root / 'manifest.json'}: system {name!r} cannot be built ({error}); install what it needs, or run "
                "the recipe again"
            ) from error
    ranked = sorted(systems, key=lambda name: _rank(systems[name]))
    return {name: systems[name] for name in ranked if systems[name].upper_bound is None}


def _rank(system: System) -> int:
    """Return the place of a system among those that may answer where none is named."""
    if system.kind == "alignx":
        return 0
    return 1 if system.weights_mean == "chances" else 2


def stage_folders(manifest: Mapping[str, Any], system: System) -> dict[str, str]:
    """Return role -> folder, inside the run, of the stages a system is loaded from."""
    entry = manifest["systems"].get(system.name)
    experts = {f"expert:{axis}": f"experts/{axis}" for axis in manifest["axes"]}
    needs_no_record = isinstance(system, BankSystem) and (entry is None or not entry["stages"])
    return experts if entry is None or needs_no_record else dict(entry["stages"])


def refuse_system(name: str, systems: Mapping[str, System], manifest: Mapping[str, Any]) -> None:
    """Do nothing if a run can be asked for a system.

    Args:
        name: of the system.
        systems: what `systems_of` returns.
        manifest: of the run.

    Raises:
        ConfigError: there is none of this name, it is an upper bound, or its package is not installed.
    """
    if name in systems:
        return
    entry = manifest["systems"].get(name, {"policy": name})
    if name in manifest["systems"]:  # raises MissingPackageError where it is left out for that
        build_system(
            SystemConfig(name=name, policy=entry["policy"], options=entry.get("options", {})), tuple(manifest["axes"])
        )
    kind = entry["policy"].partition(":")[0]
    bound = SYSTEMS.get(kind).upper_bound if kind in SYSTEMS else None
    if bound is not None:
        raise ConfigError(f"system {name!r} is an upper bound and cannot be used: {bound}")
    raise ConfigError(unknown_name("system of this run", name, systems))


def base_of(
    root: Path,
    manifest: Mapping[str, Any],
    *,
    device: str | None = None,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedBase:
    """Return the base model a manifest names; arguments as in `load`.

    Raises:
        ConfigError: it cannot be loaded.
        ModelMismatchError: it is not the one the experts were trained on, or reads prompts otherwise.
    """
    return load_recorded(
        manifest["base"],
        where=root,
        chat=isinstance(FORMATS.get(manifest["prompt_format"]), ChatFormat),
        device=device,
        base_model=base_model,
        trust_remote_code=trust_remote_code,
    )
