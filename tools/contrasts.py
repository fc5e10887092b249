"""Compare pairs of systems over the seeds of an ablation, corrected for as many as are asked (Holm).

    python tools/contrasts.py out/smollm2-135m-curves "alignx 30 margin - knn 30" "alignx - uniform"

Prints mean_axis_score of the first minus the second: mean, 95 % interval over prompts and seeds, p after Holm, seeds.
With no pair named it prints those that docs/real-lab.md fixed before any answer was seen.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mocae.evaluation import Bootstrap, difference_over_seeds, read_samples
from mocae.metrics import holm, p_value
from mocae.types import Estimate, Sample

FIXED = [
    f"{own} - {rival}"
    for n in (30, 60)
    for own in (f"alignx {n} margin", f"alignx more {n} margin")
    for rival in (f"knn {n}", f"joint outcomes {n}")
]


def main(folder: Path, contrasts: list[str]) -> None:
    """Print one line a contrast."""
    runs = sorted(path.parent for path in folder.rglob("samples.jsonl") if (path.parent / "report.json").is_file())
    seeds: list[dict[str, list[Sample]]] = []
    for run in runs:
        by_system: dict[str, list[Sample]] = {}
        for sample in read_samples(run / "samples.jsonl"):
            by_system.setdefault(sample.system, []).append(sample)
        seeds.append(by_system)
    axes = sorted({s.answer.example.axis for by_system in seeds for rows in by_system.values() for s in rows})
    found = []
    for contrast in contrasts:
        first, second = contrast.split(" - ")
        pairs = [(by_system[first], by_system[second]) for by_system in seeds]
        found.append(difference_over_seeds(pairs, axes, boot=Bootstrap(4000)))
    adjusted = holm([p_value(Estimate(d.value, d.low, d.high)) for d in found])
    print(f"{len(runs)} runs of {folder}")
    for contrast, d, p in zip(contrasts, found, adjusted, strict=True):
        each = ", ".join("?" if value is None else f"{value:+.3f}" for value in d.by_seed)
        print(f"{contrast:48} {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]  p = {p:.2f}  seeds {each}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:] or FIXED)
