"""What is exported, and the folder it goes to: whole or not at all, with a manifest that lists every file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PositiveInt
from torch import Tensor

from mocae.bank import LoraWeights, Truncated, combine, truncate
from mocae.calibration import AlignXRouter
from mocae.errors import ArtifactError, ConfigError
from mocae.files import Inside, Record, check_record, digest, inside, make_readable, plain_files, read_json
from mocae.merging import Delta
from mocae.models import BASE_MODELS, LoadedBase
from mocae.policies import RouterOptions, weights_vector
from mocae.progress import say
from mocae.prompts import FORMATS, template_of

__all__ = [
    "BASE_COPY",
    "MANIFEST",
    "Bundle",
    "mixture_vector",
    "read_export",
    "whole_folder",
    "write_manifest",
]

MANIFEST = "export.json"
BASE_COPY = "base"
"""Folder of an export with a copy of a base model that no other library knows by its name."""
_SCHEMA = 1
_MOST = 1000
"""Weights above it are slips of the hand; no number format would hold what comes out."""


class _Base(Record):
    model: Annotated[str, Field(pattern=r"^[^-]", max_length=1000)]
    revision: str | None
    fingerprint: str
    dtype: str
    copy_: Annotated[Literal["base"] | None, Field(alias="copy")] = None


class _Router(Record):
    options: RouterOptions


class _Manifest(Record):
    """`export.json`; what else a format tells of itself is kept."""

    model_config = ConfigDict(extra="allow")

    schema_: Annotated[int, Field(alias="schema")]
    format: str
    base: _Base
    prompt_format: str
    experts: Annotated[list[str], Field(min_length=1)]
    router: _Router | None
    max_lora_rank: PositiveInt | None = None
    files: dict[Inside, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A base model with its experts, and the router where there is one.

    Attributes:
        base: model and tokenizer, nothing attached to the model.
        base_name: Hub id, folder or registered name the base model is known by.
        revision: of the base model on the Hub, None where it has none.
        fingerprint: `mocae.models.base_fingerprint` of the base model.
        chosen: `chat_template` and `template_options` of the recipe, in which the base model is loaded again.
        prompt_format: registered name of the format the experts were trained with.
        experts: name -> expert, in the order of weights.
        router: fitted router, None where the artifact has none.
        router_options: `top_k` and `threshold` the router is used with.
        change: of the base weights, for a system that is merged into them and has no experts of its own; else None.
    """

    base: LoadedBase
    base_name: str
    revision: str | None
    fingerprint: str
    prompt_format: str
    experts: Mapping[str, LoraWeights]
    router: AlignXRouter | None = None
    router_options: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    change: Delta | None = None

    def named(self, alpha: Tensor) -> dict[str, float]:
        """Return weights (K,) by the names of their experts."""
        return dict(zip(self.experts, alpha.tolist(), strict=True))

    def adapter(self, alpha: Tensor, *, rank: int | None, name: str = "mixture") -> Truncated:
        """Return the experts under weights (K,) as one adapter, exact or cut to a rank, and the relative error."""
        adapter = combine(self.experts, alpha, name=name)
        return Truncated(adapter, 0.0) if rank is None else truncate(adapter, rank)

    def mixtures(self, weights: Mapping[str, float] | None, *, to: str) -> dict[str, dict[str, float]]:
        """Return mixtures that a request may ask for: every expert alone, all alike, and `given` where weights are.

        Raises:
            ConfigError: see `mixture_vector`.
        """
        names = list(self.experts)
        mixtures = {name: {other: float(name == other) for other in names} for name in names}
        mixtures["uniform"] = dict.fromkeys(names, 1 / len(names))
        return mixtures | ({"given": self.named(mixture_vector(weights, names, to=to))} if weights else {})

    def template(self) -> str | None:
        """Return the chat template by which servers write messages as the experts read them; None if none can."""
        template = template_of(FORMATS.get(self.prompt_format), self.base.tokenizer)
        if template is None:
            say(
                f"no chat template writes what prompt format {self.prompt_format!r} does, so the export has none: send "
                "whole prompts in this format, no chat requests"
            )
        return template

    def prompt(self) -> dict[str, str | None]:
        """Return how prompts are written, for use without this package: a text with PROMPT in it, and a template."""
        written, tokenizer = FORMATS.get(self.prompt_format), self.base.tokenizer
        text = written.format_prompt("PROMPT", injection=None, tokenizer=tokenizer)
        return {"text": text, "template": template_of(written, tokenizer)}

    def require_router(self, *, to: str) -> AlignXRouter:
        """Return the router.

        Raises:
            ConfigError: the artifact has none.
        """
        if self.router is None:
            raise ConfigError(
                f"--to {to} needs a fitted router, and the artifact has none; run its recipe with the system 'alignx'"
            )
        return self.router

    def place_base(self, folder: Path) -> str:
        """Return what other libraries load the base model by: a name they know, or `base`, copied into the export.

        Only this package knows the names in `BASE_MODELS` ("pocket"), which come before a folder of that name.
        """
        if self.base_name not in BASE_MODELS:
            return self.base_name
        shutil.copytree(BASE_MODELS.get(self.base_name)(), folder / BASE_COPY, dirs_exist_ok=True)
        return BASE_COPY

    def save_router(self, folder: Path) -> None:
        """Write the router to `folder`/router, for the gateway; nothing where there is none."""
        if self.router is not None:
            (folder / "router").mkdir()
            self.router.save(folder / "router")


def mixture_vector(weights: Mapping[str, float] | None, experts: Sequence[str], *, to: str) -> Tensor:
    """Return weights given by name as a vector, shape (K,).

    Raises:
        ConfigError: none are given although the format `to` needs them, all are 0, one is absurdly large, or a name is
            no expert.
    """
    if not weights:
        example = ",".join(f"{name}={1 / len(experts):.2g}" for name in experts)
        raise ConfigError(f"--to {to} needs --weights, one number an expert, as in --weights {example}")
    vector = weights_vector(weights, experts)
    if vector.abs().max() > _MOST:
        raise ConfigError(f"--weights {dict(weights)}: beyond {_MOST} an expert drowns the base model; give less")
    if not vector.any():
        raise ConfigError(f"--weights {dict(weights)}: all are 0, which is the base model; give another")
    return vector


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Return a context with an empty folder that becomes `out` when the context ends without an error.

    Raises:
        ConfigError: `out` is there already and not empty.
        ArtifactError: it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: there is something already; give a new folder, or remove it first")
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        make_readable(partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise ArtifactError(
            f"{out}: could not be written ({error.strerror or error}); free space, or give another --out"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _listed(name: str) -> bool:
    """Return whether a file is published and compared: a script is not, nobody should run one of a stranger."""
    return name != MANIFEST and not name.endswith(".sh")


def write_manifest(folder: Path, bundle: Bundle, *, to: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """Write and return `export.json`: what it is, of which base model, made how, and the SHA-256 of every file."""
    manifest = {
        "schema": _SCHEMA,
        "format": to,
        "base": {
            "model": bundle.base_name,
            "revision": bundle.revision,
            "fingerprint": bundle.fingerprint,
            "dtype": str(bundle.base.model.dtype).removeprefix("torch."),
            **bundle.chosen,
            "description": bundle.base.description.record(),
            "copy": BASE_COPY if (folder / BASE_COPY).is_dir() else None,
        },
        "prompt_format": bundle.prompt_format,
        "prompt": bundle.prompt(),
        "experts": list(bundle.experts),
        "router": None if bundle.router is None else {"options": dict(bundle.router_options)},
        **details,
        "files": {name: digest(folder / name) for name in plain_files(folder) if _listed(name)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def read_export(folder: Path) -> dict[str, Any]:
    """Return the manifest of an export whose files are all as they were written.

    Raises:
        ArtifactError: no manifest, one of another version, or a file that is missing or has changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{folder}: no {MANIFEST}, so this is no export; give the --out folder of `mocae export`")
    manifest: dict[str, Any] = read_json(path)
    record = check_record(_Manifest, manifest, str(path), remedy="export again")
    if record.schema_ != _SCHEMA:
        raise ArtifactError(
            f"{path}: export version {record.schema_}, this mocae reads version {_SCHEMA}; export again"
        )
    plain_files(folder)
    for name, expected in record.files.items():
        if not _listed(name):  # exports of before listed their script
            continue
        file = inside(folder, name)
        if not file.exists() or digest(file) != expected:
            state = "has changed" if file.exists() else "is missing"
            raise ArtifactError(f"{folder}: {name} {state} since it was exported; export again")
    return manifest
