from __future__ import annotations

import copy
from typing import Any

import pytest

from mocae.report import html_page
from report_for_tests import make_report

AXES = ["helpfulness", "harmlessness", "honesty"]


@pytest.fixture
def report() -> dict[str, Any]:
    """A fresh report over three axes, to be changed at will."""
    return copy.deepcopy(make_report(AXES))


@pytest.fixture(scope="session")
def page() -> str:
    """The page of that report as it is."""
    return html_page(make_report(AXES))
