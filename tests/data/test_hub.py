from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mocae.data import read_source
from mocae.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"q": "one?", "a": "1"}\n{"q": " ", "a": "2"}\n{"q": "three?", "a": "3"}\n')
    return folder


def _options(folder: Path, **changes: Any) -> dict[str, Any]:
    columns = {"prompt": "q", "response": "a"}
    return {"name": str(folder), "split": "train", "columns": columns, "probe": "task", **changes}


def test_a_local_folder_is_read_like_a_hub_data_set(folder: Path) -> None:
    result = read_source("hub", None, axis="a", on_bad_row="skip", options=_options(folder, facts={"reference": "a"}))
    assert [(row.prompt, row.response) for row in result.examples] == [("one?", "1"), ("three?", "3")]
    assert result.examples[1].facts == {"reference": "3"}
    assert result.n_skipped == 1
    assert "(train): row 2: field 'q': found empty text" in result.skipped[0]


def test_what_does_not_load_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"split 'tset' does not load .*tset.*expected a hub id or folder"):
        read_source("hub", None, axis="a", options=_options(folder, split="tset"))
    with pytest.raises(DataError, match=r"nowhere: split 'train' does not load"):
        read_source("hub", None, axis="a", options=_options(folder / "nowhere"))
    with pytest.raises(ConfigError, match=r"source 'hub' reads no file, but path is a.json"):
        read_source("hub", Path("a.json"), axis="a", options=_options(folder))
