"""The router of an export: as much of the base model as it reads, and no other export or base model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mocae.errors import ArtifactError, ConfigError, DataError, ModelMismatchError
from mocae.export import Bundle, export_peft, export_vllm, load_chooser, write_manifest
from mocae.models import count_tokens
from run_for_tests import tiny_base

ALPHA = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]] * 2)


@pytest.fixture
def exported(bundle: Bundle, tmp_path: Path) -> Path:
    folder = tmp_path / "vllm"
    folder.mkdir()
    write_manifest(folder, bundle, to="vllm", details=export_vllm(bundle, folder, alpha=ALPHA, n_mixtures=3))
    return folder


def test_only_the_layers_below_the_router_are_kept(exported: Path) -> None:
    chooser = load_chooser(exported)
    assert len(chooser.base.model.model.layers) == 1


def test_more_than_the_model_can_read_is_not_read(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = load_chooser(exported)
    assert chooser.choose("a" * 256, is_chat=False).name
    monkeypatch.setattr(chooser.base.model, "forward", lambda **_: pytest.fail("it was read"))
    with pytest.raises(DataError, match="the prompt has at least 257 tokens; the model's context is 256 tokens"):
        chooser.choose("a" * 257, is_chat=False)


def test_a_text_of_megabytes_is_tokenised_only_until_it_is_too_long() -> None:
    read: list[int] = []

    def tokenizer(text: str, **_: object) -> SimpleNamespace:
        read.append(len(text))
        return SimpleNamespace(input_ids=[1, *text.split(" "), 2])

    assert count_tokens(tokenizer, "a " * 500_000, enough=100) > 100
    assert max(read) < 1_000
    assert count_tokens(tokenizer, "a " * 50, enough=100) == 53
    assert count_tokens(tokenizer, "a" * 500_000, enough=100) == 3  # one word may be as long as it likes


def test_what_does_not_fit_is_refused(exported: Path, bundle: Bundle, tmp_path: Path) -> None:
    other = tiny_base(tmp_path / "other", seed=5)
    with pytest.raises(ModelMismatchError, match="the one loaded has"):
        load_chooser(exported, base_model=str(other))
    plain = tmp_path / "peft"
    plain.mkdir()
    write_manifest(plain, bundle, to="peft", details=export_peft(bundle, plain, weights={"all": 1.0}))
    with pytest.raises(ConfigError, match="an export to peft; the gateway stands in front of"):
        load_chooser(plain)
    (exported / "code_book.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"code_book\.json has changed since it was exported"):
        load_chooser(exported)
