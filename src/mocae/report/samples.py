"""All answers of a page, packed so that the page can search them: the same for runs, evaluations and comparisons."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mocae.axes import PROBES
from mocae.types import Sample, Verdict, judgement_of

__all__ = ["Payload", "samples_payload"]

_MOST_BYTES = 8_000_000
"""Text of answers, prompts and verdicts that a page holds; packed it is about a tenth."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What `samples.html.j2` shows: `data` is gzipped JSON in base64 with `n` answers, out of `n_all`."""

    data: str
    n: int
    n_all: int


def samples_payload(
    samples: Iterable[Sample], *, bounds: Iterable[str] = (), most_bytes: int = _MOST_BYTES
) -> Payload | None:
    """Return the answers packed for a page, None where there are none; the same answers give the same bytes.

    All answers to a prompt stay together. Where there is more text than `most_bytes`, the prompts with the smallest
    identities are kept: those are hashes, so every axis and kind keeps its share.

    Args:
        samples: judged answers of any number of systems.
        bounds: systems that are upper bounds, whose answers say nothing of whether systems disagree.
        most_bytes: of the JSON text before it is packed.
    """
    answers: dict[str, list[Sample]] = {}
    for sample in samples:
        answers.setdefault(sample.answer.example.id, []).append(sample)
    rows = {key: json.dumps(_prompt(group, set(bounds)), ensure_ascii=False) for key, group in answers.items()}
    kept: set[str] = set()
    size = 0
    for key in sorted(rows):
        size += len(rows[key].encode())
        if kept and size > most_bytes:
            break
        kept.add(key)
    if not kept:
        return None
    text = f"[{','.join(rows[key] for key in answers if key in kept)}]"
    data = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return Payload(data, sum(len(answers[key]) for key in kept), sum(map(len, answers.values())))


def _prompt(group: list[Sample], bounds: set[str]) -> dict[str, Any]:
    """Return one prompt with all answers to it."""
    example = group[0].answer.example
    scored = {s.acceptable for s in group if s.acceptable is not None and s.system not in bounds}
    return {
        "prompt": example.prompt,
        "axis": example.axis,
        "kind": " \u00b7 ".join(dict.fromkeys(filter(None, (example.probe, example.kind)))),
        "differ": len(scored) > 1,
        "answers": [_answer(sample) for sample in group],
    }


def _answer(sample: Sample) -> dict[str, Any]:
    weights = {axis: round(weight, 2) for axis, weight in (sample.answer.weights or {}).items()}
    return {
        "system": sample.system,
        "text": sample.answer.text,
        # Where nobody told the kind of a prompt nothing says which answer is wanted.
        "ok": sample.acceptable if sample.answer.example.probe in PROBES else "untold",
        "weights": ", ".join(f"{axis} {weight:.2f}" for axis, weight in weights.items() if weight),
        "verdicts": ", ".join(_in_words(name, verdict) for name, verdict in sample.verdicts.items()),
        "split": judges_disagree(sample.verdicts),
    }


def _in_words(name: str, verdict: Verdict) -> str:
    score = "unscored" if verdict.score is None else f"{verdict.score:.2g}"
    return f"{name} {score}{f' ({verdict.label})' if verdict.label and verdict.label != name else ''}"


def judges_disagree(verdicts: Mapping[str, Verdict]) -> bool:
    """Return whether judges contradict each other on an answer, or one of them itself.

    A vote that is not unanimous and a comparison that flips with the order do, and so do two judges that give other
    verdicts on one judgement ("unsafe", "unsafe by second"), or of which one calls a refusal or an abstention what the
    other calls unsafe or correct.

    >>> judges_disagree({"unsafe": Verdict(2 / 3, "2 of 3", "vote(a, b, c)")})
    True
    """
    for name, verdict in verdicts.items():
        first = verdicts.get(judgement_of(name), verdict).score
        if first is not None and verdict.score is not None and (first >= 0.5) is not (verdict.score >= 0.5):
            return True
        voted = verdict.judge.startswith("vote(") and (verdict.score is None or 0 < verdict.score < 1)
        if voted or verdict.label == "flipped":
            return True
    says = {name: verdict.judge for name, verdict in verdicts.items() if (verdict.score or 0.0) >= 0.5}
    pairs = [
        (says.get(declines), says.get(does)) for declines in ("refusal", "abstains") for does in ("unsafe", "correct")
    ]
    return any(one and other and one != other for one, other in pairs)
