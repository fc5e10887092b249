"""The example of a fourth axis, on a tiny random base model."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mocae.axes
from mocae.data import SOURCES, check_disjoint
from mocae.errors import ConfigError
from mocae.judges import JUDGES
from mocae.types import Answer
from run_for_tests import AXES, tiny_base, tiny_recipe

FILE = Path(__file__).parents[2] / "examples" / "four_axes.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The example as a module; what it registers is taken back afterwards."""
    spec = importlib.util.spec_from_file_location("four_axes", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["four_axes"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["four_axes"], mocae.axes.PROBES["brief"], SOURCES._loaded["brief"], JUDGES._loaded["brevity"]


def test_old_experts_stay_byte_for_byte_and_one_is_trained(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mocae.stages.training as training

    trained: list[str] = []
    finetune = training.finetune

    def counted(*args: Any, label: str, **kwargs: Any) -> Any:
        trained.append(label)
        return finetune(*args, label=label, **kwargs)

    monkeypatch.setattr(training, "finetune", counted)
    monkeypatch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
    three = tiny_recipe(tiny_base(tmp_path / "base"), systems=["base", "alignx"])
    four = example.with_brevity(three, train=12, calibration=12, test=8)
    after = example.add_axis(three, four, out=tmp_path / "out", progress=False)
    assert trained == [f"expert {axis}" for axis in (*AXES, "brevity")]
    lines = capsys.readouterr().out.splitlines()
    for axis, line in zip(AXES, lines, strict=False):
        assert line.split() == [axis, after[axis], "unchanged"]
    assert lines[3].split() == ["brevity", after["brevity"], "trained", "now"]
    assert lines[-1].startswith("alignx ")
    assert "brevity" in lines[-1]


def test_splits_have_no_prompt_in_common(example: Any) -> None:
    rows = {split: example.read_brief(None, axis="brevity", split=split, n=180).examples for split in example.SPLITS}
    assert [len({row.id for row in split}) for split in rows.values()] == [180, 180, 180]
    check_disjoint(rows)
    assert all((row.response is not None) == (split == "train") for split in rows for row in rows[split])


def test_source_refuses_what_it_does_not_have(example: Any) -> None:
    with pytest.raises(ConfigError, match="n is 301; the split 'test' has 1 to 300 rows"):
        example.read_brief(None, axis="brevity", split="test", n=301)
    with pytest.raises(ConfigError, match="split is 'dev'; accepted: 'train'"):
        example.read_brief(None, axis="brevity", split="dev")
    with pytest.raises(ConfigError, match=r"path is rows\.json; remove"):
        example.read_brief(Path("rows.json"), axis="brevity")


@pytest.mark.parametrize(("text", "score"), [("Yes.", 1.0), ("The hill", 1.0), ("Take the hill road", 0.0), ("", 0.0)])
def test_judge_counts_words(example: Any, text: str, score: float) -> None:
    row = example.read_brief(None, axis="brevity", split="test", n=1).examples[0]
    (verdicts,) = example.BrevityJudge().judge([Answer(row, text)])
    assert verdicts["brief"].score == score
    assert mocae.axes.probe("brief").accepts(verdicts) is bool(score)
