"""On bases of every odd kind: what is trained is what is asked, and evaluated = `reply` = served = streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from mocae.bank import ExpertBank
from mocae.evaluation import Generation, answer_all
from mocae.experts import inject
from mocae.models import LoadedBase, load_base
from mocae.pipelines.artifact import AlignedModel
from mocae.policies import Mixture
from mocae.prompts import FORMATS, chat_text, row_tokens
from mocae.serving import Delta, Engine, Finished, Request, Sampling
from mocae.serving.conversation import Turn, conversation_tokens
from mocae.types import Example
from odd_bases import ODD, write_odd
from reading_policy import ReadingPolicy
from serving_for_tests import TinyArtifact
from tiny import BOS, tiny_adapter, tiny_llama

SYSTEM, FIRST, ANSWER, SECOND = "Be kind.", "Who goes there?", "Me.", "And what else, if anything at all?"
ONE = [("system", SYSTEM), ("user", FIRST)]
TWO = [*ONE, ("assistant", ANSWER), ("user", SECOND)]
NEW = 12
CLOSED = ("opens a thought", "hybrid", "several templates")


class Earlier:
    """Writes a prompt as the second turn of the conversation."""

    def __init__(self, form: str) -> None:
        self.form = form

    def format_prompt(self, prompt: str, *, injection: str | None, tokenizer: Any = None) -> str:
        if self.form == "plain":
            return f"{SYSTEM}\nQ: {FIRST}\nA: {ANSWER}\nQ: {prompt}\nA:"
        turns = [*TWO[:-1], ("user", prompt)]
        return chat_text(tokenizer, [{"role": role, "content": text} for role, text in turns])

    def format_response(self, response: str) -> str:
        return response


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, model = tmp_path_factory.mktemp("experts"), tiny_llama()
    return {name: tiny_adapter(model, root / name, seed=i, layers_to_transform=[2, 3]) for i, name in enumerate("ab")}


@pytest.fixture(params=ODD)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str, tmp_path: Path, adapters: dict[str, Path]) -> Iterator[AlignedModel]:
    base = load_base(write_odd(ODD[name], tmp_path), dtype="fp32", device="cpu", **ODD[name].said)
    bank = ExpertBank.attach(base.model, adapters)
    form = "plain" if ODD[name].template is None else "chat"
    artifact = TinyArtifact(Mixture(base, bank, ReadingPolicy(2, experts=2)), FORMATS.get(form))
    artifact.max_new_tokens = NEW
    yield AlignedModel(artifact, "alignx")
    bank.detach()


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """Return what every `generate` from here on writes, row by row."""
    made: list[list[list[int]]] = []
    generate = LoadedBase.generate

    def keep(self: LoadedBase, input_ids: torch.Tensor, **more: Any) -> torch.Tensor:
        out = generate(self, input_ids, **more)
        made.append(out[:, input_ids.shape[1] :].tolist())
        return out

    monkeypatch.setattr(LoadedBase, "generate", keep)
    return made


def _tokens(model: AlignedModel, turns: list[tuple[str, str]]) -> list[int]:
    written = [Turn(role, text) for role, text in turns]  # type: ignore[arg-type]
    return conversation_tokens(written, prompt_format=model.artifact.prompt_format, tokenizer=model.tokenizer)


def test_evaluated_is_reply_is_served_is_streamed(
    name: str, model: AlignedModel, generated: list[list[list[int]]]
) -> None:
    for turns in (ONE, TWO):
        generated.clear()
        _compare(name, model, generated, turns)
        _whole(name, model, turns)


def _compare(name: str, model: AlignedModel, generated: list[list[list[int]]], turns: list[tuple[str, str]]) -> None:
    mixture, prompt = model.artifact.mixture, turns[-1][1]
    base, form = mixture.base, cast(Any, model.artifact.prompt_format)
    if turns is not ONE:
        form = Earlier("plain" if ODD[name].template is None else "chat")
    others = ["A much longer prompt, so that the others are padded beside it.", "B"]
    rows = [Example(text, "a", "task") for text in (prompt, *others)]
    settings = Generation(max_new_tokens=NEW)
    instructed = mixture.using()
    instructed.injection = SYSTEM
    [evaluated, *_], _ = answer_all(instructed, rows, prompt_format=form, generation=settings, label="")
    batch, order = generated.pop(), sorted(range(3), key=lambda i: (len(rows[i].prompt), i))
    tokens = batch[order.index(0)]
    wanted = tokens[: base.description.length(tokens)]

    reply = model.reply([{"role": role, "content": text} for role, text in turns])
    [[again]] = generated
    assert again[: base.description.length(again)] == wanted
    request = Request(_tokens(model, turns), mixture.policy, NEW, strip=True, stream=True, top_logprobs=0)
    with Engine(mixture) as engine:
        *deltas, done = engine.stream(request)
    assert isinstance(done, Finished)
    assert [one.token for one in done.logprobs] == wanted
    assert [one.token for delta in deltas if isinstance(delta, Delta) for one in delta.logprobs] == wanted
    assert evaluated.text == reply.text == done.text
    assert done.reason == ("stop" if len(wanted) < NEW else "length")
    assert evaluated.n_tokens == done.n_tokens


def _whole(name: str, model: AlignedModel, turns: list[tuple[str, str]]) -> None:
    """Check that a prompt has all its words and no end, and that a trained row is this prompt with one end."""
    tokenizer = model.tokenizer
    tokens = _tokens(model, turns)
    text = tokenizer.decode(tokens)
    assert not text.endswith("<eos>")
    assert tokens.count(BOS) == int(tokens[0] == BOS) == int(ODD[name].bos)
    assert all(words in text for _, words in turns)
    assert text.index(SYSTEM) < text.index(FIRST)
    assert ("<think>" in text) == ("</think>" in text) == (name in CLOSED)
    if turns is ONE:
        row = Example(FIRST, "a", "task", response=ANSWER)
        [pair] = inject(
            [row], {"a": SYSTEM}, rate=1.0, prompt_format=model.artifact.prompt_format, tokenizer=tokenizer, seed=0
        )
        asked, said = row_tokens(tokenizer, pair["prompt"], pair["completion"])
        assert asked == tokens
        assert said[-1] == tokenizer.eos_token_id
        assert said.count(tokenizer.eos_token_id) == 1


def test_a_request_that_samples_is_not_drawn_by_the_models_own_settings(
    tmp_path: Path, adapters: dict[str, Path]
) -> None:
    texts = []
    for name in ("sampled by default", "repetition penalty, pad ends"):
        odd = ODD[name]
        base = load_base(write_odd(odd, tmp_path / name[:4]), dtype="fp32", device="cpu")
        bank = ExpertBank.attach(base.model, adapters)
        mixture = Mixture(base, bank, ReadingPolicy(2, experts=2))
        tokens = base.tokenizer("Who?").input_ids
        with Engine(mixture) as engine:
            asked = Request(tokens, mixture.policy, NEW, Sampling(temperature=0.7, seed=1))
            texts.append(engine.answer(asked).text)
        config = base.model.generation_config
        assert (config.temperature, config.top_k, config.repetition_penalty) == (None, None, None)
        bank.detach()
    assert texts[0] != texts[1]  # the penalty acts in sampled answers too
