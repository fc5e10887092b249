"""The log of answers and verdicts: one JSON object a line, only ever appended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from pydantic import NonNegativeFloat, NonNegativeInt

from mocae.errors import ArtifactError
from mocae.evaluation.records import Score, VerdictRecord
from mocae.files import Record, check_record, parse_json, read_plain
from mocae.types import Answer, Example, Verdict

__all__ = ["AnswerLog"]

_RowT = TypeVar("_RowT", bound=Record)


class _Answer(Record):
    """A line of `answers.jsonl`."""

    id: str
    text: str
    thought: str = ""
    weights: dict[str, float] | None
    n_tokens: NonNegativeInt
    confidence: Score = None
    novelty: Score = None
    seconds: NonNegativeFloat


class _Verdicts(Record):
    """A line of `verdicts.jsonl`."""

    judge: str
    id: str
    verdicts: dict[str, VerdictRecord]


class AnswerLog:
    """What was answered and judged so far, in memory and on disk.

    A last line that a killed run left half written is dropped, and what it would have held is asked again.

    Args:
        folder: where `answers.jsonl` and `verdicts.jsonl` lie; made when there is something to keep.

    Raises:
        ArtifactError: a line other than the last is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._answers_path, self._verdicts_path = folder / "answers.jsonl", folder / "verdicts.jsonl"
        self._answers = {row.id: row for row in _read(self._answers_path, _Answer)}
        self._verdicts = {(row.judge, row.id): row.verdicts for row in _read(self._verdicts_path, _Verdicts)}

    def answer(self, example: Example) -> Answer | None:
        """Return the answer to a prompt, None when it has not come yet."""
        row = self._answers.get(example.id)
        if row is None:
            return None
        return Answer(example, row.text, row.weights, row.n_tokens, row.confidence, row.thought, row.novelty)

    def add_answers(self, answers: Iterable[Answer], seconds: float) -> None:
        """Keep answers; they are on disk when this returns. `seconds` is what they took together."""
        some = list(answers)
        rows = [
            _Answer(
                id=a.example.id,
                text=a.text,
                thought=a.thought,
                weights=dict(a.weights) if a.weights else None,
                n_tokens=a.n_tokens,
                confidence=a.confidence,
                novelty=a.novelty,
                seconds=seconds / len(some),
            )
            for a in some
        ]
        _append(self._answers_path, rows)
        self._answers |= {row.id: row for row in rows}

    def seconds(self) -> float:
        """Return the time all answers took."""
        return sum(row.seconds for row in self._answers.values())

    def verdicts(self, judge: str, identity: str) -> dict[str, Verdict] | None:
        """Return what a judge said about an answer, None when it has to be asked: never, or it gave no reply."""
        held = self._verdicts.get((judge, identity))
        if held is None or any(v.score is None and v.label.endswith("no reply") for v in held.values()):
            return None
        return {name: Verdict(**dict(verdict)) for name, verdict in held.items()}

    def add_verdicts(self, judge: str, verdicts_by_id: Mapping[str, Mapping[str, Verdict]]) -> None:
        """Keep a judge's verdicts by the identity of prompt or answer; they are on disk when this returns."""
        rows = [
            _Verdicts(judge=judge, id=i, verdicts={name: VerdictRecord(**asdict(v)) for name, v in verdicts.items()})
            for i, verdicts in verdicts_by_id.items()
        ]
        _append(self._verdicts_path, rows)
        self._verdicts |= {(judge, row.id): row.verdicts for row in rows}


def _read(path: Path, schema: type[_RowT]) -> Iterator[_RowT]:
    if not path.exists():
        return
    content = read_plain(path)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):  # torn by a kill
        with path.open("rb+") as file:
            file.truncate(whole)
    remedy = "remove this line, and what it held is asked again"
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ArtifactError(f"{path}:{number}: damaged (not JSON: {error}); {remedy}") from error
        yield check_record(schema, row, f"{path}:{number}", remedy=remedy)


def _append(path: Path, rows: Iterable[Record]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            for row in rows:
                out.write(row.model_dump_json() + "\n")
    except OSError as error:
        raise ArtifactError(
            f"{path}: could not be written ({error.strerror}); free space, and the same command goes on with what is "
            "there"
        ) from error
