"""Whether what a recipe names is there: plug-ins, their options, data files, the base model.

Options are checked against the signature of the code that takes them. Where that code needs a package that is not
installed (a system needs torch), a note says what was not checked and which extra brings it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mocae.axes import PROBES
from mocae.config import SYSTEMS, AxisConfig, OptimizerConfig, Recipe, SourceConfig, SystemConfig
from mocae.data import SOURCES, checked_options
from mocae.data.published import how_to_fetch
from mocae.errors import ConfigError, MissingPackageError, PluginError, unknown_name
from mocae.extras import missing_extra
from mocae.judges import JUDGES, sayings
from mocae.judges.audit import NOT_BELIEVED
from mocae.judges.base import Says
from mocae.prompts import FORMATS
from mocae.registry import Registry

__all__ = ["check_names", "plugin_problems", "says_of_judge", "skipped_without_extra", "sources_of"]

_SPLITS = ("train", "calibration", "test")
_GIVEN = {"source": frozenset({"path", "axis", "on_bad_row"}), "judge": frozenset({"exclude_prompts"})}
"""Arguments that the run gives to what a registry holds; everything else is `options`."""


def check_names(
    recipe: Recipe, unseen: dict[str, list[str]]
) -> tuple[list[str], list[str], list[tuple[str, Says | None]]]:
    """Return problems and notes on what the recipe names, and what each judge can say."""
    problems: list[str] = []
    notes: list[str] = []
    if recipe.prompt_format not in FORMATS:
        problems.append(f"prompt_format: {unknown_name('prompt format', recipe.prompt_format, FORMATS)}")
    if recipe.base.model is None:
        notes.append("base.model: not set; a run needs --set base.model=... or MOCAE_BASE_MODEL")
    else:
        with skipped_without_extra("base.model", unseen):
            _base(recipe.base.model, problems, notes)
    files: dict[Path, str] = {}  # file -> the first key that names it
    says: list[tuple[str, Says | None]] = []
    missing: dict[str, list[str]] = {}  # what to install -> the keys that cannot be had without it
    for axis in recipe.axes:
        local = axis.adapter is not None and (axis.adapter.startswith((".", "/", "~")) or axis.adapter.count("/") != 1)
        if axis.adapter is not None and local and not Path(axis.adapter).expanduser().is_dir():
            problems.append(f"axes.{axis.name}.adapter: no folder {axis.adapter!r}; give a PEFT LoRA or a hub id")
    for key, _, source in sources_of(recipe):
        with skipped_without_extra(f"{key}.source", unseen):
            wrong, _ = plugin_problems(f"{key}.source", SOURCES, source.source, source.options)
            problems += wrong or _unknown_probe(key, source)
        if source.path is not None:
            files.setdefault(source.path, f"{key}.path")
    for index, judge in enumerate(recipe.judges):
        with skipped_without_extra(f"judges.{index}", unseen):
            wrong, options = plugin_problems(f"judges.{index}.judge", JUDGES, judge.judge, judge.options)
            problems += wrong
            key, root = f"judges.{index}", recipe.data_root
            said = None if wrong else says_of_judge(judge.judge, options, key, problems, data_root=root)
            says.append((judge.judge, said))
            notes += _doubts(recipe, f"judges.{index}", judge.judge, options)
            for option, value in options.items():
                if isinstance(value, Path):
                    files.setdefault(value, f"judges.{index}.options.{option}")
    for index, system in enumerate(recipe.systems):
        with skipped_without_extra(f"systems.{index}", unseen), _kept(f"systems.{index} ({system.name})", missing):
            problems += _system_problems(recipe, system, f"systems.{index}")
    optimizer, key = recipe.experts.optimizer, "experts.optimizer.method"
    if optimizer.method != "adamw" or optimizer.options:
        with skipped_without_extra(key, unseen), _kept(f"{key} ({optimizer.method})", missing):
            problems += _trainer_problems(key, optimizer)
    problems += [f"{', '.join(keys)}: {advice}, or leave them out" for advice, keys in missing.items()]
    lost, unchecked = _check_files(recipe, files)
    problems += lost
    notes += unchecked
    problems += _overlaps(recipe)
    if recipe.experts.injection_rate == 1 and any(axis.train and axis.injection for axis in recipe.axes):
        notes.append(
            "experts.injection_rate: 1.0, so every training row carries the injected prompt, and prompts are asked "
            "without; an expert that never saw a bare prompt may not act on one. Give less than 1, such as 0.5"
        )
    learned, shared = _taught_twice(recipe)
    return [*problems, *learned], [*notes, *shared], says


def _base(model: str, problems: list[str], notes: list[str]) -> None:
    from mocae.models import find_base, is_cached  # import torch, which reading a recipe does not need

    try:
        found = find_base(model)
    except ConfigError as error:
        problems.append(f"base.model: {error}")
        return
    if not Path(found).is_dir() and not is_cached(found):
        notes.append(
            f"base.model: {model!r} is no folder here, so the run takes it from the Hub; give ./{model} if a folder is "
            "meant"
        )


def _unknown_probe(key: str, source: SourceConfig) -> list[str]:
    name = source.options.get("probe")
    if not isinstance(name, str) or name in PROBES:
        return []
    return [f"{key}.options.probe: {unknown_name('probe', name, PROBES)}"]


def says_of_judge(
    name: str, options: Mapping[str, Any], key: str, problems: list[str], *, data_root: Path | None
) -> Says | None:
    """Return what a judge can say, None where that is not known; what is wrong with its options is added."""
    try:
        return sayings(name, options, data_root=data_root)
    except (ConfigError, PluginError) as error:
        problems.append(f"{key}.options: {error}")
        return None


def _doubts(recipe: Recipe, key: str, judge: str, options: Mapping[str, Any]) -> list[str]:
    """Return a note where a judge is known to fall for constant answers: always, or as its saved audit says."""
    if judge in NOT_BELIEVED:
        return [f"{key}: {judge!r} is not to be believed: {NOT_BELIEVED[judge]}"]
    folder = options.get("saved")
    if not isinstance(folder, Path) or not ((recipe.data_root or Path()) / folder / "judge.json").is_file():
        return []
    from mocae.judges.learned.classifier import read_judge  # imports what only judges that learn need

    audit = read_judge((recipe.data_root or Path()) / folder).audit
    return [] if audit is None or audit.believed else [f"{key}: {judge!r} is {audit.verdict}"]


def sources_of(recipe: Recipe) -> Iterator[tuple[str, str, SourceConfig]]:
    """Yield dotted key, split and source of every source."""
    for axis in recipe.axes:
        for split in _SPLITS:
            for index, source in enumerate(_of_split(axis, split)):
                yield f"axes.{axis.name}.{split}.{index}", split, source


def _of_split(axis: AxisConfig, split: str) -> tuple[SourceConfig, ...]:
    sources: tuple[SourceConfig, ...] = getattr(axis, split)
    return sources


def _check_files(recipe: Recipe, files: dict[Path, str]) -> tuple[list[str], list[str]]:
    """Return a problem for each file that is not there, and one note on all that cannot be looked for."""
    unchecked = [str(path) for path in files if recipe.data_root is None and not path.is_absolute()]
    problems = [
        f"{key}: no file {str(recipe.data_path(path))!r}; paths start from data_root, {str(recipe.data_root)!r}"
        f"{how_to_fetch(path)}"
        for path, key in files.items()
        if str(path) not in unchecked and not (recipe.data_root or Path()).joinpath(path).exists()
    ]
    if not unchecked:
        return problems, []
    return problems, [f"data_root: not set (nor MOCAE_DATA_ROOT), so these were not looked for: {', '.join(unchecked)}"]


def plugin_problems(
    key: str, registry: Registry[Any], name: str, options: Mapping[str, Any], given: frozenset[str] | None = None
) -> tuple[list[str], dict[str, Any]]:
    """Return what is wrong with a plug-in's name or options, and the options as its signature types them."""
    try:
        plugin = registry.get(name)
    except MissingPackageError:
        raise
    except PluginError as error:
        return [f"{key}: {error}"], {}
    try:
        return [], checked_options(
            plugin, options, what=f"{registry.what} {name!r}", given=_GIVEN[registry.what] if given is None else given
        )
    except ConfigError as error:
        return [f"{key.rpartition('.')[0]}.options: {error}"], {}


@contextmanager
def skipped_without_extra(key: str, unseen: dict[str, list[str]]) -> Iterator[None]:
    """Return a context that notes `key` in `unseen` where the code to check it with needs a package of an extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        reason = missing_extra(error)
        if reason is None:
            raise
        unseen.setdefault(reason, []).append(key)


@contextmanager
def _kept(key: str, missing: dict[str, list[str]]) -> Iterator[None]:
    """Return a context that puts `key` into `missing` where the code behind it is of a package that is not here."""
    try:
        yield
    except MissingPackageError as error:
        missing.setdefault(error.advice, []).append(key)


def _trainer_problems(key: str, optimizer: OptimizerConfig) -> list[str]:
    from mocae.experts import GIVEN_TO_TRAINERS, TRAINERS  # imports torch, which reading a recipe does not need

    problems, _ = plugin_problems(key, TRAINERS, optimizer.method, optimizer.options, GIVEN_TO_TRAINERS)
    return problems


def _system_problems(recipe: Recipe, config: SystemConfig, where: str) -> list[str]:
    kind = config.policy.partition(":")[0]
    try:
        if kind not in SYSTEMS:
            SYSTEMS.get(kind)  # says what is wrong with the name
        from mocae.systems import build_system  # imports torch, which reading a recipe does not need

        system = build_system(config, recipe.axis_names, where=where)
        system.settled(recipe)
    except MissingPackageError:
        raise
    except PluginError as error:
        return [f"{where}.policy: {error}"]
    except ConfigError as error:
        return [str(error)]
    refused = system.refuse_base(recipe.base)
    return [] if refused is None else [f"{where}.policy: {refused}"]


def _taught_twice(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Return problems and notes: a judge that learns from a file an expert is trained on would flatter the expert.

    Judges are kept from the prompts of such an axis (`mocae.stages.judging`); where these are the whole file, nothing
    is left to learn from.
    """
    problems, notes = [], []
    for index, judge in enumerate(recipe.judges):
        files = {value for value in judge.options.values() if isinstance(value, str)}
        for axis in recipe.axes:
            whole = [s for s in axis.train if str(s.path) in files]
            if not whole:
                continue
            both = (
                f"judges.{index}: {judge.judge!r} learns from {str(whole[0].path)!r}, which trains axis {axis.name!r}"
            )
            if any(s.limit is None and (s.hash_range or (0.0, 1.0)) == (0.0, 1.0) for s in whole):
                problems.append(f"{both} with all its prompts; give the training a hash_range, or the judge a file")
            else:
                notes.append(f"{both} too; the judge gets the prompts alone that this axis is not trained on")
    return problems, notes


def _overlaps(recipe: Recipe) -> list[str]:
    """Return pairs of sources that give the same rows to two splits: a leak seen before anything is read."""
    problems = []
    for (key, split, a), (other_key, other_split, b) in itertools.combinations(sources_of(recipe), 2):
        same_rows = (a.source, a.path, a.options) == (b.source, b.path, b.options)
        (low, high), (other_low, other_high) = a.hash_range or (0.0, 1.0), b.hash_range or (0.0, 1.0)
        if split != other_split and same_rows and max(low, other_low) < min(high, other_high):
            problems.append(
                f"{other_key}.hash_range: got [{other_low}, {other_high}], which overlaps [{low}, {high}] of {key}, "
                f"and both read the same rows of {a.source!r}; give splits of one file disjoint ranges"
            )
    return problems
