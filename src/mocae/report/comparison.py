"""The page of `mocae compare`: paired differences of two evaluations, drawn and in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mocae.errors import ConfigError
from mocae.metrics import ARROWS
from mocae.report.colours import css_colours
from mocae.report.judges import judge_rows
from mocae.report.schema import read_estimate
from mocae.report.tables import format_estimate
from mocae.report.templating import templates
from mocae.types import Estimate

__all__ = ["comparison_page"]

Tone = Literal["good", "bad", "open"]


class _Row(NamedTuple):
    """One compared number as it is printed."""

    name: str
    arrow: str
    first: str
    second: str
    difference: str
    n: int
    tone: Tone
    reading: str


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """Return the whole page of a comparison; the same numbers give the same bytes.

    Args:
        comparison: `mocae.pipelines.compare.Comparison.as_json`.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from mocae.report.figures import TONES, Plate, draw_forest
    except ModuleNotFoundError as error:
        raise ConfigError(f"comparison: {error.name} is not installed; run: pip install 'mocae[eval]'") from error
    rows = [_row(row) for row in comparison["rows"]]
    drawn = [
        (row.name, difference, (), TONES[row.tone])
        for row, raw in zip(rows, comparison["rows"], strict=True)
        if (difference := read_estimate(raw["difference"])).value is not None
    ]
    spoken = "; ".join(f"{row.name} {row.difference}" for row in rows)
    plate = (
        Plate((draw_forest(drawn, "differences", f"{comparison['first']} minus {comparison['second']}. {spoken}"),))
        if drawn
        else Plate(absent="No prompt was scored on both sides.")
    )
    return (
        templates()
        .get_template("comparison.html.j2")
        .render(
            found=comparison,
            rows=rows,
            plate=plate,
            judges=[(side, judge_rows({"judges": judges})) for side, judges in comparison["judges"].items()],
            light=css_colours(dark=False),
            dark=css_colours(dark=True),
        )
    )


def _row(row: Mapping[str, Any]) -> _Row:
    difference, up = read_estimate(row["difference"]), row["higher_is_better"]
    tone, reading = _reading(difference, up)
    return _Row(
        name=str(row["name"]),
        arrow=ARROWS[up],
        first=format_estimate(Estimate(row["first"])),
        second=format_estimate(Estimate(row["second"])),
        difference=format_estimate(difference, "difference"),
        n=difference.n,
        tone=tone,
        reading=reading,
    )


def _reading(difference: Estimate, higher_is_better: bool | None) -> tuple[Tone, str]:
    """Return what a difference shows. An interval that holds zero shows nothing either way.

    >>> _reading(Estimate(0.1, 0.02, 0.2, 50), False)
    ('bad', 'A is worse')
    """
    if difference.low is None or difference.high is None:
        return "open", "not measured"
    if difference.low <= 0 <= difference.high:
        return "open", "no difference shown"
    if higher_is_better is None:
        return "open", "A is higher" if difference.low > 0 else "A is lower"
    return ("good", "A is better") if (difference.low > 0) is higher_is_better else ("bad", "A is worse")
