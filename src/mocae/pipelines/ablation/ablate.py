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
from mocae.errors import ArtifactError, ConfigError
from mocae.evaluation import Bootstrap, difference_over_seeds, read_samples
from mocae.files import read_json, write_whole
from mocae.outputs import writing
from mocae.pipelines.ablation.left_out import left_out_of, measure_left_out
from mocae.pipelines.ablation.parts import parts_of, rivals_of
from mocae.pipelines.ablation.runs import PlannedRun, run_all
from mocae.pipelines.check import check
from mocae.progress import visible
from mocae.report.ablation import ABLATION_SCHEMA, ablation_page, ablation_table, draw_ablation
from mocae.stages.pool import StagePool
from mocae.stages.store import Store
from mocae.types import Sample

__all__ = ["Ablation", "Setting", "ablate"]

_FILES = ("ablation.html", "ablation.json", "ablation.md", "ablation.svg")
_ROUTING = ("ece", "brier", "over_random", "over_best", "misrouted_rate", "regret", "entropy", "largest_share")


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep: a name for its folder, the overrides that make it, and the values of the swept keys."""

    name: str
    overrides: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Ablation:
    """What an ablation found, and where page, table and plot lie."""

    result: dict[str, Any]
    page_path: Path
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
    jobs: int = 1,
    threads: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Ablation:
    """Run a recipe for every seed and setting, and compare its systems. Finished stages in `out` are not made again.

    Runs share their stages: what a swept key does not touch (the experts, where only a routing setting varies) is made
    once a seed. After a kill the same call goes on where it was.

    Args:
        recipe: its file.
        out: a folder of runs, with `ablation.html`, `ablation.json`, `ablation.md` and `ablation.svg`.
        seeds: how many, counted up from the recipe's own.
        overrides: "key=value" settings for all runs.
        vary: "key=v1,v2,..." keys to sweep; several make a grid. `axes.*` stands for every axis.
        systems: compare only these.
        jobs: runs at a time, each in a process of its own if more than one.
        threads: threads of a run; None: all for one job, else the cores shared out among the jobs.
        progress: show progress on stderr.
        overwrite: replace finished runs of the folder that have other settings.

    Raises:
        ConfigError: no seeds, jobs or threads, a malformed `vary`, or see `load_recipe`.
        ArtifactError: another process writes `out`.
        MocaeError: a run failed; the same call goes on where it was.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds is {seeds}; at least 1 is needed (3 give a spread)")
    settings = _settings(vary)
    first = load_recipe(recipe, overrides)
    numbers = range(first.seed, first.seed + seeds)
    planned = {
        (setting.name, seed): _plan(recipe, first, overrides, setting, seed, out)
        for setting, seed in itertools.product(settings, numbers)
    }
    for one in planned.values():  # all before the first: the last setting's mistake shows now, not after hours
        check(one.recipe, where=f"{recipe}: {one.label}", read="none")
    if not overwrite:
        _refuse_lost(out, _varied(settings), numbers)
    pool = StagePool(out / ".stages")
    with visible(progress), Store(out, kind="ablate", files=_FILES).locked():
        run_all(
            list(planned.values()),
            systems=systems,
            pool=pool,
            jobs=jobs,
            threads=threads,
            progress=progress,
            overwrite=overwrite,
        )
        pool.prune()
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for (name, seed), one in planned.items():
            found.setdefault(name, {})[seed] = _read(one.folder)
        boot = Bootstrap(first.report.resamples, first.report.confidence, first.seed)
        summary = {
            "schema": ABLATION_SCHEMA,
            "recipe": first.model_dump(mode="json"),
            "seeds": list(numbers),
            "vary": _varied(settings),
            "settings": {
                setting.name: {
                    "values": dict(setting.values),
                    **_summarise(found[setting.name], planned[setting.name, first.seed].recipe, boot),
                }
                for setting in settings
            },
            "notes": _notes(found),
            "environment": found[settings[0].name][first.seed]["report"]["environment"],
        }
        return _write(summary, out)


def _refuse_lost(out: Path, vary: Mapping[str, list[str]], seeds: Sequence[int]) -> None:
    """Refuse to replace a finished ablation by one that leaves out what it swept."""
    path = out / "ablation.json"
    held = read_json(path) if path.is_file() else {"vary": vary, "seeds": []}
    if held["vary"] != vary or not set(held["seeds"]) <= set(seeds):
        raise ArtifactError(
            f"{out}: holds a finished ablation over {held['vary'] or 'no setting'}, seeds {held['seeds']}; give "
            "another --out to keep it, or --overwrite to replace it (finished runs are not made again)"
        )


def _plan(path: Path, first: Recipe, overrides: Sequence[str], setting: Setting, seed: int, out: Path) -> PlannedRun:
    every = (*overrides, *_for_axes(setting.overrides, first), f"seed={seed}")
    return PlannedRun(
        label=f"{setting.name or first.name}, seed {seed}",
        recipe=load_recipe(path, every),
        path=path,
        overrides=every,
        folder=out / setting.name / f"seed-{seed}" if setting.name else out / f"seed-{seed}",
    )


def _read(folder: Path) -> dict[str, Any]:
    report = read_json(folder / "report.json")
    by_system: dict[str, list[Sample]] = {}
    for sample in read_samples(folder / "samples.jsonl"):
        by_system.setdefault(sample.system, []).append(sample)
    return {"report": report, "samples": by_system}


def _varied(settings: Sequence[Setting]) -> dict[str, list[str]]:
    """Return the swept keys with their values, in order."""
    found: dict[str, dict[str, None]] = {}
    for setting in settings:
        for key, value in setting.values:
            found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}


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
        grid[name] = Setting(name, tuple(f"{key}={value}" for key, value in point), point)
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


def _summarise(by_seed: Mapping[int, Mapping[str, Any]], recipe: Recipe, boot: Bootstrap) -> dict[str, Any]:
    """Return mean and spread of every system over the seeds, and paired differences: against rivals, part by part."""
    reports = [entry["report"] for entry in by_seed.values()]
    samples = [entry["samples"] for entry in by_seed.values()]
    axes = recipe.axis_names
    measured = [name for name in reports[0]["systems"] if all(name in report["systems"] for report in reports)]
    systems = {name: _system(name, reports, axes) for name in measured}

    def compared(one: str, other: str) -> dict[str, Any]:
        return asdict(difference_over_seeds([(s[one], s[other]) for s in samples], axes, boot=boot))

    return {
        "systems": systems,
        "differences": {
            rival: {name: compared(name, rival) for name in systems if name != rival}
            for rival in rivals_of(recipe)
            if rival in systems
        },
        "parts": [
            {**asdict(part), "difference": compared(part.parent, part.system)}
            for part in parts_of(recipe)
            if part.system in systems and part.parent in systems
        ],
        "left_out": {
            name: {"probes": list(probes), **_over_seeds([measure_left_out(s[name], probes) for s in samples])}
            for name, probes in left_out_of(recipe).items()
            if name in systems
        },
        "updates": {
            name: {what: told for what in ("verdicts", "axis") if (told := _clock(reports, name, what)) is not None}
            for name in systems
        },
        "headroom": _spread([((r.get("headroom") or {}).get("headroom") or {}).get("value") for r in reports]),
        "forgetting": {str(seed): entry["report"]["forgetting"] for seed, entry in by_seed.items()},
        "collapse": {str(seed): entry["report"].get("collapse") for seed, entry in by_seed.items()},
    }


def _system(name: str, reports: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> dict[str, Any]:
    entries = [report["systems"][name] for report in reports]
    found: dict[str, Any] = {
        **{key: entries[0].get(key) for key in ("about", "plain", "upper_bound", "one_adapter")},
        "mean_axis_score": _spread([entry["mean_axis_score"]["value"] for entry in entries]),
        "axis_scores": {axis: _spread([entry["axis_scores"][axis]["value"] for entry in entries]) for axis in axes},
        "average_alignment_score": _spread([entry["average_alignment_score"]["value"] for entry in entries]),
        "seconds": _spread([entry["cost"]["seconds"] for entry in entries]),
    }
    routing = [report["routing"].get(name) for report in reports]
    if all(routing):
        found["routing"] = {
            key: _spread([(entry or {}).get(key, {}).get("value") for entry in routing]) for key in _ROUTING
        }
    return found


def _clock(reports: Sequence[Mapping[str, Any]], name: str, what: str) -> dict[str, Any] | None:
    """Return the spread of the seconds a system needs to take in something new, None where a run does not say."""
    told = [report.get("updates", {}).get(name, {}).get(what) for report in reports]
    if not all(told):
        return None
    return {key: _spread([entry[key] for entry in told]) for key in ("seconds", "cpu_seconds")}


def _over_seeds(found: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    return {key: _spread([entry[key] for entry in found]) for key in found[0]}


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean, standard deviation (ddof 1, None for one seed) and the values; None where a value is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return {"mean": None, "std": None, "values": list(values)}
    std = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "std": std, "values": known}


def _write(summary: dict[str, Any], out: Path) -> Ablation:
    paths = Ablation(summary, *(out / name for name in _FILES))
    page, table, plot = ablation_page(summary), ablation_table(summary), draw_ablation(summary)
    with writing(out, "ablate", _FILES):
        write_whole(paths.json_path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
        write_whole(paths.table_path, table)
        write_whole(paths.plot_path, plot)
        write_whole(paths.page_path, page)
    return paths
