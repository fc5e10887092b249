"""The log of an evaluation: answers and verdicts, one JSON object a line, only ever appended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from mocae.errors import ArtifactError
from mocae.files import parse_json
from mocae.types import Answer, Example, Verdict

__all__ = ["EvalLog"]

_Key = TypeVar("_Key")


class EvalLog:
    """What was answered and judged so far, in memory and on disk.

    A last line that a killed run left half written is dropped, and what it would have held is asked again.

    Args:
        folder: where `answers.jsonl` and `verdicts.jsonl` lie.

    Raises:
        ArtifactError: a line other than the last is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._answers_path, self._verdicts_path = folder / "answers.jsonl", folder / "verdicts.jsonl"
        self._answers = dict(_read(self._answers_path, _answer_of))
        self._verdicts: dict[tuple[str, str], Any] = dict(_read(self._verdicts_path, _verdicts_of))

    def answer(self, example: Example) -> Answer | None:
        """Return the answer to a prompt, None when it has not come yet."""
        row = self._answers.get(example.id)
        return None if row is None else Answer(example, row["text"], row["weights"], row["n_tokens"])

    def add_answers(self, answers: Iterable[Answer], seconds: float) -> None:
        """Keep answers; they are on disk when this returns. `seconds` is what they took together."""
        rows: list[dict[str, Any]] = [
            {
                "id": a.example.id,
                "text": a.text,
                "weights": dict(a.weights) if a.weights else None,
                "n_tokens": a.n_tokens,
            }
            for a in answers
        ]
        for row in rows:
            row["seconds"] = seconds / len(rows)
        _append(self._answers_path, rows)
        self._answers |= {row["id"]: row for row in rows}

    def seconds(self) -> float:
        """Return the time all answers took."""
        return float(sum(row["seconds"] for row in self._answers.values()))

    def verdicts(self, judge: str, example: Example) -> dict[str, Verdict] | None:
        """Return what a judge said about an answer, None when it has to be asked: never, or it gave no reply."""
        found = self._verdicts.get((judge, example.id))
        if found is None or any(v["score"] is None and v["label"].endswith("no reply") for v in found.values()):
            return None
        return {name: Verdict(**verdict) for name, verdict in found.items()}

    def add_verdicts(self, judge: str, given: Mapping[str, Mapping[str, Verdict]]) -> None:
        """Keep a judge's verdicts by prompt identity; they are on disk when this returns."""
        rows = [
            {"judge": judge, "id": i, "verdicts": {name: asdict(v) for name, v in verdicts.items()}}
            for i, verdicts in given.items()
        ]
        _append(self._verdicts_path, rows)
        self._verdicts |= {(judge, str(row["id"])): row["verdicts"] for row in rows}


def _answer_of(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a prompt's identity and its row, every value of the type it was written with."""
    if not isinstance(row["text"], str):
        raise TypeError(f"text {row['text']!r}")
    weights = row["weights"] and {str(name): float(weight) for name, weight in row["weights"].items()}
    kept = {"text": row["text"], "weights": weights, "n_tokens": int(row["n_tokens"])}
    return str(row["id"]), {"id": str(row["id"]), **kept, "seconds": float(row["seconds"])}


def _verdicts_of(row: dict[str, Any]) -> tuple[tuple[str, str], dict[str, Any]]:
    """Return a judge's name and a prompt's identity, and the verdicts as JSON values."""
    verdicts = {name: asdict(Verdict(**verdict)) for name, verdict in row["verdicts"].items()}
    for verdict in verdicts.values():
        if not (verdict["score"] is None or 0 <= verdict["score"] <= 1):
            raise ValueError(f"score {verdict['score']}")
        verdict["label"] = str(verdict["label"])
    return (str(row["judge"]), str(row["id"])), verdicts


def _read(path: Path, take: Callable[[dict[str, Any]], tuple[_Key, dict[str, Any]]]) -> Iterator[tuple[_Key, Any]]:
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):  # torn by a kill
        with path.open("rb+") as file:
            file.truncate(whole)
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        try:
            yield take(parse_json(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ArtifactError(
                f"{path}:{number}: damaged ({error!r}); remove this line, and what it held is asked again"
            ) from error


def _append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    try:
        with path.open("a", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=True) + "\n")
    except OSError as error:
        raise ArtifactError(
            f"{path}: could not be written ({error.strerror}); free space, and the same command goes on with what is "
            "there"
        ) from error
