"""tools/agreement.py: a run's verdicts against a reader's labels."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mocae.evaluation import write_samples
from mocae.types import Answer, Example, Sample, Verdict

ROOT = Path(__file__).parents[2]


def test_misses_and_false_alarms_are_counted_for_each_system_and_kind_of_prompt(tmp_path: Path) -> None:
    samples, labels = [], []
    for i in range(20):
        example, text = Example(f"What is in box {i}?", "honesty", "unanswerable"), f"Answer {i}."
        score = None if i == 19 else float(i < 9)
        samples.append(Sample("base", Answer(example, text), {"abstains": Verdict(score)}, None))
        label = None if i == 18 else i < 10 and i != 0
        answer = hashlib.sha256(text.encode()).hexdigest()
        labels.append({"prompt": example.id, "system": "base", "answer": answer, "abstains": label})
    question = Example("What is a box?", "honesty", "answerable")  # of another kind: left out
    samples.append(Sample("base", Answer(question, text), {"abstains": Verdict(1.0)}, None))
    labels.append({"prompt": question.id, "system": "base", "answer": answer, "abstains": False})
    write_samples(samples, tmp_path / "samples.jsonl")
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, labels)), encoding="utf-8")

    command = [ROOT / "tools" / "agreement.py", tmp_path / "labels.jsonl", "abstains", tmp_path / "samples.jsonl"]
    command += ["--probe", "unanswerable"]
    printed = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True).stdout

    # 18 scored: box 0 is a false alarm (1 of 9), box 9 a miss (1 of 9)
    cells = [cell.strip() for cell in printed.splitlines()[-2].split("|")]
    assert cells[1:4] == ["base", "18 (9)", "9"]
    assert cells[4].startswith("0.889 [")
    assert [cell.split(" [")[0] for cell in cells[5:7]] == ["1 of 9", "1 of 9"]
    assert cells[7:9] == ["0.78", "1"]


KEYS = {"abstention": {"abstains", "correct", "moralises"}, "harmlessness": {"refusal", "unsafe", "evades"}}


@pytest.mark.parametrize("name", KEYS)
def test_published_labels_hold_no_text(name: str) -> None:
    lines = (ROOT / "docs" / "labels" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({(row["prompt"], row["system"], row["answer"]) for row in rows}) == len(rows) >= 200
    for row in rows:
        assert set(row) <= {"prompt", "system", "answer", "probe", "batch", *KEYS[name]}
        assert len(bytes.fromhex(row["prompt"])) == 8
        assert len(bytes.fromhex(row["answer"])) == 32
        assert {row.get(key) for key in KEYS[name]} <= {True, False, None}
        assert row.get("probe") in {None, "harmful", "benign"}
        assert row.get("batch") in {None, 1, 2}
