from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mocae.bank import ExpertBank
from mocae.calibration import AcceptedAnswer, OutputCalibrators, fit_output_calibrators
from mocae.errors import ArtifactError, DataError, ModelMismatchError, TrainingError
from mocae.models import LoadedBase, Steps
from tiny import ARCHITECTURES, random_ids, tiny_adapter, tiny_llama, tiny_tokenizer

ANSWERS = [
    AcceptedAnswer(f"Q: {i}?\nA:", " yes", torch.tensor([1.0, 0.0]) if i % 2 else torch.eye(2)[1]) for i in range(6)
]


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[ExpertBank]:
    model = tiny_llama()
    folders = {
        name: tiny_adapter(model, tmp_path / name, seed=i, layers_to_transform=[2, 3]) for i, name in enumerate("ab")
    }
    attached = ExpertBank.attach(model, folders)
    yield attached
    attached.detach()


def zero(model: torch.nn.Module, *, from_layer: int = 2, rank: int = 3) -> OutputCalibrators:
    layers, hidden = model.config.num_hidden_layers, model.config.hidden_size  # type: ignore[union-attr]
    return OutputCalibrators(from_layer=from_layer, n_layers=int(layers), hidden_size=int(hidden), rank=rank)  # type: ignore[arg-type]


def fit(bank: ExpertBank, made: OutputCalibrators, answers: list[AcceptedAnswer] = ANSWERS, **options: float) -> Steps:
    base = LoadedBase(bank.model, tiny_tokenizer())  # type: ignore[arg-type]
    settings = {"learning_rate": 0.02, "epochs": 4, "batch_size": 3, "max_length": 32, "seed": 0} | options
    return fit_output_calibrators(base, bank, made, answers, **settings)  # type: ignore[arg-type]


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    found: torch.Tensor = model(random_ids(2, 5)).logits
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_untrained_they_change_nothing_bit_for_bit(architecture: str) -> None:
    model = ARCHITECTURES[architecture]()
    before = logits(model)
    with zero(model, from_layer=1).attached(model):
        assert torch.equal(logits(model), before)


def test_trained_they_lower_the_loss_and_leave_with_the_context(bank: ExpertBank) -> None:
    model = bank.model
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before, made = logits(model), zero(model)
    record = fit(bank, made)
    assert record.n_steps == 8
    assert record.last_loss < record.first_loss - 0.5
    assert bank.alpha is None
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with made.attached(model):
        assert not torch.allclose(logits(model), before)
    assert torch.equal(logits(model), before)


def test_layers_below_are_left_alone() -> None:
    model, made = tiny_llama(), zero(tiny_llama())
    made.up.data += 1.0
    with torch.no_grad(), made.attached(model):
        states = model(random_ids(1, 4), output_hidden_states=True).hidden_states
    with torch.no_grad():
        plain = model(random_ids(1, 4), output_hidden_states=True).hidden_states
    assert [torch.equal(a, b) for a, b in zip(states, plain, strict=True)] == [True, True, True, False, False]


def test_the_same_answers_give_the_same_calibrators(bank: ExpertBank) -> None:
    one, other = zero(bank.model), zero(bank.model)
    assert fit(bank, one) == fit(bank, other)
    assert torch.equal(one.up, other.up)
    assert one.n_parameters == 2 * 2 * 3 * 32


def test_what_is_loaded_is_what_was_saved_bit_for_bit(bank: ExpertBank, tmp_path: Path) -> None:
    made = zero(bank.model)
    fit(bank, made, epochs=1)
    made.save(tmp_path)
    loaded = OutputCalibrators.load(tmp_path)
    assert (loaded.from_layer, torch.equal(loaded.up, made.up), torch.equal(loaded.down, made.down)) == (2, True, True)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    zero(tiny_llama()).save(tmp_path)
    tensors, record = load_file(str(tmp_path / "output.safetensors")), (tmp_path / "output.json").read_text()
    for damaged, message in (
        ({"down": tensors["down"]}, "KeyError: 'up'"),
        ({**tensors, "up": tensors["up"][1:].contiguous()}, "do not fit"),
        ({**tensors, "up": tensors["up"] * torch.nan}, "not finite"),
    ):
        save_file(damaged, str(tmp_path / "output.safetensors"))
        with pytest.raises(ArtifactError, match=rf"output calibrators cannot be read .*{message}.*`mocae run` again"):
            OutputCalibrators.load(tmp_path)
    save_file(tensors, str(tmp_path / "output.safetensors"))
    (tmp_path / "output.json").write_text(json.dumps({**json.loads(record), "version": 9}))
    with pytest.raises(ArtifactError, match="version 9, this mocae reads version 1"):
        OutputCalibrators.load(tmp_path)


def test_what_does_not_fit_is_refused(bank: ExpertBank) -> None:
    made = zero(bank.model)
    with (
        pytest.raises(ModelMismatchError, match=r"behind layers 2 to 3, the model has 2 layers; use the base model"),
        made.attached(tiny_llama(layers=2)),
    ):
        pass
    with pytest.raises(DataError, match=r"learn from accepted answers.*there are none; .*routing.outcome.max_prompts"):
        fit(bank, made, [])
    with pytest.raises(DataError, match=r"of 6 accepted answers none leaves room for a response in 4 tokens"):
        fit(bank, made, max_length=4)
    with pytest.raises(TrainingError, match=r"routing.output: not finite at step \d+ \(loss .*lower its learning rate"):
        fit(bank, made, learning_rate=1e20)
