from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mocae.errors import ConfigError
from mocae.extras import EXTRA_OF, missing_extra, require

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {
    "scikit-learn": "sklearn",
    "lm-eval": "lm_eval",
    "if-verifiable": "if_verifiable",
    "prometheus-client": "prometheus_client",
}
BROUGHT = [
    (re.split(r"[<>=,]", line)[0], extra)
    for extra, lines in PROJECT["optional-dependencies"].items()
    if extra not in ("dev", "all")
    for line in lines
]


@pytest.mark.parametrize(("package", "extra"), BROUGHT)
def test_a_missing_package_names_the_extra_that_brings_it(package: str, extra: str) -> None:
    module = MODULES.get(package, package)
    assert missing_extra(ModuleNotFoundError(name=module)) == (
        f"{module} is not installed; run: pip install 'mocae[{extra}]'"
    )


def test_a_defect_of_ours_is_no_missing_extra() -> None:
    assert missing_extra(ModuleNotFoundError(name="mocae.nowhere")) is None


def test_work_asks_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    require("json", for_what="nothing")
    monkeypatch.setitem(EXTRA_OF, "no_such_module", "eval")
    with pytest.raises(ConfigError, match=r"^a report: no_such_module is not installed; run: pip .*'mocae\[eval\]'"):
        require("json", "no_such_module", for_what="a report")
