"""The files around the package: pins, and nothing that holds on one machine only."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import mocae

ROOT = Path(__file__).parents[1]
TEXTS = (".py", ".md", ".toml", ".yaml", ".txt", ".j2", ".html", "Makefile", "run")
FOLDERS = ("src", "plugins", "tests", "recipes", "docs", "examples", ".ci")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # type: ignore[no-any-return]


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[^A-Za-z0-9_.-]", line.split("#")[0].strip())[0].lower() for line in requirements}
    return {name.replace("_", "-") for name in found if name}


def test_every_dependency_is_pinned() -> None:
    pinned = names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    wanted = names(project()["dependencies"])
    for extra in project()["optional-dependencies"].values():
        wanted |= names(extra)
    assert wanted - pinned - {"mocae"} == set()


def test_pins_hold_on_every_machine() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)] == []


def files() -> list[Path]:
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [path for path in [*ROOT.glob("*"), *inside] if path.is_file() and path.name.endswith(TEXTS)]
    return [path for path in found if path != Path(__file__)]


def test_no_file_speaks_of_a_machine() -> None:
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files()}
    assert len(texts) > 50
    speaking = {name: re.findall(r"(?<![\w.])/(?:work|home|Users)/[\w.-]+", text) for name, text in texts.items()}
    assert {name: found for name, found in speaking.items() if found} == {}


def test_the_extra_all_names_every_other_but_dev() -> None:
    extras = project()["optional-dependencies"]
    (line,) = extras["all"]
    assert set(line.removeprefix("mocae[").removesuffix("]").split(",")) == set(extras) - {"all", "dev"}


def test_the_layers_of_the_docs_are_those_that_are_checked() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = document["tool"]["importlinter"]["contracts"][0]["layers"]
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert " -> ".join(layers) in " ".join(told.split())


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["title"], cited["version"], cited["license"]) == ("mocae", mocae.__version__, project()["license"])
    assert [reference["identifiers"][0]["value"] for reference in cited["references"]] == [
        "arXiv:2602.07381",
        "arXiv:2509.08486",
    ]


@pytest.mark.parametrize(
    ("target", "message"),
    [("test-serving", "npm is missing"), ("test-all", "npm is missing"), ("browser", "Chromium is missing")],
)
def test_a_tool_that_is_missing_is_an_error_of_make(target: str, message: str, tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None
    (tmp_path / "tests/serving/js").mkdir(parents=True)
    (tmp_path / "tests/serving/js/package-lock.json").touch()
    words = [make, "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), "-o", ".venv/.installed-dev", target]
    done = subprocess.run(words, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stdout
