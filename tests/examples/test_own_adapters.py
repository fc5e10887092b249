"""The example of adapters brought along, on a tiny random base model: trained by TRL, built, asked."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch

import mocae
from mocae.bank import load_peft
from tiny import random_ids, with_peft

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def example() -> Any:
    return sys.modules["own_adapters"]


def test_adapters_have_nothing_in_common(own: Any) -> None:
    out, _ = own
    experts = {path.name: load_peft(path) for path in sorted((out / "adapters").iterdir())}
    assert {name: expert.r for name, expert in experts.items()} == {"helpfulness": 4, "harmlessness": 8, "honesty": 16}
    assert [name for name, expert in experts.items() if expert.use_rslora] == ["honesty"]
    assert len({frozenset(expert.layers) for expert in experts.values()}) == 3


def test_one_run_serves_them_all_and_trains_none(own: Any, example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out, result = own
    example.show(result, out / "artifact", questions=["Who?"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(result.report["systems"])
    assert {"base", "uniform", "alignx", "oracle", "expert:honesty"} <= set(result.report["systems"])
    assert lines[-1].startswith("Who? -> ")
    for name in example.ADAPTERS:
        mine, theirs = (load_peft(out / place / name) for place in ("adapters", "artifact/experts"))
        assert all(torch.equal(pair.delta(), theirs.layers[module].delta()) for module, pair in mine.layers.items())
        record = json.loads((out / "artifact" / "experts" / name / "training.json").read_text())
        assert record["imported"] == str(out / "adapters" / name)


def test_an_expert_alone_is_the_adapter_in_peft(own: Any, example: Any) -> None:
    out, _ = own
    model = mocae.load(out / "artifact", device="cpu")
    ids = random_ids(1, 9)
    for name in example.ADAPTERS:
        with torch.no_grad():
            with model.model.bank.weights(torch.tensor([float(expert == name) for expert in model.experts])):
                found = model.model.base.model(input_ids=ids).logits
            with model.model.bank.weights(None):
                plain = model.model.base.model(input_ids=ids).logits
            model.model.bank.detach()
            wanted = with_peft(model.model.base.model, out / "adapters" / name)(input_ids=ids).logits
        model = mocae.load(out / "artifact", device="cpu")
        assert (found - wanted).abs().max() < 1e-5
        assert (found - plain).abs().max() > 1e-4
