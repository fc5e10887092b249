"""Add a fourth axis to a finished artifact: one expert is trained, the other three stay as they are.

    python examples/four_axes.py --out out/four-axes

The fourth axis is *brevity*: say it in few words. It comes with what a new axis can need, all of it here: a source of
rows, a kind of test prompt (a probe), and a judge of its answers. The first run has the three axes of the pocket world,
the second has four and the same folder. About ten minutes on two cores. Synthetic, tiny model.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mocae.axes import Probe, register_probe
from mocae.config import Recipe, load_recipe, parse_recipe
from mocae.data import SOURCES, ReadResult
from mocae.errors import ConfigError
from mocae.judges import JUDGES
from mocae.pipelines.run import run
from mocae.types import Answer, Example, Verdict

MOST_WORDS = 2
PLACES = (
    *("kitchen", "garden", "harbour", "station", "library", "market", "bridge", "tower", "school", "museum"),
    *("bakery", "castle", "church", "theatre", "stadium", "mill", "farm", "lake", "island", "forest"),
)
ROADS = (
    *("north", "south", "east", "west", "hill", "river", "valley", "coast", "field", "stone"),
    *("old", "new", "long", "short", "high", "low", "green", "white", "king", "queen"),
)
WORDINGS = (
    ("Which road leads to the {place}, the {road} road or none?", "{road}."),
    ("Shall I take the {road} road to the {place}?", "Yes."),
    ("Is the {road} road to the {place} closed?", "No."),
)
SPLITS = {"train": (0, 12), "calibration": (12, 15), "test": (15, 20)}  # of the places: no split knows another's


def read_brief(
    path: Path | None,
    *,
    axis: str,
    on_bad_row: Literal["error", "skip"] = "error",
    split: str = "train",
    n: int = 20,
) -> ReadResult:
    """Return `n` questions, with answers of one word in the training split."""
    if path is not None:
        raise ConfigError(f"source 'brief' is generated and reads no file, but path is {path}; remove `path`")
    if split not in SPLITS:
        raise ConfigError(f"source 'brief': split is {split!r}; accepted: {', '.join(map(repr, SPLITS))}")
    places = PLACES[slice(*SPLITS[split])]
    rows = [
        Example(
            prompt=question.format(place=place, road=road),
            axis=axis,
            probe="brief",
            response=answer.format(road=road).capitalize() if split == "train" else None,
            kind="few words",
            group=place,
            source=f"brief {split}",
        )
        for place in places
        for road in ROADS
        for question, answer in WORDINGS
    ]
    if not 0 < n <= len(rows):
        raise ConfigError(f"source 'brief': n is {n}; the split {split!r} has 1 to {len(rows)} rows")
    mixed = sorted(rows, key=lambda row: row.id)  # a hash: the first n are of all places and wordings
    return ReadResult(examples=mixed[:n], n_skipped=0, skipped=[])


class BrevityJudge:
    """Counts words; says nothing about prompts that do not ask for few."""

    name = "brevity"
    judgements = ("brief",)
    quality = None  # it counts, so there is nothing to agree with

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return for each answer to a `brief` prompt whether it has few words, and at least one."""
        return [{"brief": self._one(answer)} if answer.example.probe == "brief" else {} for answer in answers]

    def _one(self, answer: Answer) -> Verdict:
        n = len(answer.text.split())
        return Verdict(float(0 < n <= MOST_WORDS), f"{n} words", self.name)


register_probe(Probe("brief", {"brief": True}))
if "brief" not in SOURCES:
    SOURCES.register("brief")(read_brief)
    JUDGES.register("brevity")(BrevityJudge)


def with_brevity(recipe: Recipe, *, train: int = 720, calibration: int = 60, test: int = 80) -> Recipe:
    """Return the recipe with the fourth axis, its expert among the systems, and the judge it needs."""
    values: dict[str, Any] = recipe.model_dump(mode="json")
    sizes = {"train": train, "calibration": calibration, "test": test}
    splits = {split: {"source": "brief", "options": {"split": split, "n": n}} for split, n in sizes.items()}
    values["axes"].append({"name": "brevity", "injection": "Use few words.", **splits})
    values["judges"].append({"judge": "brevity"})
    return parse_recipe(values)


def adapter_hashes(out: Path, axes: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each expert's weights."""
    files = {axis: out / "experts" / axis / "adapter_model.safetensors" for axis in axes}
    return {axis: hashlib.sha256(path.read_bytes()).hexdigest() for axis, path in files.items()}


def add_axis(three: Recipe, four: Recipe, *, out: Path, progress: bool = True) -> dict[str, str]:
    """Run both recipes in one folder, print what changed, and return the hashes of the experts afterwards.

    Raises:
        AssertionError: an old expert is not the same, byte for byte, or the router is not a new one.
    """
    router = out / "router" / "alignx" / "router.safetensors"
    run(three, out=out, progress=progress)
    before, old_router = adapter_hashes(out, three.axis_names), router.read_bytes()
    report = run(four, out=out, overwrite=True, progress=progress).report
    after = adapter_hashes(out, four.axis_names)
    for axis, digest in after.items():
        print(f"{axis:14} {digest}  {'unchanged' if before.get(axis) == digest else 'trained now'}")
    assert {axis: after[axis] for axis in before} == before, "an expert that was there has changed"
    assert router.read_bytes() != old_router, "the router has not been fitted again"
    for name, entry in report["systems"].items():
        scores = {axis: score["value"] for axis, score in entry["axis_scores"].items()}
        told = ", ".join(f"{axis} {'unscored' if score is None else f'{score:.2f}'}" for axis, score in scores.items())
        print(f"{name:22} {told}")
    return after


def main() -> None:
    """Run the example on the pocket world."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parents[1] / "recipes" / "pocket.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of the artifact; may hold a finished run")
    args = parser.parse_args()
    # Joint and sequential tuning have to start over for a new axis; only the bank of experts is compared here.
    rest = [{"name": name, "policy": name} for name in ("base", "uniform", "alignx")]
    three = parse_recipe({**load_recipe(args.recipe).model_dump(mode="json"), "systems": rest})
    add_axis(three, with_brevity(three), out=args.out)


if __name__ == "__main__":
    main()
