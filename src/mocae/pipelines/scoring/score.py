"""Metrics from a file made elsewhere: annotations, probabilities with labels, verdicts.

A row whose value is null is *unscored*: counted, reported, in no other number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mocae.axes import stored_probe
from mocae.config import declare_probes_of
from mocae.data.readers import place
from mocae.errors import ConfigError, DataError, PluginError, unknown_name
from mocae.evaluation import Bootstrap, measure_metric, sample_from_json
from mocae.files import read_json
from mocae.metrics import (
    METRICS,
    Binning,
    Metric,
    accuracy,
    balanced_accuracy,
    cohens_kappa,
    estimate_rate,
    length_controlled_win_rate,
    multiple_choice_scores,
    over_refusal,
    truthful_and_informative,
    truthful_informative,
    win_rate,
)
from mocae.metrics import (
    metric as find_metric,
)
from mocae.pipelines.scoring import probabilities  # noqa: F401 - registers its metrics
from mocae.pipelines.scoring.scores import SCORES, Bins, FileScore, Scored, file_score, whole
from mocae.pipelines.scoring.table import MISSING, ScoreTable, read_table
from mocae.pipelines.scoring.values import (
    Label,
    flag,
    label,
    number,
    numbers,
    one_kind,
    refusal_label,
    text_length,
)
from mocae.types import Estimate, Sample

__all__ = ["FileScore", "Scored", "score_file", "scores"]

_NO_VERDICT = frozenset(
    {
        *("mean_axis_score", "axis_score", "average_alignment_score"),
        *("truthful_informative", "abstention_f1", "checks_met"),
    }
)
"""Metrics of judged answers that are no mean of one judgement."""


def score_file(
    metric: str,
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    where: Sequence[str] = (),
    n_bins: int = 15,
    binning: Binning = "width",
) -> Scored:
    """Return a metric of a file.

    Args:
        metric: a name in `scores()`, hyphens as good as underscores.
        path: JSON, JSONL, CSV or Parquet, also compressed.
        columns: name the metric uses -> column of the file.
        where: filters, see `mocae.pipelines.scoring.table.read_table`.
        n_bins: bins of calibration errors.
        binning: of calibration errors: equal width or equal mass.

    Raises:
        PluginError: no such metric.
        ConfigError: a column name the metric does not use, or a filter that is none.
        DataError: the file or a value in it is wrong.
    """
    known = scores()
    name = _ALIASES.get(metric, metric.replace("-", "_"))
    beside = path.with_name("report.json")
    if name not in known and path.name == "samples.jsonl" and beside.is_file():
        declare_probes_of(read_json(beside))  # the recipe of a run may declare the metric
        known = scores()
    if name not in known:
        if name in METRICS:
            METRICS.get(name)  # one that does not load says why
            raise ConfigError(
                f"metric {metric!r} is measured by a run, report.json has it. `mocae score` computes: "
                f"{', '.join(sorted(known))}"
            )
        raise PluginError(unknown_name("metric", metric, known))
    score, renamed = known[name], dict(columns or {})
    for column in renamed:
        if column not in score.columns:
            raise ConfigError(f"--column {column}=...: {unknown_name(f'column of {metric}', column, score.columns)}")
    table = read_table(path, columns=renamed, where=where)
    try:
        if table.of_samples:
            if _is_of_samples(find_metric(name)) and not renamed:
                return _of_samples(table, name)
            usual = {"prob": "confidence", "label": "acceptable"}.items()
            table = replace(table, renamed={n: c for n, c in usual if not table.has(n)} | renamed)
        return score.compute(table, {"n_bins": n_bins, "binning": binning})
    except DataError as error:
        if str(error).startswith(str(path)):
            raise
        raise DataError(f"{path}: {error}") from error


def scores() -> dict[str, FileScore]:
    """Return every metric that a file gives, by name: ours, and those of plug-ins that say how they are computed."""
    found: dict[str, FileScore] = {}
    for metric in map(find_metric, METRICS):  # one that does not load is left out
        if metric.name in SCORES:
            found[metric.name] = SCORES[metric.name]
        elif metric.compute is not None:
            found[metric.name] = FileScore(metric.columns, _computed(metric))
        elif _is_of_samples(metric):
            found[metric.name] = FileScore((metric.judgement or "verdicts", "category"), _judged(metric))
    return found


def _is_of_samples(metric: Metric) -> bool:
    """Return whether judged answers, lines of a `samples.jsonl`, give a metric."""
    return bool(metric.judgement) or metric.name in _NO_VERDICT


def _judged(metric: Metric) -> Callable[[ScoreTable, Bins], Scored]:
    return lambda table, _: _share(table, metric.judgement or "verdicts", metric)


def _computed(metric: Metric) -> Callable[[ScoreTable, Bins], Scored]:
    def compute(table: ScoreTable, _: Bins) -> Scored:
        columns, n_unscored = whole(*(table.column(name, number) for name in metric.columns))
        if not columns[0] or metric.compute is None:
            raise DataError(f"{table.path}: none of {len(table.rows)} rows has all of {', '.join(metric.columns)}")
        return Scored({metric.name: float(metric.compute(*columns))}, len(columns[0]), n_unscored)

    return compute


@file_score("win_rate", columns=("preference", "instruction", "generator_2"))
def _win_rate(table: ScoreTable, _: Bins) -> Scored:
    preferences = _preferences(table)
    rate = win_rate(preferences)
    known = [p for p in preferences if p is not None]
    wins, losses = sum(p > 1.5 for p in known), sum(0 < p < 1.5 for p in known)
    draws = len(known) - wins - losses
    values = {
        "win_rate": rate.value,
        "standard_error": rate.standard_error,
        "discrete_win_rate": (wins + draws / 2) / rate.n if rate.n else None,
        "n_wins": wins,
        "n_losses": losses,
        "n_draws": draws,
    }
    return Scored(values, rate.n, rate.n_unscored, notes=_alpaca_notes(table))


@file_score(
    *("length_controlled_win_rate", "length_effect", "mean_length", "mean_reference_length"),
    columns=("preference", "instruction", "generator_2", "output_1", "output_2"),
    alias="lc-win-rate",
)
def _length_controlled(table: ScoreTable, _: Bins) -> Scored:
    preferences = _preferences(table)
    theirs, mine = (_lengths(table, name) for name in ("output_1", "output_2"))
    rate = length_controlled_win_rate(preferences, mine, theirs)
    values = {
        "length_controlled_win_rate": rate.value,
        "standard_error": rate.standard_error,
        "win_rate": win_rate(preferences).value,
        "length_effect": rate.length_effect,
        "mean_length": float(np.mean(mine)),
        "mean_reference_length": float(np.mean(theirs)),
    }
    note = "without the instruction-difficulty term of AlpacaEval 2, which needs many systems' annotations"
    return Scored(values, rate.n, rate.n_unscored, notes=[note, *_alpaca_notes(table)])


def _lengths(table: ScoreTable, name: str) -> list[float]:
    lengths = [length for length in table.column(name, text_length, text=True) if length is not None]
    if len(lengths) < len(table.rows):
        raise DataError(f"{len(table.rows) - len(lengths)} rows have no {name}; its length is needed in every row")
    return lengths


def _preferences(table: ScoreTable) -> list[float | None]:
    if table.has("generator_2"):
        names = sorted({str(name) for name in table.column("generator_2", str, text=True)})
        if len(names) > 1:
            raise DataError(
                f"{table.path}: annotations of {len(names)} systems ({', '.join(names[:4])}); a win rate is of one: "
                "add --where generator_2=NAME"
            )
    return table.column("preference", number)


def _alpaca_notes(table: ScoreTable) -> list[str]:
    repeated = table.duplicates("instruction")
    return [f"{repeated} rows repeat an earlier instruction; each counts"] if repeated else []


@file_score("rate", columns=("verdict", "category"))
def _rate(table: ScoreTable, _: Bins) -> Scored:
    return _share(table, "verdict", Metric(name="rate", label="rate", text=""))


def _share(table: ScoreTable, column: str, metric: Metric) -> Scored:
    """Return the mean of a verdict over the rows, with its interval, also by category where the file has one."""
    read: Callable[[Any], float] = number if metric.graded else flag
    verdicts = [None if v is None else abs(metric.negated - float(v)) for v in table.column(column, read)]
    categories = table.column("category", str, text=True) if table.has("category") else []
    by: dict[str, list[float]] = {}
    for verdict, category in zip(verdicts, categories, strict=False):
        if verdict is not None:
            by.setdefault(category or "none", []).append(verdict)
    known = [verdict for verdict in verdicts if verdict is not None]
    return _estimated(metric.name, estimate_rate(known), len(verdicts) - len(known), by)


def _estimated(name: str, estimate: Estimate, n_unscored: int, by: Mapping[str, Sequence[float]]) -> Scored:
    values = {name: estimate.value, "low": estimate.low, "high": estimate.high}
    tables = {"by_category": {kind: asdict(estimate_rate(by[kind])) for kind in sorted(by)}} if by else {}
    return Scored(values, estimate.n, n_unscored, tables, ["95 % bootstrap interval, 1000 resamples, seed 0"])


def _of_samples(table: ScoreTable, name: str) -> Scored:
    """Return a metric of judged answers as `mocae run`, `eval` and `judge run` compute it, also by kind of prompt.

    Raises:
        DataError: a row is damaged, the answers are of several systems, or none gives the metric.
    """
    systems = sorted({str(row["system"]) for _, row in table.rows})
    if len(systems) > 1:
        raise DataError(
            f"{table.path}: answers of {len(systems)} systems ({', '.join(systems[:4])}); a metric is of one: add "
            "--where system=NAME"
        )
    samples = [sample_from_json(row, f"{table.path}: {place(table.path, n)}") for n, row in table.rows]
    estimate = measure_metric(samples, name, boot=Bootstrap())
    if estimate.value is None:
        kinds, verdicts = ({k for s in samples for k in keys(s)} for keys in (_probes, lambda s: s.verdicts))
        raise DataError(
            f"{table.path}: none of {len(samples)} answers gives {name}; their prompts are of kind "
            f"{', '.join(sorted(kinds))}, their verdicts on {', '.join(sorted(verdicts)) or 'nothing'}"
        )
    by: dict[str, list[float]] = {}
    carrying = [s for s in samples if name in (*stored_probe(s.answer.example.probe).metrics, "pass_rate")]
    scored = [(s.answer.example.kind, find_metric(name).value(s)) for s in carrying]
    for kind, value in scored:
        if kind and value is not None:
            by.setdefault(kind, []).append(value)
    n_unscored = sum(value is None for _, value in scored) if find_metric(name).judgement else 0
    return _estimated(name, estimate, n_unscored, by)


def _probes(sample: Sample) -> tuple[str]:
    return (sample.answer.example.probe,)


@file_score("over_refusal", columns=("label",))
def _over_refusal(table: ScoreTable, _: Bins) -> Scored:
    rates = over_refusal(table.column("label", refusal_label))
    values = {name: getattr(rates, name) for name in ("over_refusal", "full_refusal", "partial_refusal")}
    return Scored(values, rates.n, rates.n_unscored, notes=["only safe prompts may be in the rows"])


@file_score("truthful_informative", "truthful_and_informative", columns=("truthful", "informative"))
def _truthful(table: ScoreTable, _: Bins) -> Scored:
    both, n_unscored = whole(*(table.column(name, flag) for name in ("truthful", "informative")))
    measures: dict[str, Callable[[Any, Any], float]] = {
        "truthful_rate": lambda truthful, _: float(np.mean(truthful)),
        "informative_rate": lambda _, informative: float(np.mean(informative)),
        "truthful_informative": truthful_informative,
        "truthful_and_informative": truthful_and_informative,
    }
    n = len(both[0])
    return Scored({name: measure(*both) if n else None for name, measure in measures.items()}, n, n_unscored)


@file_score("cohens_kappa", "accuracy", "balanced_accuracy", columns=("judge", "label"), alias="kappa")
def _kappa(table: ScoreTable, _: Bins) -> Scored:
    judged, right, notes = _labels(table)
    both, n_unscored = whole(judged, right)
    if not both[0]:
        raise DataError(f"none of {len(judged)} rows has both labels")
    measures = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "cohens_kappa": cohens_kappa}
    values = {name: measure(*both) for name, measure in measures.items()}
    return Scored(values, len(both[0]), n_unscored, notes=notes)


def _as_it_is(value: Any) -> Any:
    return value


def _yes_or_no(score: Any) -> int:
    """Return what a judge's score says: 1 from one half on."""
    return int(flag(score))


def _labels(table: ScoreTable) -> tuple[list[Label | None], list[Label | None], list[str]]:
    """Return the labels of both raters, comparable, and what a reader must know of them."""
    missing = MISSING - {"none"}  # a category in many a file of words; no label where the others are numbers
    raw = [
        [
            None if str(value).strip().lower() in missing else value
            for value in table.column(name, _yes_or_no if table.of_verdicts(name) else _as_it_is, text=True)
        ]
        for name in ("judge", "label")
    ]
    bare = [[None if str(value).strip().lower() == "none" else value for value in column] for column in raw]
    (judged, right), kind = one_kind(*bare)
    if raw == bare or kind != "words":
        return judged, right, []
    (judged, right), _ = one_kind(*raw)
    return judged, right, ["'none' is a label as the others; an empty cell is a missing one"]


@file_score("mc1", "mc0", "mc2", columns=("true_log_probs", "false_log_probs", "best_false"), alias="truthfulqa-mc")
def _multiple_choice(table: ScoreTable, _: Bins) -> Scored:
    true, false = table.column("true_log_probs", numbers), table.column("false_log_probs", numbers)
    best = table.column("best_false", label) if table.has("best_false") else [None] * len(true)
    rows = [(t, f, b) for t, f, b in zip(true, false, best, strict=True) if t is not None and f is not None]
    scores = [multiple_choice_scores(t, f, best_false=b) for t, f, b in rows]
    known = [name for name in ("mc0", "mc1", "mc2") if all(getattr(s, name) is not None for s in scores)]
    values = {name: float(np.mean([getattr(s, name) for s in scores])) if scores else None for name in known}
    return Scored(values, len(scores), len(true) - len(scores), notes=["the first true answer is the best one"])


_ALIASES = {score.alias: name for name, score in reversed(SCORES.items()) if score.alias}
"""Names of before -> the first name of the metric."""
