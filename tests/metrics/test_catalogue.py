from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import subprocess
import sys
from typing import get_args

import pytest

import mocae.metrics
from mocae.axes import PROBES
from mocae.metrics import METRICS, Unit, metric


def modules() -> list[str]:
    return [name for _, name, _ in pkgutil.iter_modules(mocae.metrics.__path__) if not name.startswith("_")]


def test_package_exports_what_its_modules_export() -> None:
    of_modules = {name for m in modules() for name in importlib.import_module(f"mocae.metrics.{m}").__all__}
    assert set(mocae.metrics.__all__) == of_modules
    assert all(hasattr(mocae.metrics, name) for name in of_modules)


def test_a_function_or_field_that_is_named_is_there() -> None:
    exported = {name: getattr(mocae.metrics, name) for name in mocae.metrics.__all__}
    fields = {
        f.name
        for x in exported.values()
        if isinstance(x, type) and dataclasses.is_dataclass(x)
        for f in dataclasses.fields(x)
    }
    metrics = [METRICS.get(name) for name in METRICS]
    assert {m.function for m in metrics} - {""} <= set(exported)
    measured = set(exported) | fields | {m.name for m in metrics if m.judgement}
    report_only = {"mean_axis_score", "axis_score", "novel_rate", "largest_share", "mean_length"}
    report_only |= {"mean_reference_length", "over_random", "over_best", "rate"}
    assert {m.name for m in metrics if not m.function} - measured == report_only


@pytest.mark.parametrize("name", list(METRICS))
def test_directions_match_the_docstring(name: str) -> None:
    info = METRICS.get(name)
    assert info.name == name
    assert info.unit in get_args(Unit)
    assert info.label
    assert info.text.endswith(".")
    assert info.reference
    assert not info.part_of or info.part_of in METRICS
    function = getattr(mocae.metrics, info.function or name, None)
    if function is not None:
        said = {True: "igher is better", False: "is better", None: "either end is better"}[info.higher_is_better]
        assert said in function.__doc__
        if info.higher_is_better is False:
            assert "ower" in function.__doc__.split("is better")[0]


def test_every_metric_of_a_probe_is_in_the_table() -> None:
    assert {name for probe in PROBES.values() for name in probe.metrics} <= set(METRICS)


def test_a_metric_is_found_by_its_function_and_an_unknown_one_claims_nothing() -> None:
    assert metric("brier_score") is metric("brier")
    odd = metric("odd_share")
    assert (odd.label, odd.unit, odd.arrow) == ("odd share", "percent", "")


def test_listing_the_metrics_loads_no_heavy_library() -> None:
    code = "import sys, mocae.metrics; print(*{'torch', 'sklearn', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
