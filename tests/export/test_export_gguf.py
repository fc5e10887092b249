"""GGUF: what llama.cpp answers from the files is what the policy answers, token by token."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from export_for_tests import WEIGHTS, bundle_on
from llama_cpp import answers_of_llama_cpp
from mocae.bank import ExpertBank
from mocae.errors import ModelMismatchError
from mocae.export import Bundle, export_gguf
from mocae.export.vocabulary import read_vocabulary
from mocae.models import LoadedBase
from tiny import ARCHITECTURES, tiny_adapter, tiny_tokenizer

PROMPT = "Q: Who goes there? \u00e9\u4e2d\nA:"
ONE: dict[str, float] = {"rslora": 1.0}


def greedy(bundle: Bundle, weights: dict[str, float], n: int = 12) -> tuple[list[int], list[int]]:
    """Return ids of the prompt and of the policy's greedy answer."""
    ids = bundle.base.tokenizer(PROMPT, return_tensors="pt").input_ids
    bank = ExpertBank.attach(bundle.base.model, bundle.experts)
    try:
        with torch.no_grad(), bank.weights(torch.tensor([weights.get(name, 0.0) for name in bundle.experts])):
            out = bundle.base.model.generate(
                ids, max_new_tokens=n, do_sample=False, eos_token_id=None, attention_mask=torch.ones_like(ids)
            )
    finally:
        bank.detach()
    return ids[0].tolist(), out[0, ids.shape[1] :].tolist()


def case(folder: Path, weights: dict[str, float], n: int = 12) -> dict[str, Any]:
    adapters = [{"filePath": str(folder / f"{name}.gguf"), "scale": scale} for name, scale in weights.items()]
    return {"adapters": adapters, "prompt": PROMPT, "n": n}


def assert_same_tokens(bundle: Bundle, folder: Path, mixtures: list[dict[str, float]]) -> None:
    found = answers_of_llama_cpp(folder / "base.gguf", [case(folder, weights) for weights in mixtures])
    wanted = [greedy(bundle, weights) for weights in mixtures]
    assert [answer["prompt"] for answer in found] == [prompt for prompt, _ in wanted]
    assert [answer["tokens"] for answer in found] == [tokens for _, tokens in wanted]
    assert len({tuple(tokens) for _, tokens in wanted}) == len(mixtures)  # or the experts were not tested at all


def test_llama_cpp_gives_the_policys_tokens(bundle: Bundle, tmp_path: Path) -> None:
    export_gguf(bundle, tmp_path, weights=WEIGHTS, number_format="f32")
    assert_same_tokens(bundle, tmp_path, [{}, ONE, WEIGHTS])


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "qwen3"])
def test_other_architectures_too(kind: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[kind]()
    model.config.sliding_window = None
    base = LoadedBase(model, tiny_tokenizer())
    folders = {name: tiny_adapter(model, tmp_path / name, seed=i) for i, name in enumerate("abc")}
    bundle = bundle_on(base, Path(kind), folders)
    (tmp_path / "out").mkdir()
    export_gguf(bundle, tmp_path / "out", number_format="f32")
    assert_same_tokens(bundle, tmp_path / "out", [{}, {"a": 0.6, "b": 0.3, "c": -0.4}])


def test_scales_are_the_weights_in_the_order_of_the_adapters(bundle: Bundle, tmp_path: Path) -> None:
    details = export_gguf(bundle, tmp_path, weights=WEIGHTS)
    scales = json.loads((tmp_path / "scales.json").read_text())
    assert list(details["adapters"]) == list(bundle.experts)
    assert [entry["scale"] for entry in scales["given"]] == pytest.approx([0.7, -0.2, 0.4])
    assert scales["rslora"] == [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}, {"id": 2, "scale": 0.0}]
    assert set(scales) == {*bundle.experts, "uniform", "given"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma"}, r"the base model is of type 'gemma'; supported: llama, mistral, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, r"activation is 'gelu'; supported: 'silu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, r"rope_type is 'yarn'; supported: default"),
    ],
)
def test_what_llama_cpp_would_run_wrongly_is_refused(
    change: dict[str, Any], message: str, bundle: Bundle, tmp_path: Path
) -> None:
    config: Any = bundle.base.model.config
    type(config).__dict__.get("model_type")
    for key, value in change.items():
        object.__setattr__(config, key, value)
    with pytest.raises(ModelMismatchError, match=message):
        export_gguf(bundle, tmp_path)


def test_a_tied_head_with_an_expert_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    expert = bundle.experts["all"]
    head = replace(expert, layers={"lm_head": expert.layers["model.layers.0.self_attn.o_proj"]})
    bundle.base.model.config.tie_word_embeddings = True
    with pytest.raises(ModelMismatchError, match="adapts lm_head, which is tied to the embeddings"):
        export_gguf(replace(bundle, experts={"all": head}), tmp_path)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's and Mistral's are written: BPE over pieces with a mark for spaces, bytes as fallback."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    texts = ["Q: Who goes there?\nA: The one who goes home.", "there is no one home who goes there"] * 4
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=340, special_tokens=special))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def test_a_tokenizer_as_llama_2s_cuts_alike(bundle: Bundle, tmp_path: Path) -> None:
    from tiny import tiny_llama

    tokenizer = sentencepiece_like()
    model = tiny_llama(layers=2, vocab=400)
    base = LoadedBase(model, tokenizer)
    folders = {name: tiny_adapter(model, tmp_path / name, seed=i) for i, name in enumerate("abc")}
    spm = bundle_on(base, Path("spm"), folders)
    (tmp_path / "out").mkdir()
    export_gguf(spm, tmp_path / "out", number_format="f32")
    assert_same_tokens(spm, tmp_path / "out", [{}, {"a": 1.0}])


def test_an_unknown_way_to_cut_a_text_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    parts["model"]["merges"] = [["a", "b"]]
    parts["model"]["vocab"]["ab"] = 256
    parts["added_tokens"] = []
    odd = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(parts)))
    with pytest.raises(ModelMismatchError, match=r"cuts texts in a way llama.cpp has no known name for"):
        read_vocabulary(odd, 300)
    parts["pre_tokenizer"]["use_regex"] = True
    known = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(parts)))
    words = read_vocabulary(known, 300)
    assert (words.model, words.pre, words.merges) == ("gpt2", "gpt-2", ["a b"])
    assert words.tokens[256:258] == ["ab", "[PAD257]"]
