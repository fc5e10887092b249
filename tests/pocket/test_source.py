from __future__ import annotations

from pathlib import Path

import pytest

from mocae.data import read_source
from mocae.errors import ConfigError
from mocae.pocket import axis_rows, probe_rows
from mocae.pocket.source import read_pocket


def test_the_source_gives_training_rows_and_prompts() -> None:
    options = {"split": "train", "n": 30, "conflict": 0.5, "other_share": 0.5, "seed": 2}
    read = read_source("pocket", None, axis="honesty", options=options)
    assert read.examples == axis_rows("honesty", n=30, conflict=0.5, other_share=0.5, seed=2)
    assert (read.n_skipped, read.skipped) == (0, [])
    asked = read_source("pocket", None, axis="honesty", options={"split": "test", "n": 30})
    assert asked.examples == probe_rows("honesty", "test", n=30)


def test_a_path_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"reads no file, but path is rows\.json; remove `path`"):
        read_pocket(Path("rows.json"), axis="honesty")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"split is 'dev'; accepted: 'train', 'calibration', 'test'"):
        read_pocket(None, axis="honesty", split="dev")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'conflicts'.*Did you mean 'conflict'"):
        read_source("pocket", None, axis="honesty", options={"conflicts": 1})
