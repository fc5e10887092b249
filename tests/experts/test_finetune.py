from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from trl import SFTConfig

from mocae.bank import ExpertBank
from mocae.errors import ArtifactError, DataError, TrainingError
from mocae.experts import LoraSpec, Optimisation, TrainingRecord, finetune
from mocae.experts.trainer import training_arguments
from mocae.models import LoadedBase
from mocae.progress import Bar
from tiny import EOS, random_ids, tiny_llama, tiny_tokenizer, with_peft

LORA = LoraSpec(r=2, lora_alpha=4.0)
PAIRS = [{"prompt": f"Q: {word}?\nA:", "completion": f" {word[::-1]}"} for word in ("one", "three", "a", "seventeen")]
EQUAL = [{"prompt": f"Q: {word}?\nA:", "completion": f" {word[::-1]}"} for word in ("one", "two", "six", "ten")]


def steps(**options: Any) -> Optimisation:
    settings: dict[str, Any] = {"learning_rate": 1e-2, "epochs": 2.0, "batch_size": 2, "warmup_ratio": 0.0}
    return Optimisation(**(settings | options))


def train(base: LoadedBase, folder: Path, pairs: list[dict[str, str]] = PAIRS, **options: Any) -> TrainingRecord:
    folder.mkdir()
    settings: dict[str, Any] = {
        "lora": LORA, "optimisation": steps(), "seed": 3, "label": "expert tiny", "base_name": "tiny-llama"
    }  # fmt: skip
    return finetune(base, pairs, folder, **(settings | options))


def adapter(folder: Path) -> dict[str, Tensor]:
    return load_file(str(folder / "adapter_model.safetensors"))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@torch.no_grad()
def response_loss(base: LoadedBase, pairs: list[dict[str, str]], *, prompts: bool = False) -> float:
    """Mean negative log-probability of the responses' tokens and the end, one row at a time; of the prompts' too."""
    found = []
    for pair in pairs:
        prompt = base.tokenizer(pair["prompt"])["input_ids"]
        ids = [*base.tokenizer(pair["prompt"] + pair["completion"])["input_ids"], EOS]
        log_probs = base.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found += [-float(log_probs[i - 1, ids[i]]) for i in range(1 if prompts else len(prompt), len(ids))]
    return sum(found) / len(found)


def test_the_loss_is_that_of_the_responses_alone(base: LoadedBase, tmp_path: Path) -> None:
    expected = response_loss(base, PAIRS)
    record = train(base, tmp_path / "a", optimisation=steps(epochs=1.0, batch_size=4))
    assert record.n_steps == 1
    assert record.first_loss == pytest.approx(expected, abs=1e-5)  # lora_B starts at zero: the base model's own loss
    assert response_loss(base, PAIRS, prompts=True) != pytest.approx(expected, abs=1e-2)


def test_a_response_is_cut_at_max_length_and_a_prompt_that_fills_it_is_left_out(
    base: LoadedBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [{"prompt": "Q: ab\nA:", "completion": " cdefgh"}, {"prompt": "x" * 12, "completion": " y"}]
    cut = [{"prompt": "Q: ab\nA:", "completion": " cd"}]
    ids = base.tokenizer(cut[0]["prompt"] + cut[0]["completion"])["input_ids"]
    log_probs = base.model(torch.tensor([ids])).logits[0].log_softmax(-1).detach()
    expected = -sum(float(log_probs[i - 1, ids[i]]) for i in range(8, 11)) / 3
    record = train(base, tmp_path / "a", pairs, optimisation=steps(epochs=1.0, max_length=11))
    assert (record.n_rows, record.n_left_out, record.n_cut) == (1, 1, 1)
    assert record.first_loss == pytest.approx(expected, abs=1e-5)
    said = capsys.readouterr().err
    assert "expert tiny: 1 of 2 rows left out, their prompts fill experts.max_length = 11" in said
    assert "expert tiny: 1 of 1 rows have a response that is cut at experts.max_length = 11, its end token" in said
    assert train(base, tmp_path / "whole", pairs, optimisation=steps(epochs=1.0, max_length=16)).n_cut == 0
    with pytest.raises(TrainingError, match=r"at least max_length = 8 tokens \(the shortest 8\).*experts.max_length"):
        train(base, tmp_path / "b", pairs, optimisation=steps(max_length=8))


def test_training_gives_the_base_model_and_tokenizer_back(base: LoadedBase, tmp_path: Path) -> None:
    model, tokenizer = base.model, base.tokenizer
    untouched, fresh = tiny_llama(layers=2), tiny_tokenizer()
    model.generation_config.pad_token_id = None  # the trainer would write the tokenizer's into it
    train(base, tmp_path / "a")
    record = train(base, tmp_path / "b")
    assert record.n_parameters == sum(value.numel() for value in adapter(tmp_path / "b").values())
    assert same(model.state_dict(), untouched.state_dict())
    modules = dict(untouched.named_modules())
    for name, module in model.named_modules():
        assert type(module) is type(modules[name])
        assert vars(module).keys() == vars(modules[name]).keys(), name  # no forward of its own, no peft_config, no tags
        assert [*module._forward_hooks, *module._forward_pre_hooks] == []
        assert not module.training
    assert model.config.to_dict() == untouched.config.to_dict()
    assert model.generation_config.pad_token_id is None
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tokenizer.backend_tokenizer.to_str() == fresh.backend_tokenizer.to_str()
    assert tokenizer.padding_side == "left"


def test_the_same_seed_gives_the_same_adapter_and_names_no_path(base: LoadedBase, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(base, tmp_path / name, seed=seed, optimisation=steps(epochs=1.0))
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in "abc"]
    assert files == [["adapter_config.json", "adapter_model.safetensors"]] * 3
    for name in files[0]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not same(adapter(tmp_path / "a"), adapter(tmp_path / "c"))
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-llama"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(tmp_path) not in (tmp_path / "a" / "adapter_config.json").read_text()


def test_a_bank_of_one_is_the_expert_peft_loads(base: LoadedBase, tmp_path: Path) -> None:
    train(base, tmp_path / "a", lora=LoraSpec(r=2, lora_alpha=5.5, use_rslora=True, from_layer=1))
    ids = random_ids(2, 9)
    before = base.model(ids).logits
    expected = with_peft(base.model, tmp_path / "a")(ids).logits
    assert (expected - before).abs().max() > 1e-2
    bank = ExpertBank.attach(base.model, {"one": tmp_path / "a"})
    assert bank.first_layer == 1
    with torch.no_grad(), bank.weights(torch.ones(1)):
        torch.testing.assert_close(base.model(ids).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pairs", [EQUAL, PAIRS], ids=["equal lengths", "lengths that differ"])
def test_four_rows_at_once_are_one_row_four_times(
    base: LoadedBase, tmp_path: Path, pairs: list[dict[str, str]]
) -> None:
    record = train(base, tmp_path / "at-once", pairs, optimisation=steps(batch_size=4))
    summed = train(base, tmp_path / "summed", pairs, optimisation=steps(batch_size=1, gradient_accumulation=4))
    assert (record.n_steps, summed.n_steps) == (2, 2)
    for key, value in adapter(tmp_path / "summed").items():
        torch.testing.assert_close(value, adapter(tmp_path / "at-once")[key], atol=1e-5, rtol=0)


def test_accumulating_eight_rows_is_eight_rows_at_once(
    base: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[list[float]] = []
    of = TrainingRecord.of

    def told(of_steps: list[float], **counts: Any) -> TrainingRecord:
        losses.append(of_steps)
        return of(of_steps, **counts)

    monkeypatch.setattr(TrainingRecord, "of", told)
    pairs = [{"prompt": f"Q: {i}?\nA:", "completion": " " + "word" * (i % 5 + 1)} for i in range(19)]  # 8 + 8 + 3
    for name, rows, summed in (("at-once", 8, 1), ("summed", 1, 8)):
        optimisation = steps(batch_size=rows, gradient_accumulation=summed)
        assert train(base, tmp_path / name, pairs, optimisation=optimisation).n_steps == 6
    assert losses[0][0] != losses[0][-1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for key, value in adapter(tmp_path / "summed").items():
        torch.testing.assert_close(value, adapter(tmp_path / "at-once")[key], atol=1e-5, rtol=0)


@contextmanager
def interrupted_after(n: int) -> Iterator[None]:
    """Make the n-th step of a training end in a KeyboardInterrupt."""
    advance: Callable[[Bar, int], None] = Bar.advance
    seen: list[int] = []

    def stop(bar: Bar, count: int = 1) -> None:
        seen.extend([count] * (count > 0))
        if len(seen) == n:
            raise KeyboardInterrupt
        advance(bar, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bar, "advance", stop)
        yield


def test_a_training_that_goes_on_ends_where_one_in_one_go_does(base: LoadedBase, tmp_path: Path) -> None:
    lora = LoraSpec(r=2, lora_alpha=4.0, lora_dropout=0.3)  # dropout draws numbers, so their state must come back too
    optimisation = steps(epochs=3.0, batch_size=1, checkpoint_steps=3)
    options: dict[str, Any] = {"lora": lora, "optimisation": optimisation}
    whole = train(base, tmp_path / "whole", work=tmp_path / "unused", **options)
    work = tmp_path / "work"
    with interrupted_after(8), pytest.raises(KeyboardInterrupt):
        train(base, tmp_path / "killed", work=work, **options)
    assert same(base.model.state_dict(), tiny_llama(layers=2).state_dict())
    assert [path.name for path in work.glob("checkpoint-*")] == ["checkpoint-6"]
    (work / "checkpoint-9").mkdir()  # killed while writing: no trainer_state.json
    loads: list[object] = []
    load = torch.load

    def watched(*args: Any, **keywords: Any) -> Any:
        loads.append(keywords.get("weights_only"))
        return load(*args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", watched)
        resumed = train(base, tmp_path / "resumed", work=work, **options)
    assert same(adapter(tmp_path / "resumed"), adapter(tmp_path / "whole"))
    assert (resumed.n_steps, resumed.first_loss, resumed.last_loss) == (12, whole.first_loss, whole.last_loss)
    assert loads
    assert all(only is True for only in loads)  # nothing is unpickled that could run code


def test_training_further_starts_at_the_adapter(base: LoadedBase, tmp_path: Path) -> None:
    first = train(base, tmp_path / "first")
    start = tmp_path / "first"
    train(base, tmp_path / "still", start_from=start, optimisation=steps(learning_rate=0.0))
    assert same(adapter(tmp_path / "still"), adapter(start))
    one_step = steps(epochs=1.0, batch_size=4)
    further = train(
        base, tmp_path / "further", start_from=start, optimisation=one_step, lora=LoraSpec(r=7, lora_alpha=1.0)
    )
    assert not same(adapter(tmp_path / "further"), adapter(start))
    assert {key: value.shape for key, value in adapter(tmp_path / "further").items()} == {
        key: value.shape for key, value in adapter(start).items()
    }
    worn = LoadedBase(with_peft(base.model, start), base.tokenizer)  # type: ignore[arg-type]  # answers like a model
    assert further.first_loss == pytest.approx(response_loss(worn, PAIRS), abs=1e-5)
    assert further.first_loss < first.first_loss
    with pytest.raises(ArtifactError, match=r"nothing: no adapter_config.json"):
        train(base, tmp_path / "no", start_from=tmp_path / "nothing")


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_step(base: LoadedBase, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"expert tiny: not finite at step 2 \(loss .*learning_rate"):
        train(base, tmp_path / "fast", optimisation=steps(learning_rate=1e30, batch_size=4))
    assert same(base.model.state_dict(), tiny_llama(layers=2).state_dict())
    assert list((tmp_path / "fast").iterdir()) == []
    with torch.no_grad():
        base.model.model.norm.weight[0] = torch.nan
    with pytest.raises(TrainingError, match=r"not finite at step 1 \(loss nan, gradient norm nan\)"):
        train(base, tmp_path / "nan")
    assert not hasattr(base.model, "peft_config")


def test_no_rows_are_refused(base: LoadedBase, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expert tiny: no training rows"):
        train(base, tmp_path / "a", [])


def test_what_the_trainer_refuses_is_said_in_one_line(base: LoadedBase, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"expert tiny: the trainer refuses .*lm_head"):
        train(base, tmp_path / "a", lora=LoraSpec(r=2, lora_alpha=4.0, target_modules=("lm_head",)))
    assert same(base.model.state_dict(), tiny_llama(layers=2).state_dict())


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (0.03, 3), (0.5, 50), (1.0, 100)])
def test_warm_up_is_a_share_of_the_steps(base: LoadedBase, tmp_path: Path, ratio: float, expected: int) -> None:
    arguments = training_arguments(SFTConfig, base, steps(warmup_ratio=ratio), seed=0, work=tmp_path)
    assert arguments.get_warmup_steps(100) == expected
