"""What an artifact says it is: `manifest.json`, checked before anything it names is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PositiveInt

from mocae.config.base import Name
from mocae.errors import ArtifactError
from mocae.files import Inside, Record, check_record, inside, read_json
from mocae.pipelines.store import refuse_changed
from mocae.pipelines.summary import SCHEMA
from mocae.policies import RouterOptions

__all__ = ["CHOSEN", "DTYPES", "loaded_stages", "read_manifest"]

CHOSEN = ("chat_template", "template_options")
"""What a recipe chooses of a base model's chat template, and loading it again needs."""
DTYPES = {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16"}
"""Number formats as torch and as recipes write them."""


class _Base(Record):
    model: Annotated[str, Field(min_length=1, max_length=1000)]
    revision: str | None
    dtype: str
    fingerprint: str
    quantization: str | None = None
    chat_template: str | None = None
    template_options: dict[str, JsonValue] = Field(default_factory=dict)
    description: dict[str, JsonValue] | None = None


class _Router(Record):
    folder: Inside
    options: RouterOptions
    output: Inside | None = None


class _Manifest(Record):
    base: _Base
    axes: Annotated[list[Name], Field(min_length=1)]
    prompt_format: str
    max_new_tokens: PositiveInt
    routers: dict[Literal["alignx", "linear"], _Router]
    stages: dict[str, str] = Field(default_factory=dict)


class _Version(Record):
    schema_: Annotated[int, Field(alias="schema")]


def read_manifest(root: Path, *, parts: bool = True) -> dict[str, Any]:
    """Return the manifest of a finished run, whose experts and routers lie inside `root`, as they were finished.

    Args:
        root: of the run.
        parts: whether experts and routers are compared with what was recorded, which reads all of them; False where
            only the manifest is looked at, before or after they are loaded.

    Raises:
        ArtifactError: the folder is no finished run, is damaged, or was written by another version.
    """
    path = root / "manifest.json"
    if not path.is_file():
        raise ArtifactError(
            f"{root}: no manifest.json, so this is no finished run; give the --out folder of `mocae run`"
        )
    manifest: dict[str, Any] = read_json(path)
    version = check_record(_Version, manifest, str(path)).schema_
    if version == SCHEMA:
        check_record(_Manifest, manifest, str(path))
    if version != SCHEMA:
        raise ArtifactError(
            f"{path}: artifact version {version}, this mocae reads version {SCHEMA}; run the recipe again"
        )
    if manifest["base"]["dtype"] not in DTYPES:
        raise ArtifactError(f"{path}: unknown dtype {manifest['base']['dtype']!r}; run the recipe again")
    keys = manifest.get("stages", {})  # manifests of before they were written down name none
    for folder in loaded_stages(manifest["axes"], manifest["routers"]) if parts else ():
        refuse_changed(inside(root, folder), keys.get(folder))
    return manifest


def loaded_stages(axes: Iterable[str], routers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the stages a model is loaded from: experts, routers, output calibrators, by their folders."""
    named = [entry[key] for entry in routers.values() for key in ("folder", "output") if entry.get(key)]
    return [*(f"experts/{axis}" for axis in axes), *named]
