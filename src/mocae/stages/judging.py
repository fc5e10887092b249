"""The judges of a recipe, trained first where they need it."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mocae.config import JudgeConfig, Recipe
from mocae.judges import JUDGES, Judge, audit_judges, audit_prompts, build_judge, is_audited
from mocae.judges.base import reach_all
from mocae.progress import say
from mocae.stages.rows import Rows
from mocae.stages.store import key_of
from mocae.types import Example

__all__ = ["Audited", "Judges", "audit_all", "build_judges", "judge_key", "make_judges"]

_GUESS = 1.96 * 0.5
"""Half of the 95 % interval of a guess's share, times the root of the number of labels."""


@dataclass(frozen=True, slots=True)
class Judges:
    """The judges, and a key of everything their verdicts depend on."""

    judges: Sequence[Judge]
    key: str


def make_judges(recipe: Recipe, rows: Rows) -> Judges:
    """Return the judges in the recipe's order; those that learn never see prompts of the test and calibration splits.

    A judge that learns from a file an axis is trained on does not see that axis's training prompts either.

    Raises:
        PluginError, ConfigError, DataError, ArtifactError: see `mocae.judges.build_judge`.
    """
    # Calibration too: a judge that knows those answers would teach the router a confidence it does not have on others.
    asked = {row.id for row in (*rows.all_of("test"), *rows.all_of("calibration"))}
    excluded = [sorted(asked | _trained_on(recipe, rows, config)) for config in recipe.judges]
    judges = build_judges(
        [_with_base(recipe, config) for config in recipe.judges], excluded, data_root=recipe.data_root, seed=recipe.seed
    )
    inputs: dict[str, Any] = {
        "judges": [config.model_dump() for config in recipe.judges],
        "files": list(_file_digests(recipe.judges, recipe.data_root)),
        "seed": recipe.seed,
        "excluded": [ids if _learns(config) else [] for config, ids in zip(recipe.judges, excluded, strict=True)],
    }
    if recipe.probes:  # which answers are acceptable is theirs to say
        inputs["probes"] = [config.model_dump() for config in recipe.probes]
    return Judges(judges, key_of(inputs))


def build_judges(
    configs: Sequence[JudgeConfig], excluded: Sequence[Sequence[str]], *, data_root: Path | None, seed: int
) -> list[Judge]:
    """Return the judges in order; none learns from the prompts that are excluded for it.

    Raises:
        JudgeError: a server that one of them asks is not there; see `mocae.judges.build_judge` for the others.
    """
    judges = []
    for config, ids in zip(configs, excluded, strict=True):
        say(f"judge {config.judge}")
        judge = build_judge(config.judge, config.options, data_root=data_root, seed=seed, exclude_prompts=ids)
        reach_all([judge])
        judges.append(judge)
    return judges


def _with_base(recipe: Recipe, config: JudgeConfig) -> JudgeConfig:
    """Return a judge's entry, the name of the base model in place of "base" as what it reads states of.

    The judge loads a copy of its own: the run attaches experts to the other.
    """
    if config.options.get("states") != "base":
        return config
    return config.model_copy(update={"options": {**config.options, "states": recipe.base.required_model()}})


def _trained_on(recipe: Recipe, rows: Rows, config: JudgeConfig) -> set[str]:
    """Return the training prompts of every axis that is trained on a file the judge learns from."""
    files = {value for value in config.options.values() if isinstance(value, str)}
    axes = [axis.name for axis in recipe.axes if any(str(source.path) in files for source in axis.train)]
    return {row.id for axis in axes for row in rows.train[axis]}


@dataclass(frozen=True, slots=True)
class Audited:
    """Audits as `report.json` has them: one a judge, what constant answers would reach, notes on judges that fail."""

    audits: Sequence[dict[str, Any] | None]
    constants: Sequence[dict[str, Any]]
    notes: Sequence[str]


def audit_all(judges: Sequence[Judge], tests: Sequence[Example]) -> Audited:
    """Return what the judges say to constant answers to the test prompts; servers are not asked.

    Where every judge is exact there is nothing to audit. A judge whose measured quality may be chance is noted as well.
    """
    notes = _guesses(judges)
    if not any(map(is_audited, judges)):
        return Audited([None] * len(judges), [], notes)
    free = [judge for judge in judges if not getattr(judge, "asks_server", False)]
    judged = audit_judges(free, audit_prompts(tests))
    by_judge = {id(judge): audit for judge, audit in zip(free, judged.audits, strict=True)}
    audits = [by_judge.get(id(judge)) for judge in judges]
    notes += [
        f"judge {judge.name} is {audit.verdict}"
        for judge, audit in zip(judges, audits, strict=True)
        if audit is not None and not audit.believed
    ]
    for note in notes:
        say(f"warning: {note}")
    return Audited(
        [None if audit is None else asdict(audit) | {"rows": [asdict(r) for r in audit.rows]} for audit in audits],
        [asdict(constant) for constant in judged.constants],
        notes,
    )


def _guesses(judges: Sequence[Judge]) -> list[str]:
    """Return a note for each judge whose balanced accuracy does not lie surely above that of a guess, one half."""
    measured = [(j.name, j.quality, 0.5 + _GUESS / math.sqrt(j.quality.n)) for j in judges if j.quality is not None]
    return [
        f"judge {name} may be guessing: balanced accuracy {quality.balanced_accuracy:.2f} on {quality.n} labelled "
        f"answers, where a guess has up to {highest:.2f}; label more of them"
        for name, quality, highest in measured
        if quality.balanced_accuracy <= highest
    ]


def _learns(config: JudgeConfig) -> bool:
    """Return whether a judge is kept from prompts; one that is not says the same whatever is tested."""
    return "exclude_prompts" in inspect.signature(JUDGES.get(config.judge)).parameters


def judge_key(config: JudgeConfig, *, data_root: Path | None, seed: int, excluded: Sequence[str]) -> str:
    """Return a key of everything the verdicts of one judge depend on."""
    inputs = {"judge": config.model_dump(), "files": list(_file_digests([config], data_root))}
    return key_of(inputs | ({"seed": seed, "excluded": list(excluded)} if _learns(config) else {}))


def _file_digests(configs: Sequence[JudgeConfig], data_root: Path | None) -> Iterator[str]:
    """Yield the SHA-256 of every file and folder the options of judges name: other labels make other verdicts."""
    named = (value for config in configs for value in config.options.values() if isinstance(value, str))
    for path in ((data_root or Path()) / value for value in named):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as content:
                    yield hashlib.file_digest(content, "sha256").hexdigest()
