"""`mocae bench` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mocae.cli.app import main

Words = tuple[str, ...]


def _run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--no-progress", *words])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_it_prints_a_table_and_writes_json_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    words = ("--config", "tiny", "--systems", "stacked,stacked", "--repeats", "1", "--batches", "1,2,1")
    words += ("--prompt-tokens", "9", "--new-tokens", "3")
    assert _run(*words, "--json", str(figures), "--plot", str(plot)) == 0
    out = capsys.readouterr().out
    assert "tiny, base = 1" in out
    assert "9 + 3 tokens, 3 experts of rank 4" in " ".join(out.split())
    rows = json.loads(figures.read_text(encoding="utf-8"))["rows"]
    assert [(row["system"], row["batch"]) for row in rows] == [(s, b) for b in (1, 2) for s in ("base", "stacked")]
    assert plot.stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--config", "8b"), "unknown shape '8b'"),
        (("--config", "tiny", "--systems", "peft"), "unknown system 'peft'"),
        (("--config", "tiny", "--batches", "1,x"), "--batches '1,x': not batch sizes"),
        (("--config", "tiny", "--batches", "0"), "--batches '0'"),
        (("--config", "tiny", "--dtype", "int8"), "dtype 'int8' is not known"),
        (("--config", "tiny", "--json", "/nope/x.json"), "--json '/nope/x.json': cannot be written"),
        (("--config", "tiny", "--json", "/"), "--json '/': cannot be written"),
        (("--config", "tiny", "--plot", "/nope/x.svg"), "--plot '/nope/x.svg': cannot be written"),
        (("--config", "tiny", "--plot", "x.gif"), "--plot 'x.gif': cannot draw '.gif'. Accepted: .svg"),
        (("--config", "tiny", "--threads", "100000"), "--threads 100000: this machine has"),
    ],
)
def test_wrong_words_are_told_before_anything_is_measured(
    words: Words, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if words[-2] != "--dtype" and words[-1] != "peft":  # these two the benchmark itself knows
        monkeypatch.setattr("mocae.bench.run_bench", lambda *_, **__: pytest.fail("measured"))
    assert _run(*words) == 2
    assert told in capsys.readouterr().err
