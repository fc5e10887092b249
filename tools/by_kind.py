"""Tell how much of what the right expert for each prompt would win lies between kinds of prompts.

    python tools/by_kind.py out/smollm2-135m-curves

For each run under the folder: mean over axes (each the mean over its kinds of prompt) of acceptable test answers of the
expert that was best over all calibration prompts, of the expert that was best there for each kind, of systems that are
named, and of the right expert for each prompt. A router that knows the kind of a prompt and nothing else gets the
second; what lies between it and the last is chance as well as skill.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from mocae.evaluation import read_samples

Kind = tuple[str, str]  # axis, probe
Accepted = dict[str, dict[Kind, dict[str, bool]]]  # system -> kind -> prompt -> acceptable


def accepted(path: Path) -> Accepted:
    """Return which answers of a file were acceptable; unscored ones are left out."""
    found: Accepted = defaultdict(lambda: defaultdict(dict))
    for sample in read_samples(path):
        if sample.acceptable is not None:
            example = sample.answer.example
            found[sample.system][example.axis, example.probe][example.id] = sample.acceptable
    return found


def over_axes(rates: dict[Kind, float]) -> float:
    """Return the mean over axes of the mean over kinds."""
    axes = {axis for axis, _ in rates}
    return mean(mean(rate for (of, _), rate in rates.items() if of == axis) for axis in axes)


def rates(kinds: dict[Kind, dict[str, bool]]) -> dict[Kind, float]:
    """Return the share of acceptable answers of each kind."""
    return {kind: mean(prompts.values()) for kind, prompts in kinds.items()}


def main(folder: Path, systems: list[str]) -> None:
    """Print one line a run, and which expert each kind got."""
    for run in sorted(
        path.parent for path in folder.rglob("outcomes.jsonl") if (path.parent / "report.json").is_file()
    ):
        known, test = accepted(run / "outcomes.jsonl"), accepted(run / "samples.jsonl")
        experts = sorted(known)
        learned, shown = ({name: rates(of[name]) for name in experts} for of in (known, test))
        best = max(experts, key=lambda name: over_axes(learned[name]))
        by_kind = {kind: max(experts, key=lambda name: learned[name][kind]) for kind in learned[best]}
        right = {
            kind: mean(any(test[name][kind].get(i, False) for name in experts) for i in test[best][kind])
            for kind in shown[best]
        }
        line = [f"{best} {over_axes(shown[best]):.3f}"]
        line += [f"by kind {over_axes({kind: shown[by_kind[kind]][kind] for kind in right}):.3f}"]
        line += [f"{name} {over_axes(rates(test[name])):.3f}" for name in systems]
        print(f"{run.name}: {', '.join(line)}, right expert for each prompt {over_axes(right):.3f}")
        print(
            "  " + ", ".join(f"{kind}: {name.removeprefix('expert:')}" for (_, kind), name in sorted(by_kind.items()))
        )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
