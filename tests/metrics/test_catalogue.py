from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import subprocess
import sys

import pytest

import mocae.metrics
from mocae.metrics import METRICS


def modules() -> list[str]:
    return [name for _, name, _ in pkgutil.iter_modules(mocae.metrics.__path__) if not name.startswith("_")]


def test_package_exports_what_its_modules_export() -> None:
    of_modules = {name for m in modules() for name in importlib.import_module(f"mocae.metrics.{m}").__all__}
    assert set(mocae.metrics.__all__) == of_modules
    assert all(hasattr(mocae.metrics, name) for name in of_modules)


def test_every_metric_is_a_function_or_a_field_of_a_result() -> None:
    exported = {name: getattr(mocae.metrics, name) for name in mocae.metrics.__all__}
    fields = {
        f.name
        for x in exported.values()
        if isinstance(x, type) and dataclasses.is_dataclass(x)
        for f in dataclasses.fields(x)
    }
    assert set(METRICS) <= set(exported) | fields


@pytest.mark.parametrize("name", METRICS)
def test_directions_match_the_docstring(name: str) -> None:
    info = METRICS[name]
    assert info.name == name
    assert info.unit in {"fraction", "nats", "radians", "score"}
    assert info.description
    assert info.reference
    function = getattr(mocae.metrics, name, None)
    if function is not None:
        said = {True: "igher is better", False: "is better", None: "either end is better"}[info.higher_is_better]
        assert said in function.__doc__
        if info.higher_is_better is False:
            assert "ower" in function.__doc__.split("is better")[0]


def test_listing_the_metrics_loads_no_heavy_library() -> None:
    code = "import sys, mocae.metrics; print(*{'torch', 'sklearn', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
