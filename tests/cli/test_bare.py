"""The core alone, as `pip install mocae` brings it: everything of the extras is hidden from a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mocae.extras import EXTRA_OF

HIDE = f"import sys; sys.modules.update(dict.fromkeys({sorted(EXTRA_OF)!r})); from mocae.cli import main; main()"


def bare(*words: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", HIDE, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_recipe_can_be_checked() -> None:
    code, out, err = bare("validate", "pocket", "--set", "systems=[base, joint, alignx]")
    assert (code, out) == (0, "pocket: ok (3 axes: helpfulness, harmlessness, honesty; 3 systems)\n")
    assert err.startswith(
        "note: base.model, systems.0, systems.1, systems.2, axes: not checked; torch is not installed; run: pip install"
    )
    code, _, err = bare("validate", "pocket", "--set", "systems=[jiont]")
    assert code == 2
    assert "systems.0.policy: unknown system 'jiont'" in err
    assert bare("ls", "systems")[0] == 0


@pytest.mark.parametrize(
    "words", [("run", "pocket", "--out", "out"), ("plan", "pocket"), ("ls", "merges"), ("chat", "out")]
)
def test_what_needs_an_extra_says_which_in_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = bare(*words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.endswith(" is not installed; run: pip install 'mocae[train]'\n")
