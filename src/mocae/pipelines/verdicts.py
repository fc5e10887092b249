"""What `report.json` says of a judge, and of verdicts that were not given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mocae.judges import Judge
from mocae.judges.endpoint import EndpointJudge, Usage
from mocae.types import Sample

__all__ = ["judge_entry", "sample_notes"]


def judge_entry(judge: Judge, samples: Sequence[Sample], *, label: str = "") -> dict[str, Any]:
    """Return what `report.json` says of a judge but its audit; `label` is what its verdicts call it, else its name."""
    mine = [{n: v for n, v in s.verdicts.items() if v.judge == (label or judge.name)} for s in samples]
    # A comparison that was won is an acceptable answer: one verdict, said twice.
    scores = [v.score for row in mine for name, v in row.items() if not (name == "correct" and "win" in row)]
    entry: dict[str, Any] = {
        "name": label or judge.name,
        "judgements": list(judge.judgements),
        "quality": asdict(judge.quality) if judge.quality is not None else None,
        "exact": bool(getattr(judge, "exact", False)),
        "n_verdicts": len(scores),
        "n_unscored": scores.count(None),
    }
    wins = [row["win"] for row in mine if "win" in row and row["win"].score is not None]
    if wins:
        entry["flip_rate"] = sum(v.label == "flipped" for v in wins) / len(wins)
    usage = getattr(judge, "usage", None)
    if isinstance(usage, Usage):
        entry["usage"] = asdict(usage)
    if isinstance(judge, EndpointJudge):
        entry["usage_before"] = asdict(judge.usage_before([s.answer for s in samples]))
    return entry


def sample_notes(samples: Sequence[Sample]) -> list[str]:
    """Return what is to be known of answers that came with a thought, and of verdicts that say why they failed."""
    notes = []
    thought = [sample.answer for sample in samples if sample.answer.thought]
    if thought:
        alone = sum(not answer.text for answer in thought)
        notes.append(f"{len(thought)} answers came with a thought, which was not judged; {alone} are thought alone")
    unscored = Counter(
        (verdict.judge, verdict.label.removeprefix("unscored: "))
        for sample in samples
        for verdict in sample.verdicts.values()
        if verdict.score is None and verdict.label.startswith("unscored: ")
    )
    return notes + [f"{judge}: {n} verdicts unscored: {why}" for (judge, why), n in sorted(unscored.items())]
