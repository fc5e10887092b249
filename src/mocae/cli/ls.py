"""`mocae ls`: what can a recipe name?"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated

from typer import Argument, echo

from mocae.cli.options import AsJson, echo_json, one_of
from mocae.errors import ConfigError

__all__ = ["KINDS", "ls"]


_REGISTRIES = {
    "formats": "mocae.prompts",
    "judges": "mocae.judges",
    "sources": "mocae.data",
    "systems": "mocae.config",
    "trainers": "mocae.experts",
}
"""Kind -> the package whose registry of this name, in capitals, describes itself."""

KINDS = ("axes", *sorted((*_REGISTRIES, "merges", "metrics", "probes", "recipes", "scores")))
"""What can be listed."""
_OF_RECIPES = ("axes", "probes", "metrics")
"""What a recipe may declare."""


def ls(
    kind: Annotated[str, Argument(metavar="KIND", parser=one_of(KINDS, "kind"), help=f"One of: {', '.join(KINDS)}.")],
    recipe: Annotated[
        Path | None, Argument(metavar="RECIPE", help="Recipe whose axes, probes or metrics are listed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what a recipe can name, with one line about each.

    [bold]mocae ls judges[/bold]

    [bold]mocae ls axes pocket[/bold]
    """
    if kind == "axes" and recipe is None:
        raise ConfigError("ls axes: whose? Axes are written in a recipe; name it, as in `mocae ls axes pocket`")
    if kind not in _OF_RECIPES and recipe is not None:
        raise ConfigError(f"ls {kind}: takes no recipe, these are the same for all; got {str(recipe)!r}")
    axes = _axes(recipe) if recipe else {}  # reading a recipe makes its probes and metrics known
    listed = axes if kind == "axes" else _registered(kind)
    if as_json:
        echo_json(listed)
        return
    width = max(map(len, listed), default=0)
    for name, text in listed.items():
        echo(f"{name:<{width}}  {text}".rstrip())


def _axes(recipe: Path) -> dict[str, str]:
    from mocae.config import load_recipe

    return {axis.name: axis.injection.strip() for axis in load_recipe(recipe).axes}


def _registered(kind: str) -> dict[str, str]:
    """Return name -> one line; only the package that holds this kind is imported."""
    match kind:
        case "merges":
            from mocae.merging import MERGE_METHODS

            return {
                name: f"{text.removeprefix('Return ')} [{MERGE_METHODS.get(name).reference}]"
                for name, text in MERGE_METHODS.describe().items()
            }
        case "metrics":
            from mocae.metrics import METRICS, metric

            arrows = {"↑": "higher is better", "↓": "lower is better", "": "describes only"}
            metrics = {name: (metric(name), text) for name, text in METRICS.describe().items()}
            return {name: f"{m.text or text} ({m.unit}, {arrows[m.arrow]})" for name, (m, text) in metrics.items()}
        case "probes":
            from mocae.axes import PROBES

            return {p.name: f"wants {_wants(p.wants)}; measures {', '.join(p.metrics)}" for p in PROBES.values()}
        case "recipes":
            from mocae.config import shipped_recipes

            return {name: _purpose(file) for name, file in shipped_recipes().items()}
        case "scores":
            from mocae.pipelines.scoring import scores

            return {name: f"{s.description} (columns {', '.join(s.columns)})" for name, s in scores().items()}
        case _:
            described: dict[str, str] = getattr(import_module(_REGISTRIES[kind]), kind.upper()).describe()
            return described


def _wants(wants: Mapping[str, bool]) -> str:
    return ", ".join(name if wanted else f"not {name}" for name, wanted in wants.items())


def _purpose(recipe: Path) -> str:
    """Return the comment that opens a recipe, its first line."""
    return recipe.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
