"""Base models are loaded whole or refused, and told apart by their weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mocae.errors import ConfigError, ModelMismatchError
from mocae.models import BASE_MODELS, base_fingerprint, load_base
from tiny import random_ids, tiny_adapter, tiny_llama, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base model on disk."""
    path = tmp_path / "base"
    tiny_llama(layers=1).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_what_was_saved_is_loaded(folder: Path) -> None:
    base = load_base(folder, dtype="fp32", device="cpu")
    model, tokenizer = base.model, base.tokenizer
    ids = random_ids(1, 4)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tiny_llama(layers=1)(ids).logits)
    assert (model.training, tokenizer.padding_side, tokenizer.pad_token) == (False, "left", "<pad>")
    assert load_base(str(folder), dtype="bf16", device="cpu").model.dtype == torch.bfloat16


def test_loading_draws_no_bar_of_the_library(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert transformers.utils.logging.is_progress_bar_enabled()
    load_base(folder, dtype="fp32", device="cpu")
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_a_tokenizer_without_pad_pads_with_eos_and_nothing_is_resized(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    loaded = load_base(folder, dtype="fp32", device="cpu")
    assert (loaded.tokenizer.pad_token, len(loaded.tokenizer)) == ("<eos>", len(tokenizer))
    assert loaded.model.get_input_embeddings().weight.shape[0] == 300
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match="neither a pad nor an eos token"):
        load_base(folder, dtype="fp32", device="cpu")


def test_a_registered_name_is_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BASE_MODELS._loaded, "lab", lambda: folder)
    assert load_base("lab", dtype="fp32", device="cpu").model.config.num_hidden_layers == 1
    assert "pocket" in BASE_MODELS


def test_a_folder_of_a_registered_name_is_meant_only_by_its_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(BASE_MODELS._loaded, "lab", lambda: folder)
    assert load_base("lab", dtype="fp32", device="cpu").model.config.num_hidden_layers == 1
    for name in ("./lab", Path("lab")):
        with pytest.raises(ConfigError, match="folder 'lab' is not a model"):
            load_base(name)


def test_folders_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"is not a model: no config.json in it \(it holds: notes.txt\)"):
        load_base(tmp_path)
    with pytest.raises(ConfigError, match=r"folder '\./missing' does not exist"):
        load_base("./missing")
    adapter = tiny_adapter(tiny_llama(layers=1), tmp_path / "adapter")
    with pytest.raises(ConfigError, match="is an adapter, not a base model"):
        load_base(adapter)


def test_a_damaged_model_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({k: v for k, v in weights.items() if k != name}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelMismatchError, match=f"no weights for 1 parameters \\({name}\\)"):
        load_base(folder, dtype="fp32", device="cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"its weights are missing \(model\.safetensors\); fetch the model again"):
        load_base(folder, dtype="fp32", device="cpu")


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    tiny_llama(layers=1, vocab=258, eos_token_id=257, bos_token_id=257).save_pretrained(folder)
    with pytest.raises(ModelMismatchError, match="has 259 tokens but the model embeds 258"):
        load_base(folder, dtype="fp32", device="cpu")


def _change_one_value(model: torch.nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1.0


def _rename(model: torch.nn.Module) -> None:
    model.add_module("second_head", model.get_submodule("lm_head"))
    del model.lm_head


@pytest.mark.parametrize("change", [_change_one_value, _rename])
def test_fingerprints_tell_weights_and_names_apart(change: Callable[[torch.nn.Module], None]) -> None:
    model = tiny_llama(layers=1)
    before = base_fingerprint(model)
    change(model)
    assert base_fingerprint(model) != before
    assert base_fingerprint(tiny_llama(layers=1, seed=1)) != before


def test_one_base_has_one_fingerprint_in_fp32_and_bf16(folder: Path) -> None:
    prints = {base_fingerprint(load_base(folder, dtype=d, device="cpu").model) for d in ("fp32", "bf16")}
    assert prints == {base_fingerprint(tiny_llama(layers=1))}
    assert len(prints.pop()) == 64


def test_a_model_without_values_has_no_fingerprint() -> None:
    with pytest.raises(ModelMismatchError, match="'bias' is on the meta device"):
        base_fingerprint(torch.nn.Linear(2, 2, device="meta"))
    with pytest.raises(ModelMismatchError, match="Identity has no parameters"):
        base_fingerprint(torch.nn.Identity())


def test_the_remote_code_flag_is_off_by_default(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('ran code')")
    with pytest.raises(ConfigError, match="trust_remote_code"):
        load_base(folder, dtype="fp32", device="cpu")
