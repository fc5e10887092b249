from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mocae.errors import ArtifactError
from mocae.evaluation import AnswerLog
from mocae.types import Answer, Example, Verdict

EXAMPLES = [Example(f"Name river {i}.", "kindness", "task") for i in range(3)]


@pytest.fixture
def log(tmp_path: Path) -> AnswerLog:
    made = AnswerLog(tmp_path)
    made.add_answers([Answer(e, "", {"kindness": 1.0}, 2) for e in EXAMPLES], 3.0)  # an empty answer is an answer
    made.add_verdicts("judge", {e.id: {"correct": Verdict(1.0, "correct", "judge")} for e in EXAMPLES})
    return made


def test_what_was_kept_is_there_again(log: AnswerLog, tmp_path: Path) -> None:
    again = AnswerLog(tmp_path)
    for example in EXAMPLES:
        assert again.answer(example) == log.answer(example) == Answer(example, "", {"kindness": 1.0}, 2)
        assert again.verdicts("judge", example.id) == {"correct": Verdict(1.0, "correct", "judge")}
    assert again.seconds() == pytest.approx(3.0)


@pytest.mark.parametrize("name", ["answers.jsonl", "verdicts.jsonl"])
def test_a_last_line_half_written_is_dropped_and_asked_again(log: AnswerLog, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-20])
    again = AnswerLog(tmp_path)
    found = [
        again.answer(e) is not None if name == "answers.jsonl" else again.verdicts("judge", e.id) is not None
        for e in EXAMPLES
    ]
    assert found == [True, True, False]
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "line",
    [b'{"id": "0', b"7", b"{}", b"[" * 2000, b"\xff", b'{"id": "0", "text": 7, "weights": null, "n_tokens": 1}'],
)
@pytest.mark.parametrize("name", ["answers.jsonl", "verdicts.jsonl"])
def test_a_damaged_line_before_the_last_is_named(log: AnswerLog, tmp_path: Path, name: str, line: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(ArtifactError, match=rf"{name}:1: damaged \(.*; remove this line, and what it held is asked"):
        AnswerLog(tmp_path)


def test_a_full_disk_says_what_to_do(log: AnswerLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ArtifactError, match=r"answers\.jsonl: could not be written \(No space left on device\); free"):
        log.add_answers([Answer(EXAMPLES[0], "x")], 1.0)
