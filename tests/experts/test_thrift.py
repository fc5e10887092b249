"""Training of large models on a CPU: fewer rows and logits at once, and the same adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from trl.trainer import utils

from mocae.experts import LoraSpec, Optimisation, TrainingRecord, finetune, finetune_preference, thrift
from mocae.models import LoadedBase
from mocae.prompts.tokens import row_tokens
from tiny import tiny_llama, tiny_tokenizer

PAIRS = [{"prompt": f"Q: {i}?\nA:", "completion": " " + "word" * (i % 5 + 1)} for i in range(11)]  # 4 + 4 + 3
PREFERENCES = [{"prompt": p["prompt"], "chosen": p["completion"], "rejected": " no"} for p in PAIRS]
LABELLED = [{**pair, "label": i % 3 > 0} for i, pair in enumerate(PAIRS)]
ROWS = {"sft": PAIRS, "dpo": PREFERENCES, "kto": LABELLED}


def train(objective: str, folder: Path, dtype: torch.dtype = torch.float32) -> tuple[TrainingRecord, dict[str, Tensor]]:
    folder.mkdir()
    base = LoadedBase(tiny_llama(layers=2).to(dtype), tiny_tokenizer())
    settings: dict[str, Any] = {
        "lora": LoraSpec(r=2, lora_alpha=4.0),
        "optimisation": Optimisation(learning_rate=1e-2, epochs=2.0, batch_size=4, warmup_ratio=0.0),
        "seed": 3, "label": "x", "base_name": "tiny",
    }  # fmt: skip
    if objective == "sft":
        record = finetune(base, PAIRS, folder, **settings)
    else:
        record = finetune_preference(base, ROWS[objective], folder, beta=0.1, sft_weight=0.0, **settings)
    return record, load_file(str(folder / "adapter_model.safetensors"))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each forward pass made logits of."""
    seen: list[int] = []
    scorer = utils._ChunkedLogProbFunction
    apply = scorer.apply

    def counted(hidden: Tensor, *rest: Any) -> Any:
        seen.append(len(hidden))
        return apply(hidden, *rest)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", type("Counted", (), {"apply": staticmethod(counted)}))
    return seen


@pytest.mark.parametrize("objective", ROWS)
def test_what_is_saved_changes_no_adapter(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored: list[int]
) -> None:
    whole, expected = train(objective, tmp_path / "whole")
    at_once = list(scored)
    scored.clear()
    monkeypatch.setattr(thrift, "_WORTH", 1.0)
    saved, adapter = train(objective, tmp_path / "saved")
    assert max(scored) < max(at_once)
    assert saved.n_steps == whole.n_steps == 6
    assert (saved.first_loss, saved.last_loss) == pytest.approx((whole.first_loss, whole.last_loss), abs=1e-5)
    for key, value in adapter.items():
        torch.testing.assert_close(value, expected[key], atol=2e-5, rtol=0)
    assert not utils._use_triton(torch.device("cpu"))
    assert utils._CHUNKED_LOGPROB_CHUNK_SIZE > thrift.TILE[1]


def test_logits_are_of_responses_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored: list[int]) -> None:
    monkeypatch.setattr(thrift, "_WORTH", 1.0)
    record, _ = train("sft", tmp_path / "saved")
    tokenizer = tiny_tokenizer()
    responses = [len(row_tokens(tokenizer, pair["prompt"], pair["completion"])[1]) for pair in PAIRS]
    assert sum(scored) == 2 * sum(responses)
    assert record.n_rows == 11


def test_in_bf16_losses_are_the_same_to_its_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train("sft", tmp_path / "whole", torch.bfloat16)
    monkeypatch.setattr(thrift, "_WORTH", 1.0)
    saved, adapter = train("sft", tmp_path / "saved", torch.bfloat16)
    assert {value.dtype for value in adapter.values()} == {torch.float32}
    assert (saved.first_loss, saved.last_loss) == pytest.approx((whole.first_loss, whole.last_loss), rel=1e-2)


def test_a_pass_is_of_as_few_rows_as_are_worth_it() -> None:
    n = 134_515_008  # SmolLM2-135M
    assert [thrift.rows_at_once("cpu", n, tokens, 8) for tokens in (20.0, 60.0, 105.0, 256.0)] == [None, 3, 2, 1]
    assert thrift.rows_at_once("cuda", n, 256.0, 8) is None
    assert thrift.rows_at_once("cpu", 3_000_000, 256.0, 8) is None
