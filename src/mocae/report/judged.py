"""The page and the tables of `mocae judge run`: what judges say of answers made elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mocae.report.colours import css_colours
from mocae.report.judges import judge_rows
from mocae.report.samples import samples_payload
from mocae.report.schema import check_report, read_estimate
from mocae.report.tables import Cell, Column, Table, estimate_cell, format_count, format_estimate
from mocae.report.templating import templates
from mocae.types import Sample

__all__ = ["disagreements", "judged_page", "rates_table"]


def judged_page(report: Mapping[str, Any], samples: Sequence[Sample] = ()) -> str:
    """Return the whole page of a file of answers that was judged; the same report and samples give the same bytes.

    Raises:
        ArtifactError: `report` is of another version or lacks what every report needs.
    """
    check_report(report)
    return (
        templates()
        .get_template("judged.html.j2")
        .render(
            report=report,
            table=rates_table(report),
            kinds=_kinds_table(report),
            disagreements=disagreements(report),
            judges=judge_rows(report),
            samples=samples_payload(samples),
            light=css_colours(dark=False),
            dark=css_colours(dark=True),
        )
    )


def rates_table(report: Mapping[str, Any]) -> Table:
    """Return a row for each system and kind of prompt: answers, and the share on which each judgement holds."""
    parts = _by(report["rates"], lambda row: _named(row["system"], row["probe"]))
    counts = [max(row["n"] + row["unscored"] for row in rows.values()) for rows in parts.values()]
    lost = [sum(row["unscored"] for (judge, _), row in rows.items() if judge) for rows in parts.values()]
    whole = [
        (Column("", label, meaning, ""), [Cell(format_count(n), "", float(n)) for n in numbers])
        for label, meaning, numbers in (
            ("answers", "Answers judged.", counts),
            ("unscored", "Verdicts that failed; in no rate.", lost),
        )
    ]
    return Table.of(list(parts), [whole[0], *_columns(list(parts.values())), whole[1]])


def _kinds_table(report: Mapping[str, Any]) -> Table | None:
    """Return a row for each kind of prompt, system by system; None where no row of the file says its kind."""
    rows = report.get("kinds") or ()
    places = list(dict.fromkeys(_named(row["system"], row["probe"]) for row in rows))
    by_place = {p: _by([r for r in rows if _named(r["system"], r["probe"]) == p], lambda r: r["part"]) for p in places}
    kinds = sorted({row["part"] for row in rows})
    columns = [
        (column if len(places) == 1 else Column(place, column.label, column.meaning, ""), cells)
        for place in places
        for column, cells in _columns([by_place[place].get(kind, {}) for kind in kinds])
    ]
    return Table.of(kinds, columns) if kinds else None


def _columns(parts: Sequence[Mapping[Any, Any]]) -> list[tuple[Column, list[Cell]]]:
    """Return a column for every judge and judgement of these rows, "acceptable" first.

    A judge is named above a judgement that several give.
    """
    keys = sorted(dict.fromkeys(key for rows in parts for key in rows), key=lambda key: bool(key[0]))
    given = Counter(judgement for _, judgement in keys)
    return [
        (
            Column(
                judge if given[judgement] > 1 else "",
                judgement,
                f"Share of answers on which “{judgement}” holds" + (f", as {judge} says." if judge else "."),
                "",
            ),
            [estimate_cell(read_estimate(rows.get((judge, judgement))), "percent") for rows in parts],
        )
        for judge, judgement in keys
    ]


def _by(rows: Sequence[Mapping[str, Any]], name: Any) -> dict[str, dict[tuple[str, str], Mapping[str, Any]]]:
    parts: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(name(row), {})[row["judge"], row["judgement"]] = row
    return parts


def _named(system: str, probe: str) -> str:
    return f"{system} · {probe}" if probe else system


def disagreements(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each two judges that give one judgement: how often they disagree."""
    lines = []
    for row in report.get("agreement") or ():
        kappa = "" if row["kappa"] is None else f", kappa {row['kappa']:.2f}"
        share = format_estimate(read_estimate(row["rate"]))
        one, other = row["judges"]
        lines.append(
            f"{row['judgement']}: {one} and {other} disagree on {row['disagree']} of {row['n']}, {share}{kappa}"
        )
    return lines
