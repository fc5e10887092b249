from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mocae.cli import main
from mocae.config.yaml import dump_yaml
from recipes_for_tests import small_recipe

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `mocae` with words and gives exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(list(words))
        out = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, out.out, out.err

    return run


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("MOCAE_DATA_ROOT", "MOCAE_BASE_MODEL"):
        monkeypatch.delenv(variable, raising=False)
    path = tmp_path / "small.yaml"
    path.write_text(dump_yaml(small_recipe()), encoding="utf-8")
    return path
