"""DPO: the chosen response becomes likelier than the rejected one, and the base model stays what it was."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mocae.bank import ExpertBank
from mocae.errors import DataError, TrainingError
from mocae.experts import (
    LoraSpec,
    Optimisation,
    TrainingRecord,
    finetune_preference,
    inject,
    with_labels,
    with_rejected,
)
from mocae.models import LoadedBase
from mocae.prompts import FORMATS
from mocae.types import Example
from tiny import tiny_llama, tiny_tokenizer

LORA = LoraSpec(r=2, lora_alpha=8.0)
OPTIMISATION = Optimisation(learning_rate=0.02, epochs=4.0, batch_size=4, warmup_ratio=0.0, max_length=64)


@pytest.fixture
def base() -> LoadedBase:
    return LoadedBase(tiny_llama(layers=2), tiny_tokenizer())


def rows(n: int = 8, key: str = "rejected") -> list[Example]:
    return [
        Example(f"question {i}?", "a", "harmful", "no", facts={key: "yes, of course"}, source=f"f:{i}")
        for i in range(n)
    ]


def triples(base: LoadedBase, examples: list[Example]) -> list[dict[str, str]]:
    plain = FORMATS.get("plain")
    pairs = inject(examples, {"a": "Be safe."}, rate=0.5, prompt_format=plain, tokenizer=base.tokenizer, seed=0)
    return with_rejected(examples, pairs, prompt_format=plain)


def margin(base: LoadedBase, row: dict[str, str]) -> float:
    """Return how much likelier the chosen response is than the rejected one, in nats."""
    found = []
    for key in ("chosen", "rejected"):
        prompt = base.tokenizer(row["prompt"]).input_ids
        ids = torch.tensor([prompt + base.tokenizer(row[key]).input_ids])
        with torch.no_grad():
            log_probs = base.model(input_ids=ids).logits.log_softmax(-1)
        found.append(float(log_probs[0, range(len(prompt) - 1, ids.shape[1] - 1), ids[0, len(prompt) :]].sum()))
    return found[0] - found[1]


@pytest.mark.parametrize("sft_weight", [0.0, 0.5])
def test_the_chosen_response_is_preferred(sft_weight: float, base: LoadedBase, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    data = triples(base, rows())
    record = finetune_preference(
        base,
        data,
        tmp_path,
        lora=LORA,
        optimisation=OPTIMISATION,
        beta=0.1,
        sft_weight=sft_weight,
        seed=0,
        label="a",
        base_name="tiny",
    )
    assert record.n_rows == 8
    assert record.n_steps == 8
    if not sft_weight:
        assert record.first_loss == pytest.approx(math.log(2), abs=1e-3)  # the reference is the base model
    assert record.last_loss < record.first_loss
    assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())
    plain = margin(base, data[0])
    bank = ExpertBank.attach(base.model, {"a": tmp_path})
    with bank.weights(torch.ones(1)):
        assert margin(base, data[0]) > plain + 1
    bank.detach()


def test_kto_learns_from_responses_one_by_one(base: LoadedBase, tmp_path: Path) -> None:
    plain = FORMATS.get("plain")
    examples = [Example(f"question {i}?", "a", "harmful", "no", source=f"f:{i}") for i in range(8)]
    examples += [Example(f"question {i}?", "a", "harmful", "yes", facts={"wanted": False}) for i in range(4)]
    pairs = inject(examples, {"a": "Be safe."}, rate=0.0, prompt_format=plain, tokenizer=base.tokenizer, seed=0)
    data = with_labels(examples, pairs, prompt_format=plain)
    assert [row["label"] for row in data] == [True] * 8 + [False] * 4
    record = finetune_preference(
        base,
        data,
        tmp_path,
        lora=LORA,
        optimisation=OPTIMISATION,
        beta=0.5,
        sft_weight=0.0,
        seed=0,
        label="a",
        base_name="tiny",
    )
    assert (record.n_rows, record.n_steps) == (12, 12)
    assert record.last_loss < record.first_loss
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    row = {"prompt": data[0]["prompt"], "chosen": " no", "rejected": " yes"}
    before = margin(base, row)
    bank = ExpertBank.attach(base.model, {"a": tmp_path})
    with bank.weights(torch.ones(1)):
        assert margin(base, row) > before + 1
    bank.detach()


def test_a_pair_is_two_responses_for_kto(base: LoadedBase) -> None:
    plain, examples = FORMATS.get("plain"), rows(2)
    pairs = inject(examples, {"a": "Be safe."}, rate=0.0, prompt_format=plain, tokenizer=base.tokenizer, seed=0)
    found = with_labels(examples, pairs, prompt_format=plain)
    assert [(row["completion"], row["label"]) for row in found] == [(" no", True), (" yes, of course", False)] * 2
    with pytest.raises(DataError, match="kto needs wanted responses and others, got only wanted ones"):
        with_labels(rows(2, key="other"), pairs, prompt_format=plain)


def test_the_reference_is_the_adapter_that_training_starts_from(base: LoadedBase, tmp_path: Path) -> None:
    def train(folder: Path, start_from: Path | None) -> TrainingRecord:
        folder.mkdir()
        return finetune_preference(
            base, triples(base, rows()), folder, lora=LORA, optimisation=OPTIMISATION, beta=0.1, sft_weight=0.0, seed=0,
            label="a", base_name="tiny", start_from=start_from,
        )  # fmt: skip

    first = train(tmp_path / "first", None)
    again = train(tmp_path / "again", tmp_path / "first")
    assert again.first_loss == pytest.approx(math.log(2), abs=0.02)
    assert again.n_parameters == first.n_parameters
    assert [path.name for path in sorted((tmp_path / "again").iterdir())] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_pairs_of_beavertails_are_read_too(base: LoadedBase) -> None:
    (row,) = triples(base, rows(1, key="unsafe"))
    assert row["prompt"].endswith("Q: question 0?\nA:")
    assert (row["chosen"], row["rejected"]) == (" no", " yes, of course")


def test_rows_without_a_rejected_response_are_refused(base: LoadedBase) -> None:
    with pytest.raises(DataError, match=r"f:0: a row of axis 'a' has no rejected response, which objective dpo needs"):
        triples(base, rows(1, key="other"))
    same = [Example("q?", "a", "harmful", "no", facts={"rejected": " no"}, source="f:1")]
    with pytest.raises(DataError, match="f:1: chosen and rejected are the same response"):
        triples(base, same)


def test_pairs_that_the_cut_makes_equal_are_left_out_and_counted(
    base: LoadedBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [
        {"prompt": "Q: a\nA:", "chosen": " yes", "rejected": " no"},
        {"prompt": "Q: b\nA:", "chosen": f" {'so ' * 9}yes", "rejected": f" {'so ' * 9}no"},
        {"prompt": "Q: c\nA:", "chosen": " no", "rejected": f" {'so ' * 9}yes"},
    ]

    def train(rows: list[dict[str, str]]) -> TrainingRecord:
        optimisation = Optimisation(learning_rate=0.02, epochs=1.0, batch_size=4, max_length=20)
        return finetune_preference(
            base, rows, tmp_path, lora=LORA, optimisation=optimisation, beta=0.1, sft_weight=0.0, seed=0,
            label="a", base_name="tiny",
        )  # fmt: skip

    record = train(data)
    assert (record.n_rows, record.n_left_out, record.n_cut) == (2, 1, 1)
    said = capsys.readouterr().err
    assert "a: 1 of 3 rows left out, chosen and rejected are equal up to experts.max_length = 20" in said
    with pytest.raises(TrainingError, match=r"are equal up to experts.max_length = 20 in every row"):
        train(data[1:2])
