"""Exports that hold one mixture: loaded back by the library they are for, logits are the policy's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from export_for_tests import WEIGHTS, bundle_on, logits
from mocae.bank import ExpertBank, load_peft
from mocae.errors import ConfigError, ModelMismatchError
from mocae.export import (
    Bundle,
    export_gguf,
    export_lorax,
    export_merged,
    export_peft,
    export_vllm,
    merged_adapters,
    prove_export,
    whole_folder,
    write_manifest,
)
from mocae.export.card import export_card
from mocae.models import load_base
from mocae.pipelines.export import export
from tiny import random_ids, tiny_adapter, with_peft

IDS = random_ids(2, 7)


def policy_logits(bundle: Bundle, weights: dict[str, float]) -> torch.Tensor:
    bank = ExpertBank.attach(bundle.base.model, bundle.experts)
    with bank.weights(torch.tensor([weights.get(name, 0.0) for name in bundle.experts])):
        found = logits(bundle.base.model, IDS)
    bank.detach()
    return found


def test_one_lora_in_peft_has_the_policys_logits(bundle: Bundle, tmp_path: Path) -> None:
    wanted, plain = policy_logits(bundle, WEIGHTS), logits(bundle.base.model, IDS)
    details = export_peft(bundle, tmp_path, weights=WEIGHTS)
    assert (wanted - plain).abs().max() > 0.1
    assert (logits(with_peft(bundle.base.model, tmp_path), IDS) - wanted).abs().max() < 1e-4
    assert details["relative_error"] == 0.0
    assert details["rank"] == 4 + 5  # where all and pattern meet


def test_a_cut_rank_tells_its_error(bundle: Bundle, tmp_path: Path) -> None:
    wanted, errors = policy_logits(bundle, WEIGHTS), []
    for rank in (2, 6, 12):
        details = export_peft(bundle, tmp_path / str(rank), weights=WEIGHTS, rank=rank)
        cut = logits(with_peft(bundle.base.model, tmp_path / str(rank)), IDS)
        errors.append((details["relative_error"], float((cut - wanted).abs().max())))
    assert errors[0][0] > errors[1][0] > errors[2][0]
    assert errors[0][1] > errors[2][1]
    assert errors[2][1] < 1e-4


def test_merged_folder_is_a_model_of_its_own(bundle: Bundle, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in bundle.base.model.state_dict().items()}
    wanted = policy_logits(bundle, WEIGHTS)
    export_merged(bundle, tmp_path, weights=WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert (logits(model, IDS) - wanted).abs().max() < 1e-4
    assert AutoTokenizer.from_pretrained(tmp_path)("abc").input_ids == bundle.base.tokenizer("abc").input_ids
    assert all(torch.equal(before[name], tensor) for name, tensor in bundle.base.model.state_dict().items())


def lorax_linear(folder: Path, request: dict[str, object]) -> dict[str, torch.Tensor]:
    """What LoRAX's `linear` strategy makes of adapters: lora_A and lora_B summed apart, each by the weight."""
    a: dict[str, torch.Tensor] = {}
    b: dict[str, torch.Tensor] = {}
    for name, weight in zip(request["ids"], request["weights"], strict=True):  # type: ignore[call-overload]
        for module, pair in load_peft(folder / "adapters" / name).layers.items():
            assert pair.scaling == 1.0
            a[module] = a.get(module, 0) + weight * pair.A
            b[module] = b.get(module, 0) + weight * pair.B
    return {module: b[module] @ a[module] for module in a}


def test_loraxs_linear_sum_is_exact(bundle: Bundle, tmp_path: Path) -> None:
    export_lorax(bundle, tmp_path, weights=WEIGHTS)
    deltas = lorax_linear(tmp_path, merged_adapters(WEIGHTS)["merged_adapters"])
    wanted: dict[str, torch.Tensor] = {}
    for name, expert in bundle.experts.items():
        for module, pair in expert.layers.items():
            wanted[module] = wanted.get(module, 0) + WEIGHTS[name] * pair.delta()
    assert deltas.keys() == wanted.keys()
    for module, delta in deltas.items():
        torch.testing.assert_close(delta, wanted[module], atol=1e-6, rtol=1e-5)
    assert {p.name for p in (tmp_path / "requests").iterdir()} == {
        f"{name}.json" for name in (*WEIGHTS, "uniform", "given")
    }


@pytest.mark.parametrize("write", [export_peft, export_merged])
def test_weights_are_needed_and_must_name_experts(write: object, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs --weights, one number an expert, as in --weights all=0\.33"):
        write(bundle, tmp_path, weights=None)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"unknown expert 'rsLora'.*Did you mean 'rslora'"):
        write(bundle, tmp_path, weights={"rsLora": 1.0})  # type: ignore[operator]
    with pytest.raises(ConfigError, match="all are 0, which is the base model"):
        write(bundle, tmp_path, weights={"all": 0.0})  # type: ignore[operator]
    with pytest.raises(ConfigError, match="beyond 1000 an expert drowns the base model"):
        write(bundle, tmp_path, weights={"all": -1e38})  # type: ignore[operator]


def test_an_export_into_the_artifact_is_refused(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "experts" / "x", tmp_path / "new" / ".." / "peft"):
        with pytest.raises(ConfigError, match="lies inside the artifact"):
            export(tmp_path, to="merged", out=out)


def test_a_model_that_is_not_finite_is_not_written(bundle: Bundle, tmp_path: Path) -> None:
    bundle.base.model.half()
    for pair in bundle.experts["all"].layers.values():
        pair.B.mul_(1e6)
    with pytest.raises(ConfigError, match=r"is not finite in torch.float16; give smaller ones"):
        export_merged(bundle, tmp_path, weights={"all": 1000.0})
    assert list(tmp_path.iterdir()) == []


def test_a_tied_head_cannot_be_merged(bundle: Bundle, tmp_path: Path) -> None:
    model = bundle.base.model
    head = load_peft(tiny_adapter(model, tmp_path / "head", targets=("lm_head",)), name="head")
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    tied = Bundle(bundle.base, "tiny", None, "0", "plain", {"head": head})
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelMismatchError, match="tied to another module"):
        export_merged(tied, tmp_path / "out", weights={"head": 1.0})


HALF = {"one": 0.5}
WRITERS: dict[str, Callable[[Bundle, Path], dict[str, Any]]] = {
    "peft": lambda bundle, folder: export_peft(bundle, folder, weights=HALF),
    "merged": lambda bundle, folder: export_merged(bundle, folder, weights=HALF),
    "vllm": lambda bundle, folder: export_vllm(bundle, folder, alpha=torch.eye(3), n_mixtures=2),
    "lorax": export_lorax,
    "gguf": export_gguf,
}


@pytest.fixture(scope="module")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Experts on the embedded base model, which other libraries do not know by its name."""
    root, base = tmp_path_factory.mktemp("pocket"), load_base("pocket", dtype="fp32", device="cpu")
    adapters = {
        name: tiny_adapter(base.model, root / name, seed=seed, targets=("v_proj",))
        for seed, name in enumerate(("one", "two", "three"))
    }
    return bundle_on(base, Path("pocket"), adapters)


def test_a_folder_called_like_the_embedded_base_takes_nothing_from_it(
    pocket: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket").mkdir()  # as `mocae run pocket --out pocket` leaves one
    (tmp_path / "export").mkdir()
    assert pocket.place_base(tmp_path / "export") == "base"
    assert (tmp_path / "export" / "base" / "config.json").is_file()
    assert load_base("pocket", device="cpu").model.config.model_type == "llama"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT reads what is deprecated
@pytest.mark.parametrize("to", WRITERS)
def test_an_export_of_the_embedded_base_loads_as_its_card_says(to: str, pocket: Bundle, tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        manifest = write_manifest(folder, pocket, to=to, details=WRITERS[to](pocket, folder))
    card = export_card(manifest)
    assert "base_model: pocket" not in card
    text = re.search(r"```text\n(.*?)\n```", card, flags=re.DOTALL)
    template = re.search(r"```jinja\n(.*?)\n```", card, flags=re.DOTALL)
    assert text is not None
    assert template is not None
    asked = [{"role": "user", "content": "Who?"}]
    rendered = pocket.base.tokenizer.apply_chat_template(
        asked, chat_template=template[1], tokenize=False, add_generation_prompt=True
    )
    assert rendered.removeprefix(str(pocket.base.tokenizer.bos_token)) == text[1].replace("PROMPT", "Who?")
    assert text[1] == "Q: PROMPT\nA:"
    code = re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)
    if code:
        names: dict[str, Any] = {}
        exec(code[1].replace("path/to/this/folder", str(tmp_path / "out")), names)
        assert names["answer"].dim() == 1  # it has answered a question
        assert names["tokenizer"]("abc").input_ids == pocket.base.tokenizer("abc").input_ids
        with_expert = logits(names["model"].float(), IDS)
        assert (with_expert - logits(pocket.base.model, IDS)).abs().max() > 1e-3
    assert bool(code) is (to in ("peft", "merged"))
    for config in (tmp_path / "out").rglob("adapter_config.json"):
        named = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
        assert AutoConfig.from_pretrained(tmp_path / "out" / named).model_type == "llama"


def _peft(bundle: Bundle, folder: Path, size: float) -> None:
    export_peft(_scaled(bundle, size), folder, weights={"all": 1.0})


def _merged(bundle: Bundle, folder: Path, size: float) -> None:
    export_merged(_scaled(bundle, size), folder, weights={"all": 1.0})


def _lorax(bundle: Bundle, folder: Path, size: float) -> None:
    export_lorax(_scaled(bundle, size), folder)


def _gguf(bundle: Bundle, folder: Path, size: float) -> None:
    export_gguf(_scaled(bundle, size), folder)


def _scaled(bundle: Bundle, size: float) -> Bundle:
    experts = {
        name: replace(expert, layers={m: replace(pair, B=size * pair.B) for m, pair in expert.layers.items()})
        for name, expert in bundle.experts.items()
    }
    return replace(bundle, experts=experts)


@pytest.mark.parametrize("write", [_peft, _merged, _lorax, _gguf])
def test_an_export_in_which_experts_do_not_act_is_refused(bundle: Bundle, tmp_path: Path, write: Any) -> None:
    plain = logits(bundle.base.model, IDS)
    for size, folder in ((1.0, tmp_path / "acts"), (0.0, tmp_path / "base" / "idle")):  # wherever it lies
        folder.mkdir(parents=True)
        write(bundle, folder, size)
        with nullcontext() if size else pytest.raises(ModelMismatchError, match="changes nothing"):
            prove_export(bundle, folder)
    assert torch.equal(logits(bundle.base.model, IDS), plain)  # the base model is as before
