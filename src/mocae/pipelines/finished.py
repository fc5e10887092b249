"""The finished run of a folder: what another run there would replace, which it does only when told so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mocae.config import Recipe, SystemConfig, load_recipe
from mocae.distributed import is_main, wait
from mocae.errors import ArtifactError, MocaeError
from mocae.pipelines.build import BUILD
from mocae.pipelines.manifest import read_manifest
from mocae.stages.store import Store

__all__ = ["finished_run", "make_room"]


def finished_run(root: Path) -> tuple[Recipe, Mapping[str, Any]] | None:
    """Return recipe and systems of the finished run that `root` holds, None where it holds none."""
    if not (root / "manifest.json").is_file():
        return None
    try:
        return load_recipe(root / "recipe.yaml"), read_manifest(root)["systems"]
    except MocaeError:  # a damaged run is repaired, not refused
        return None


def make_room(
    store: Store,
    finished: tuple[Recipe, Mapping[str, Any]],
    recipe: Recipe,
    chosen: Sequence[SystemConfig],
    *,
    overwrite: bool,
) -> None:
    """Refuse what would replace a finished run, unless told so; a run that adds to it replaces nothing."""
    held, systems = finished
    same = held.name == recipe.name and (recipe.name != BUILD or _made_from(held) == _made_from(recipe))
    changes = _changes(held, recipe, chosen, systems) if same else []
    if overwrite and not same:
        wait()  # until every process has seen what is there
        if is_main():
            store.clear()
        wait()
    elif not overwrite and not same:
        other = f"{held.name} ({held.base.model}; {', '.join(held.axis_names)})"
        raise ArtifactError(
            f"{store.root}: holds another finished run, {other}; give another --out, or --overwrite to replace it"
        )
    elif not overwrite and changes:
        raise ArtifactError(
            f"{store.root}: holds a finished run of {recipe.name} with other settings ({'; '.join(changes)}); give "
            "another --out to keep it, or --overwrite to replace it (what the change does not touch is not made again)"
        )


def _made_from(build: Recipe) -> tuple[Any, ...]:
    return build.base.model, build.axis_names


def _changes(
    held: Recipe, recipe: Recipe, chosen: Sequence[SystemConfig], systems: Mapping[str, Any], most: int = 6
) -> list[str]:
    """Return what a run changes of a finished one, a key each; where it lies and runs, and systems it adds, are not."""
    apart: Any = {"data_root": True, "systems": True, "base": {"device"}}
    before, now = (dict(_leaves(one.model_dump(mode="json", exclude=apart))) for one in (held, recipe))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    changes = [f"{key}: {before.get(key)!r}, now {now.get(key)!r}" for key in keys]
    configs, mine = ({config.name: config for config in some} for some in (held.systems, chosen))
    changes += [f"systems: without {name!r}" for name in systems if name not in mine]
    changes += [f"systems: another {name!r}" for name in mine if configs.get(name, mine[name]) != mine[name]]
    return [*changes[:most], *([f"{len(changes) - most} more"] if len(changes) > most else [])]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of everything in nested mappings and lists; an axis goes by its name."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            name = item.get("name", i) if isinstance(item, dict) else i
            yield from _leaves(item, f"{key}.{name}")
    else:
        yield key, value
