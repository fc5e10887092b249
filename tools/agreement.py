"""Measure a judgement on answers that a reader has labelled.

    python tools/agreement.py docs/labels/abstention.jsonl abstains samples.jsonl outcomes.jsonl --judge abstention

A line of labels names an answer without its text (its SHA-256), and says what the reader found (null: unclear):
{"prompt": prompt_id, "system": name, "answer": hash, "abstains": true}. Verdicts are those in the files, or with
`--judge` what that judge says now. Balanced accuracy has a 95 % interval by bootstrap over prompts, shares Wilson's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import binomtest

from mocae.evaluation import read_samples
from mocae.judges import build_judge
from mocae.metrics import balanced_accuracy, bootstrap_statistic, cohens_kappa
from mocae.types import Sample

Row = tuple[str, bool, bool]  # prompt, label, verdict
FEWEST = 5  # answers of a label under which balanced accuracy says nothing


def key_of(sample: Sample) -> tuple[str, str, str]:
    """Return what a line of labels knows an answer by."""
    return sample.answer.example.id, sample.system, hashlib.sha256(sample.answer.text.encode()).hexdigest()


def share(wrong: int, n: int) -> str:
    """Return "wrong of n" with Wilson's 95 % interval of the share."""
    low, high = binomtest(wrong, n).proportion_ci(method="wilson") if n else (0.0, 1.0)
    return f"{wrong} of {n} [{low:.2f}, {high:.2f}]"


def line(name: str, rows: Sequence[Row], unscored: int) -> str:
    """Return one system's agreement as a line of a Markdown table."""
    labels, verdicts = [label for _, label, _ in rows], [verdict for _, _, verdict in rows]
    missed = share(sum(label > verdict for _, label, verdict in rows), sum(labels))
    false = share(sum(label < verdict for _, label, verdict in rows), len(rows) - sum(labels))
    balanced = kappa = "-"
    if min(sum(labels), len(rows) - sum(labels)) >= FEWEST:
        columns = {"predicted": verdicts, "expected": labels}
        found = bootstrap_statistic(balanced_accuracy, columns, groups=[row[0] for row in rows])
        balanced = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
        kappa = f"{cohens_kappa(labels, verdicts):.2f}"
    counts = f"{len(rows)} ({sum(labels)}) | {sum(verdicts)}"
    return f"| {name} | {counts} | {balanced} | {missed} | {false} | {kappa} | {unscored} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("judgement", help="key of the labels and verdict: abstains, correct, refusal, unsafe")
    parser.add_argument("samples", type=Path, nargs="+", help="samples.jsonl or outcomes.jsonl of a run")
    parser.add_argument("--judge", help="name of a judge that needs no options, to judge again")
    parser.add_argument("--probe", help="only answers to prompts of this kind: harmful, benign, question, unanswerable")
    args = parser.parse_args()
    labelled = map(json.loads, args.labels.read_text(encoding="utf-8").splitlines())
    labels = {(one["prompt"], one["system"], one["answer"]): one.get(args.judgement) for one in labelled}
    samples = {key_of(sample): sample for path in args.samples for sample in read_samples(path)}
    if args.probe:
        samples = {key: sample for key, sample in samples.items() if sample.answer.example.probe == args.probe}
    keys = [key for key, label in labels.items() if label is not None and key in samples]
    answers, verdicts = [samples[key].answer for key in keys], [samples[key].verdicts for key in keys]
    verdicts = list(build_judge(args.judge).judge(answers)) if args.judge else verdicts
    scores = [found[args.judgement].score if args.judgement in found else None for found in verdicts]
    print(f"{len(keys)} of {sum(label is not None for label in labels.values())} labelled answers are in the files\n")
    print("| answers of | n (yes) | yes by the judge | balanced accuracy | missed | false alarms | kappa | unscored |")
    print("|---|---|---|---|---|---|---|---|")
    for name in (*sorted({system for _, system, _ in keys}), "all"):
        chosen = [(key, score) for key, score in zip(keys, scores, strict=True) if name in (key[1], "all")]
        rows = [(key[0], labels[key], score >= 0.5) for key, score in chosen if score is not None]
        print(line(name, rows, len(chosen) - len(rows)))


if __name__ == "__main__":
    main()
