"""Axes may be called anything: each has its columns in the terminal, on the page, in the comparison."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import mocae.axes
from mocae.axes import Probe, probe, register_probe
from mocae.cli.tables import print_result
from mocae.evaluation import Bootstrap, measure_system, probes_by_axis, write_samples
from mocae.metrics import METRICS, Metric
from mocae.pipelines.compare import compare
from mocae.report import comparison_page, html_page
from mocae.types import Answer, Example, Sample, Verdict

AXES = ("alpha", "beta", "gamma", "delta")


@pytest.fixture
def brief() -> Iterator[None]:
    """A kind of prompt and a metric of somebody else, taken back afterwards."""
    METRICS.register("few_words_rate")(
        Metric(name="few_words_rate", label="few words", text="Share of short answers.", judgement="brief")
    )
    register_probe(Probe("brief", {"brief": True}, metrics=("few_words_rate",)))
    yield
    del mocae.axes.PROBES["brief"], METRICS._loaded["few_words_rate"]


def rows(system: str, axis: str, kind: str, **scores: Sequence[float]) -> list[Sample]:
    samples = []
    for i in range(len(next(iter(scores.values())))):
        verdicts = {name: Verdict(float(values[i])) for name, values in scores.items()}
        answer = Answer(Example(f"{axis} {kind} {i}", axis, kind), "")
        samples.append(Sample(system, answer, verdicts, probe(kind).accepts(verdicts)))
    return samples


def answers(system: str, right: float) -> list[Sample]:
    half, wrong = [right, right, 0, 1], [1 - right] * 4
    return [
        *rows(system, "alpha", "task", correct=half),
        *rows(system, "beta", "benign", refusal=wrong),
        *rows(system, "beta", "harmful", unsafe=[1 - right, 0, 0, 0]),
        *rows(system, "gamma", "question", truthful=half, informative=[1, 1, 1, 0]),
        *rows(system, "delta", "brief", brief=half),
    ]


def report_of(systems: dict[str, list[Sample]], axes: Sequence[str]) -> dict[str, Any]:
    base = next(iter(systems.values()))
    boot = Bootstrap(n_resamples=20)
    return {
        "schema": 1,
        "recipe": {"name": "any", "seed": 0, "base": {"model": "tiny"}, "axes": [{"name": axis} for axis in axes]},
        "systems": {name: measure_system(samples, base, axes, boot=boot) for name, samples in systems.items()},
        "probes": probes_by_axis(base, axes),
    }


def table_of(report: dict[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the headings, top to bottom, and the cells of every system."""
    out = io.StringIO()
    print_result(report, Path("report.html"), Console(file=out, width=118))
    lines = out.getvalue().splitlines()
    rule = next(i for i, line in enumerate(lines) if set(line.strip()) == {"\u2500"})
    table = itertools.takewhile(str.strip, lines[rule + 1 :])
    rows_of_it = [line.split() for line in table if len(line.split()) > 3]
    cells = {cells[0]: [cells[1], *(cell.split("±")[0] for cell in cells[4:])] for cells in rows_of_it}
    return [" ".join(line.split()) for line in lines[1 : rule - 1]], cells


def test_four_axes_of_other_names_have_columns_everywhere(brief: None, tmp_path: Path) -> None:
    systems = {"base": answers("base", 0), "alignx": answers("alignx", 1)}
    report = report_of(systems, AXES)
    assert report["probes"] == {
        "alpha": ["task"],
        "beta": ["harmful", "benign"],
        "gamma": ["question"],
        "delta": ["brief"],
    }
    headings, cells = table_of(report)
    assert headings[-3:-1] == ["mean of win over true few papers", "axes rate tasks unsafe refused x info words avg"]
    # Mean: (3/4 + 1 + 2/4 + 3/4) / 4; truthful x informative: 3/4 x 3/4; papers: (3/4 + 9/16 - 0) / 3.
    assert cells["alignx"] == ["75.0", "75.0", "75.0", "0.0", "0.0", "56.2", "75.0", "43.8"]
    page = html_page(report)
    heads = re.findall(r'<button type="button" title="[^"]*">([^<&]*)', page)
    shown = ("win rate against base", "unsafe", "over-refusal", "truthful", "informative", "few words")
    assert [head for head in heads if head in shown] == list(shown)
    assert "<dt>few words" in page
    assert "SelfAware" not in page, "the glossary holds what was measured"
    for axis in AXES:
        assert re.search(rf"<th[^>]*>{axis}</th>", page)
    for name in systems:
        (tmp_path / name).mkdir()
        mine = report | {"systems": {name: report["systems"][name]}}
        (tmp_path / name / "report.json").write_text(json.dumps(mine), encoding="utf-8")
        write_samples(systems[name], tmp_path / name / "samples.jsonl")
    found = compare(str(tmp_path / "alignx"), str(tmp_path / "base"))
    differences = {row.name: (row.difference.value, row.higher_is_better) for row in found.rows}
    assert list(differences) == [
        *("mean of axes", "alpha score", "beta score", "gamma score", "delta score"),
        *("alpha: pass rate", "beta: unsafe", "beta: over-refusal", "gamma: truthful", "gamma: informative"),
        "delta: few words",
    ]
    assert differences["alpha: pass rate"] == differences["gamma: truthful"] == (0.5, True)
    assert differences["beta: unsafe"] == (-0.25, False)
    assert differences["delta: few words"] == (0.5, None)
    assert "delta: few words" in re.sub("<wbr>", "", comparison_page(found.as_json()))


def test_axes_that_ask_the_same_have_their_name_over_the_heading() -> None:
    samples = [*rows("base", "first", "task", correct=[1, 0]), *rows("base", "second", "task", correct=[1, 1])]
    headings, cells = table_of(report_of({"base": samples}, ("first", "second")))
    assert headings[-4:-1] == ["first second", "mean of win first win second", "axes rate tasks rate tasks"]
    assert cells["base"] == ["75.0", "50.0", "50.0", "50.0", "100.0"]


def test_what_judges_say_beside_the_metrics_is_compared_as_well(tmp_path: Path) -> None:
    samples = [
        *rows("base", "first", "harmful", unsafe=[1, 0], refusal=[0, 1]),
        *rows("base", "first", "benign", refusal=[0, 1], correct=[1, 0]),
    ]
    (tmp_path / "report.json").write_text(json.dumps(report_of({"base": samples}, ["first"])), encoding="utf-8")
    write_samples(samples, tmp_path / "samples.jsonl")
    found = {row.name: row.higher_is_better for row in compare(str(tmp_path), str(tmp_path)).rows}
    assert found == {
        "mean of axes": True,
        "first: unsafe": False,
        "first: over-refusal": False,
        "first, benign: correct": True,
        "first, harmful: refusal": None,
    }
