"""What an artifact says it is: `manifest.json`, checked before anything it names is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PositiveInt

from mocae.config.base import Name
from mocae.errors import ArtifactError
from mocae.files import Inside, Record, check_record, inside, read_json
from mocae.pipelines.summary import SCHEMA
from mocae.stages.store import refuse_changed

__all__ = ["CHOSEN", "DTYPES", "read_manifest", "refuse_changed_stages"]

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


class _System(Record):
    policy: Annotated[str, Field(min_length=1, max_length=1000)]
    options: dict[str, JsonValue] = Field(default_factory=dict)
    stages: dict[str, Inside]


class _Manifest(Record):
    base: _Base
    axes: Annotated[list[Name], Field(min_length=1)]
    prompt_format: str
    max_new_tokens: PositiveInt
    systems: dict[str, _System]
    stages: dict[str, str] = Field(default_factory=dict)


class _Version(Record):
    schema_: Annotated[int, Field(alias="schema")]


def read_manifest(root: Path) -> dict[str, Any]:
    """Return the manifest of a finished run.

    Raises:
        ArtifactError: the folder is no finished run, its manifest is damaged, or was written by another version.
    """
    path = root / "manifest.json"
    if not path.is_file():
        raise ArtifactError(
            f"{root}: no manifest.json, so this is no finished run; give the --out folder of `mocae run`"
        )
    manifest: dict[str, Any] = read_json(path)
    version = check_record(_Version, manifest, str(path)).schema_
    if version != SCHEMA:
        raise ArtifactError(
            f"{path}: artifact version {version}, this mocae reads version {SCHEMA}; run the recipe again"
        )
    if "systems" not in manifest:
        manifest = _with_systems(manifest, path)
    check_record(_Manifest, manifest, str(path))
    if manifest["base"]["dtype"] not in DTYPES:
        raise ArtifactError(f"{path}: unknown dtype {manifest['base']['dtype']!r}; run the recipe again")
    return manifest


def refuse_changed_stages(root: Path, manifest: Mapping[str, Any], folders: Iterable[str]) -> None:
    """Do nothing if stages of a finished run lie inside it as they were finished; reads all their files.

    Raises:
        ArtifactError: one is missing, has changed, or was made anew since.
    """
    keys = manifest.get("stages", {})  # manifests of before they were written down name none
    for folder in dict.fromkeys(folders):
        refuse_changed(inside(root, folder), keys.get(folder))


class _OldRouter(Record):
    folder: Inside
    options: dict[str, JsonValue] = Field(default_factory=dict)
    output: Inside | None = None


class _Old(Record):
    axes: Annotated[list[Name], Field(min_length=1)]
    routers: dict[Literal["alignx", "linear"], _OldRouter]


def _with_systems(manifest: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a manifest that was written before systems were named in it, with them: its routers."""
    old = check_record(_Old, manifest, str(path))
    experts = {f"expert:{axis}": f"experts/{axis}" for axis in old.axes}
    systems = {}
    for policy, router in old.routers.items():
        stages = {**experts, "router": router.folder, **({"output": router.output} if router.output else {})}
        options = {key: value for key, value in router.options.items() if key != "per_token"}
        systems[policy] = {"policy": policy, "options": options, "stages": stages}
    return {**manifest, "systems": systems}
