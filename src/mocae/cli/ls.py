"""`mocae ls`: what can a recipe name?"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated

from typer import Argument, echo

from mocae.cli.options import AsJson, echo_json, one_of
from mocae.errors import ConfigError, unknown_name

__all__ = ["KINDS", "ls"]


_REGISTRIES = {
    "formats": "mocae.prompts",
    "judges": "mocae.judges",
    "sources": "mocae.data",
    "systems": "mocae.config",
    "trainers": "mocae.experts",
}
"""Kind -> the package whose registry of this name, in capitals, describes itself."""

KINDS = ("axes", *sorted((*_REGISTRIES, "merges", "metrics", "probes", "recipes", "suites")))
"""What can be listed."""
_OF_RECIPES = ("axes", "probes", "metrics")
"""What a recipe may declare."""

_FROM_THE_RUN = frozenset({"path", "axis", "on_bad_row", "exclude_prompts", "data_root"})
"""Arguments of judges and sources that no recipe writes among the options."""


def ls(
    kind: Annotated[str, Argument(metavar="KIND", parser=one_of(KINDS, "kind"), help=f"One of: {', '.join(KINDS)}.")],
    name: Annotated[
        str | None,
        Argument(metavar="NAME", help="A recipe: its axes, probes or metrics; a judge, source or system: its options."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what a recipe, a suite or a command can name, with one line about each; or what one of them can be told.

    [bold]mocae ls judges[/bold]

    [bold]mocae ls judges refusal[/bold]

    [bold]mocae ls axes pocket[/bold]
    """
    if kind == "axes" and name is None:
        raise ConfigError("ls axes: whose? Axes are written in a recipe; name it, as in `mocae ls axes pocket`")
    axes = _axes(name) if name and kind in _OF_RECIPES else {}  # reading a recipe makes its probes and metrics known
    if kind == "axes":
        listed = axes
    else:
        listed = _options(kind, name) if name and kind not in _OF_RECIPES else _registered(kind)
    if as_json:
        echo_json(listed)
        return
    if not listed:
        echo(f"{name} has no options")
    width = max(map(len, listed), default=0)
    for one, text in listed.items():
        echo(f"{one:<{width}}  {text}".rstrip())


def _options(kind: str, name: str) -> dict[str, str]:
    """Return option -> its type, default and meaning.

    Raises:
        ConfigError: what this kind names has no options, or there is nothing of the name.
    """
    if kind not in ("judges", "sources", "systems"):
        raise ConfigError(f"ls {kind}: takes no name; these have no options of their own; got {name!r}")
    registry = getattr(import_module("mocae.systems" if kind == "systems" else _REGISTRIES[kind]), kind.upper())
    if name not in registry:
        raise ConfigError(f"ls {kind}: {unknown_name(registry.what, name, registry)}")
    plugin = registry.get(name)
    if kind == "systems":
        fields = plugin.Options.model_fields.items()
        return {
            option: ": ".join(
                filter(None, (f"default {field.get_default(call_default_factory=True)!r}", field.description))
            )
            for option, field in fields
        }
    from mocae.data import option_lines

    return option_lines(plugin, given=_FROM_THE_RUN)


def _axes(recipe: str) -> dict[str, str]:
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
            from mocae.pipelines.scoring import scores

            arrows = {"↑": "higher is better", "↓": "lower is better", "": "describes only"}
            metrics = {name: (metric(name), text) for name, text in METRICS.describe().items()}
            files = {name: f"; of columns {', '.join(s.columns)}" for name, s in scores().items()}
            return {
                name: f"{m.text or text} ({m.unit}, {arrows[m.arrow]}{files.get(name, '; of a run alone')})"
                for name, (m, text) in metrics.items()
            }
        case "probes":
            from mocae.axes import PROBES

            return {p.name: f"wants {_wants(p.wants)}; measures {', '.join(p.metrics)}" for p in PROBES.values()}
        case "recipes":
            from mocae.config import shipped_recipes

            return {name: _purpose(file) for name, file in shipped_recipes().items()}
        case "suites":
            from mocae.pipelines.suite import load_suite, suite_names

            suites = map(load_suite, suite_names())
            return {
                suite.name: f"version {suite.version}: {suite.description}; judged by "
                f"{', '.join(judge.judge for judge in suite.judges)}"
                for suite in suites
            }
        case _:
            described: dict[str, str] = getattr(import_module(_REGISTRIES[kind]), kind.upper()).describe()
            return described


def _wants(wants: Mapping[str, bool]) -> str:
    return ", ".join(name if wanted else f"not {name}" for name, wanted in wants.items())


def _purpose(recipe: Path) -> str:
    """Return the comment that opens a recipe, its first line."""
    return recipe.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
