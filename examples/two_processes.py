"""Run one recipe in one process and in two, and show that the result is the same.

    python examples/two_processes.py recipes/pocket.yaml out/two_processes

Both runs compute on the CPU, in fp32. Compared are the losses of every adapter (equal to 1e-5 nats), every answer, the
weights of every answer (to 1e-4), and every number of the report but those of time and memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / "recipes" / "accelerate" / "two-cpus.yaml"
SETTINGS = ("--set", "base.dtype=fp32", "--set", "base.device=cpu", "--no-progress")


def run(recipe: Path, out: Path, *, processes: int, program: Sequence[str] = ("-m", "mocae")) -> None:
    """Run the recipe with `processes` processes."""
    start: list[str] = [sys.executable]
    if processes > 1:
        start += ["-m", "accelerate.commands.launch", "--config_file", str(CONFIG), "--num_processes", str(processes)]
    command = [*start, *program, "run", str(recipe), "--out", str(out), "--processes", str(processes), *SETTINGS]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def differences(one: Path, two: Path) -> list[str]:
    """Return what is not the same in two runs, in words; [] where nothing is."""
    found = []
    for path in sorted(one.rglob("training.json")):
        name = path.relative_to(one)
        first, second = json.loads(path.read_text()), json.loads((two / name).read_text())
        found += [
            f"{name}: {key} {first[key]} and {second[key]}"
            for key in ("n_rows", "n_steps", "first_loss", "last_loss")
            if abs(first[key] - second[key]) > 1e-5
        ]
    samples = [[json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()] for run in (one, two)]
    for first, second in zip(*samples, strict=True):
        where = f"{first['system']}, {first['id']}"
        found += [f"{where}: {k}" for k in ("system", "id", "answer", "acceptable") if first[k] != second[k]]
        weights = first["weights"] or {}
        found += [f"{where}: weight of {k}" for k in weights if abs(weights[k] - second["weights"][k]) > 1e-4]
    reports = [dict(numbers(json.loads((run / "report.json").read_text()))) for run in (one, two)]
    found += [
        f"{key}: {reports[0].get(key)} and {reports[1].get(key)}"
        for key in reports[0].keys() | reports[1].keys()
        # Routing weights and overlaps of adapters carry their rounding; everything else is a count of verdicts.
        if abs(reports[0].get(key, 1e9) - reports[1].get(key, -1e9))
        > (1e-4 if key.startswith(("routing", "collapse")) else 1e-12)
    ]
    return found


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of a report by its place, but those of time, memory and the machine."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ("cost", "environment", "weights", "updates", "recipe"):
                yield from numbers(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from numbers(item, f"{path}.{i}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def main(recipe: Path, out: Path, program: Sequence[str] = ("-m", "mocae")) -> int:
    for name, processes in (("one", 1), ("two", 2)):
        run(recipe, out / name, processes=processes, program=program)
        told = json.loads((out / name / "report.json").read_text())["environment"]["processes"]
        assert told == processes, f"{told} processes worked, not {processes}"
    found = differences(out / "one", out / "two")
    print("\n".join(found) if found else "one process and two: the same losses, answers, weights and report")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
