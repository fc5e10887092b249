"""A finished run as a model: load it, ask it, see which experts answered."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocae.config import SystemConfig
from mocae.errors import ArtifactError, ConfigError, DataError, MissingPackageError, MocaeError, unknown_name
from mocae.files import inside, read_json
from mocae.models import Generator, LoadedBase, Twins, load_recorded
from mocae.pipelines.manifest import read_manifest, refuse_changed_stages
from mocae.policies import Mixture, weights_vector
from mocae.prompts import FORMATS, ChatFormat
from mocae.report import check_report
from mocae.serving.conversation import Turn, conversation_tokens
from mocae.serving.served import OpenedRun
from mocae.stages.run import Made
from mocae.systems import SYSTEMS, BankSystem, System, build_system
from mocae.types import prompt_id

__all__ = ["AlignedModel", "Artifact", "Reply", "base_of", "load", "read_report", "refuse_unusable"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the weight every expert had in it.

    Attributes:
        text: the answer.
        weights: of the experts; empty for a system without.
        confidence: chance that the answer of the expert with the largest weight is acceptable, as calibrated; None
            where the system does not say, and where `steer` or `weights` made another choice.
        novelty: share of held-out calibration prompts that are more like the others than the prompt is; None there
            too, and for a router without calibrated chances.
    """

    text: str
    weights: dict[str, float]
    confidence: float | None = None
    novelty: float | None = None


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

    @property
    def mixture(self) -> Mixture:
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
        _refuse_system(name, self.systems, self._manifest)
        with self._one_at_a_time:
            if name not in self._loaded:
                self._loaded[name] = self._load(name, self.systems[name])
            return self._loaded[name]

    def _load(self, name: str, system: System) -> Generator:
        folders = stage_folders(self._manifest, system)
        refuse_changed_stages(self.root, self._manifest, folders.values())
        paths = {role: inside(self.root, folder) for role, folder in folders.items()}
        if isinstance(system, BankSystem):
            model = self._over_the_bank(system, paths)
        else:
            model = system.load(Made(self._twins.make(), self.axes, paths))
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


class AlignedModel:
    """A system of a finished run, and the other ones by name.

    Args:
        artifact: the run.
        system: the one that answers where a call names none.
    """

    def __init__(self, artifact: OpenedRun, system: str) -> None:
        self.artifact = artifact
        self.system = system
        self.model: Generator = artifact.generator(system)

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in the order of weights; none for a system without."""
        return self.model.experts

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.artifact.base.tokenizer

    def generate(self, input_ids: Tensor, **arguments: Any) -> Tensor:
        """Return what Hugging Face's `generate` returns; `steer`, `weights` and `system` as in `reply`."""
        choice = {key: arguments.pop(key, None) for key in ("system", "steer", "weights")}
        return self._chosen(**choice).generate(input_ids, **arguments).ids

    def reply(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        system: str | None = None,
        **generation: Any,
    ) -> Reply:
        """Return the answer to one prompt (greedy unless `generation` says otherwise) and its routing weights.

        Args:
            prompt: what the user asks, without template; or a conversation, messages with `role` and `content`.
            steer: axis -> factor, multiplies the routing weights before normalising.
            weights: expert -> weight in place of routing; negative allowed.
            system: name of another system of the run.
            **generation: arguments of Hugging Face's `generate`.

        Raises:
            DataError: the prompt is empty, leaves no room for an answer in the model's context, or the messages are in
                an order that cannot be written.
            ConfigError: an unknown expert or system, a factor that is not finite, or a system that takes no weights.
        """
        model, artifact = self._chosen(system, steer, weights), self.artifact
        base = model.base
        if isinstance(prompt, str) and not prompt.strip():
            raise DataError(f"got an empty prompt, {prompt!r}; expected text to answer")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        turns = [Turn(m.get("role", ""), m.get("content") or "") for m in messages]  # type: ignore[arg-type]
        tokens = conversation_tokens(
            turns, prompt_format=artifact.prompt_format, tokenizer=self.tokenizer, injection=model.injection
        )
        n_tokens, context = len(tokens), base.description.context
        if n_tokens >= context:
            raise DataError(f"the prompt has {n_tokens} tokens, the model's context is {context}; give a shorter one")
        answer = model.generate(
            torch.tensor([tokens], device=base.model.device),
            ids=[prompt_id(turns[-1].text)],
            **{"max_new_tokens": artifact.max_new_tokens, "do_sample": False, **generation},
        )
        new = answer.ids[0, n_tokens:].tolist()
        text = self.tokenizer.decode(new[: base.description.length(new)], skip_special_tokens=True)
        shares = answer.weights[0].tolist() if model.mixed else ()
        return Reply(
            text.strip(),
            dict(zip(model.experts if model.mixed else (), shares, strict=True)),
            answer.confidence[0],
            answer.novelty[0],
        )

    def _chosen(
        self,
        system: str | None = None,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Generator:
        name = system or self.system
        model: Generator = self.model if system is None else self.artifact.generator(system)
        if not steer and weights is None:
            return model
        if not self.artifact.over_the_bank(name) or not isinstance(model, Mixture):
            raise ConfigError(
                f"system {name!r} has no weights that could be steered or given; leave them out, or name a system over "
                f"the bank of experts, such as {next(iter(self.artifact.about))!r}"
            )
        return model.using(steer=steer, weights=weights)


def load(
    folder: Path | str,
    *,
    system: str | None = None,
    device: str | None = None,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> AlignedModel:
    """Return the model of a finished run.

    Args:
        folder: what `mocae run --out` wrote.
        system: name of the system of the run that answers; None: its best router.
        device: where to put it; None: an accelerator if there is one.
        base_model: where the base model lies now, if not where the run found it; it must be the same model.
        trust_remote_code: run Python code that comes with the base model; an artifact cannot ask for it.

    Raises:
        ArtifactError: the folder is no finished run, is damaged, or was written by another version.
        ConfigError: no such system, or one that is an upper bound and cannot be used.
        ModelMismatchError: the base model is not the one the experts were trained on.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    if system is not None:
        _refuse_system(system, systems_of(root, manifest), manifest)
    base = base_of(root, manifest, device=device, base_model=base_model, trust_remote_code=trust_remote_code)
    artifact = Artifact(root, base, manifest)
    return AlignedModel(artifact, system or artifact.default)


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


def refuse_unusable(folder: Path | str, *, steer: Mapping[str, float] | None = None, system: str | None = None) -> None:
    """Do nothing if a finished run knows these names; looks at its manifest and loads no model.

    Args:
        folder: what `mocae run --out` wrote.
        steer: axis -> factor.
        system: name of a system.

    Raises:
        ArtifactError: see `load`.
        ConfigError: an axis or system that the run does not have, or a factor that is not finite.
    """
    manifest = read_manifest(Path(folder))
    weights_vector(steer or {}, manifest["axes"])
    if system is not None:
        _refuse_system(system, systems_of(Path(folder), manifest), manifest)


def _refuse_system(name: str, systems: Mapping[str, System], manifest: Mapping[str, Any]) -> None:
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


def read_report(root: Path) -> dict[str, Any] | None:
    """Return what a run measured, its `report.json`; None where there is none.

    Raises:
        ArtifactError: it is damaged, or was written by another version.
    """
    path = root / "report.json"
    if not path.exists():
        return None
    report: dict[str, Any] = read_json(path)
    check_report(report)
    return report
