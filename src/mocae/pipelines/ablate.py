"""One recipe over several seeds and settings: which part buys what, with paired differences."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mocae.config import Recipe, load_recipe
from mocae.errors import ConfigError
from mocae.evaluation import Bootstrap, mean_difference, read_samples
from mocae.pipelines.run import run
from mocae.pipelines.store import write_whole
from mocae.progress import say
from mocae.report.ablation import draw_ablation
from mocae.types import Sample

__all__ = ["Ablation", "Setting", "ablate"]

SCHEMA = 1
_RIVALS = ("alignx", "joint")


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep: a name for its folder, and the overrides that make it."""

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ablation:
    """What an ablation found, and where table and plot lie."""

    result: dict[str, Any]
    json_path: Path
    table_path: Path
    plot_path: Path


def ablate(
    recipe: Path,
    *,
    out: Path,
    seeds: int,
    overrides: Sequence[str] = (),
    vary: Sequence[str] = (),
    systems: Sequence[str] | None = None,
    progress: bool = True,
) -> Ablation:
    """Run a recipe for every seed and setting, and compare its systems. Finished runs in `out` are not made again.

    Args:
        recipe: its file.
        out: a folder of runs, with `ablation.json`, `ablation.md` and `ablation.svg`.
        seeds: how many, counted up from the recipe's own.
        overrides: "key=value" settings for all runs.
        vary: "key=v1,v2,..." keys to sweep; several make a grid. `axes.*` stands for every axis.
        systems: compare only these.
        progress: show progress on stderr.

    Raises:
        ConfigError: no seeds, a malformed `vary`, or see `load_recipe`.
        MocaeError: a run failed; the same call goes on where it was.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds is {seeds}; at least 1 is needed (3 give a spread)")
    settings = _settings(vary)
    first = load_recipe(recipe, overrides)
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for setting, seed in itertools.product(settings, range(first.seed, first.seed + seeds)):
        say(f"[bold]{setting.name or first.name}, seed {seed}[/bold]")
        loaded = load_recipe(recipe, [*overrides, *_for_axes(setting.overrides, first), f"seed={seed}"])
        folder = out / setting.name / f"seed-{seed}" if setting.name else out / f"seed-{seed}"
        result = run(loaded, out=folder, systems=systems, progress=progress)
        samples = _samples_by_system(folder / "samples.jsonl")
        found.setdefault(setting.name, {})[seed] = {"report": result.report, "samples": samples}
    boot = Bootstrap(first.report.resamples, first.report.confidence, first.seed)
    summary = {
        "schema": SCHEMA,
        "recipe": first.model_dump(mode="json"),
        "seeds": list(range(first.seed, first.seed + seeds)),
        "settings": {name: _summarise(by_seed, first.axis_names, boot) for name, by_seed in found.items()},
        "notes": _notes(found),
        "environment": found[settings[0].name][first.seed]["report"]["environment"],
    }
    return _write(summary, out)


def _settings(vary: Sequence[str]) -> list[Setting]:
    """Return the grid of all values, one unnamed setting without any."""
    choices: list[list[tuple[str, str]]] = []
    for text in vary:
        key, equals, values = text.partition("=")
        words = [value.strip() for value in values.split(",")]
        if not key or not equals or not all(words):
            raise ConfigError(
                f"--vary {text}: not a sweep. Accepted: key=v1,v2,... as in axes.*.train.options.conflict=0,1"
            )
        if key == "seed":
            raise ConfigError(f"--vary {text}: seeds are swept by --seeds; --set seed=... says where they start")
        choices.append([(key, word) for word in words])
    grid: dict[str, Setting] = {}
    for point in itertools.product(*choices):
        name = "-".join(_plain(f"{key.rpartition('.')[2]}={value}") for key, value in point)
        if name in grid:
            raise ConfigError(f"--vary {' '.join(vary)}: two settings would share the folder {name!r}; change one")
        grid[name] = Setting(name, tuple(f"{key}={value}" for key, value in point))
    return list(grid.values())


def _plain(name: str) -> str:
    """Return `name` as one part of a path: what is no letter or digit and none of ._-+= becomes an underscore."""
    return "".join(c if c.isalnum() or c in "._-+=" else "_" for c in name)


def _for_axes(overrides: Sequence[str], recipe: Recipe) -> list[str]:
    """Return the overrides with `axes.*` written out for every axis."""
    made = []
    for override in overrides:
        names = recipe.axis_names if override.startswith("axes.*.") else ("",)
        made += [override.replace("axes.*.", f"axes.{name}.", 1) if name else override for name in names]
    return made


def _notes(found: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[str]:
    """Return the notes of all runs; what not every run says comes with the runs that do."""
    runs: dict[str, list[str]] = {}
    for name, by_seed in found.items():
        for seed, entry in by_seed.items():
            for note in entry["report"]["notes"]:
                runs.setdefault(note, []).append(f"{name}, seed {seed}" if name else f"seed {seed}")
    n_runs = sum(len(by_seed) for by_seed in found.values())
    return [note if len(who) == n_runs else f"{note} ({'; '.join(who)})" for note, who in runs.items()]


def _samples_by_system(path: Path) -> dict[str, list[Sample]]:
    by_system: dict[str, list[Sample]] = {}
    for sample in read_samples(path):
        by_system.setdefault(sample.system, []).append(sample)
    return by_system


def _summarise(by_seed: Mapping[int, Mapping[str, Any]], axes: Sequence[str], boot: Bootstrap) -> dict[str, Any]:
    """Return mean and spread over the seeds of every system, and paired differences against the rivals."""
    reports = [entry["report"] for entry in by_seed.values()]
    samples = [entry["samples"] for entry in by_seed.values()]
    systems = {}
    for name in reports[0]["systems"]:
        entries = [report["systems"][name] for report in reports]
        systems[name] = {
            "mean_axis_score": _spread([entry["mean_axis_score"]["value"] for entry in entries]),
            "axis_scores": {axis: _spread([entry["axis_scores"][axis]["value"] for entry in entries]) for axis in axes},
            "average_alignment_score": _spread([entry["average_alignment_score"]["value"] for entry in entries]),
            "seconds": _spread([entry["cost"]["seconds"] for entry in entries]),
        }
        routing = [report["routing"].get(name) for report in reports]
        if all(routing):
            keys = ("ece", "brier", "misrouted_rate", "regret", "entropy")
            systems[name]["routing"] = {
                key: _spread([(entry or {}).get(key, {}).get("value") for entry in routing]) for key in keys
            }
    differences = {
        rival: {
            name: asdict(mean_difference([(s[name], s[rival]) for s in samples], axes, boot=boot))
            for name in systems
            if name != rival
        }
        for rival in _RIVALS
        if rival in systems
    }
    forgetting = {str(seed): entry["report"]["forgetting"] for seed, entry in by_seed.items()}
    return {"systems": systems, "differences": differences, "forgetting": forgetting}


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean, standard deviation (ddof 1, None for one seed) and the values; None where a value is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return {"mean": None, "std": None, "values": list(values)}
    std = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "std": std, "values": known}


def _write(summary: dict[str, Any], out: Path) -> Ablation:
    paths = Ablation(summary, out / "ablation.json", out / "ablation.md", out / "ablation.svg")
    write_whole(paths.json_path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    write_whole(paths.table_path, ablation_table(summary))
    write_whole(paths.plot_path, draw_ablation(summary))
    return paths


def ablation_table(summary: Mapping[str, Any]) -> str:
    """Return the results as Markdown tables, one a setting, best mean first."""
    axes = [axis["name"] for axis in summary["recipe"]["axes"]]
    lines = [f"{'; '.join(summary['notes'])}. Seeds {summary['seeds']}.".lstrip(". "), ""]
    for name, setting in summary["settings"].items():
        if name:
            lines += [f"### {name}", ""]
        head = ["system", "mean over axes", *axes, "ECE", *(f"minus {rival}" for rival in setting["differences"])]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        order = sorted(setting["systems"].items(), key=lambda item: -(item[1]["mean_axis_score"]["mean"] or 0))
        for system, entry in order:
            cells = [system, _cell(entry["mean_axis_score"])]
            cells += [_cell(entry["axis_scores"][axis]) for axis in axes]
            cells.append(_cell(entry.get("routing", {}).get("ece")))
            for rival, rows in setting["differences"].items():
                cells.append("" if rival == system else _signed(rows.get(system)))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(spread: Mapping[str, Any] | None) -> str:
    if spread is None or spread["mean"] is None:
        return ""
    return f"{spread['mean']:.3f}" + ("" if spread["std"] is None else f" ± {spread['std']:.3f}")


def _signed(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return ""
    interval = "" if estimate["low"] is None else f" [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"
    return f"{estimate['value']:+.3f}{interval}"
