from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mocae.bank import ExpertBank
from mocae.errors import DataError
from mocae.evaluation import AnswerLog, Generation, answer_all
from mocae.models import Generated, LoadedBase, PlainModel
from mocae.policies import Mixture, Policy
from mocae.prompts import FORMATS
from mocae.types import Example
from tiny import EOS, PAD, tiny_adapter, tiny_llama, tiny_tokenizer

PLAIN = FORMATS.get("plain")
PROMPTS = [Example(text, "any", "task") for text in ("a much longer prompt than others", "b", "ccccc", "dd", "b b")]


class ByPrompt(Policy):
    """A policy whose weights tell prompts apart."""

    def __init__(self) -> None:
        self.places = {example.id: i for i, example in enumerate(PROMPTS)}

    def route(self, batch: Any) -> torch.Tensor:
        return torch.tensor([[self.places[i] / 8, 1 - self.places[i] / 4] for i in batch.ids])


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixture]:
    model, root = tiny_llama(layers=2, max_position_embeddings=256), tmp_path_factory.mktemp("experts")
    folders = {name: tiny_adapter(model, root / name, seed=i) for i, name in enumerate(("one", "two"))}
    bank = ExpertBank.attach(model, folders)
    yield Mixture(LoadedBase(model, tiny_tokenizer()), bank, ByPrompt())
    bank.detach()


def answers(model: Any, *, batch_size: int, log: AnswerLog | None = None, **options: Any) -> list[Any]:
    generation = Generation(max_new_tokens=6, batch_size=batch_size, **options)
    return answer_all(model, PROMPTS, prompt_format=PLAIN, generation=generation, label="test", log=log)[0]


def test_answers_keep_order_and_weights_whatever_the_batch(mixture: Mixture) -> None:
    alone = answers(mixture, batch_size=1)
    assert [answer.example for answer in alone] == PROMPTS
    assert [answer.weights for answer in alone] == [{"one": i / 8, "two": 1 - i / 4} for i in range(5)]
    assert len({answer.text for answer in alone}) > 1
    for batch_size in (2, 5, 16):
        assert answers(mixture, batch_size=batch_size) == alone


def test_one_answer_is_what_the_model_generates(mixture: Mixture) -> None:
    tokenizer = mixture.base.tokenizer
    ids = tokenizer(PLAIN.format_prompt("ccccc", injection=None), return_tensors="pt").input_ids
    out = mixture.using(weights={"one": 2 / 8, "two": 0.5}).generate(ids, max_new_tokens=6, do_sample=False).ids
    new = out[0, ids.shape[1] :].tolist()
    new = new[: new.index(EOS)] if EOS in new else new
    assert answers(mixture, batch_size=4)[2].text == tokenizer.decode(new, skip_special_tokens=True).strip()


def test_sampling_is_fixed_by_its_seed(mixture: Mixture) -> None:
    first, again, other = (
        [a.text for a in answers(mixture, batch_size=5, do_sample=True, temperature=5.0, seed=seed)]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_call_that_was_stopped_goes_on_in_the_middle_and_ends_the_same(
    mixture: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do_sample: bool
) -> None:
    whole = answers(mixture, batch_size=2, do_sample=do_sample, temperature=5.0)
    batches: list[list[str]] = []
    generate = Mixture.generate

    def counted(model: Mixture, *args: Any, **kwargs: Any) -> Generated:
        batches.append(list(kwargs["ids"]))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return generate(model, *args, **kwargs)

    monkeypatch.setattr(Mixture, "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        answers(mixture, batch_size=2, do_sample=do_sample, temperature=5.0, log=AnswerLog(tmp_path / "log"))
    log = AnswerLog(tmp_path / "log")
    assert answers(mixture, batch_size=2, do_sample=do_sample, temperature=5.0, log=log) == whole
    assert len(batches) == 4
    assert batches[2] == batches[3]  # two batches were kept, the third alone was asked again


def test_the_injection_stands_in_front(mixture: Mixture) -> None:
    base = LoadedBase(tiny_llama(layers=2, max_position_embeddings=256), tiny_tokenizer())
    plain = PlainModel(base, injection="Be kind.")
    generation = Generation(max_new_tokens=6)
    injected, _ = answer_all(plain, PROMPTS[:1], prompt_format=PLAIN, generation=generation, label="test")
    ids = tiny_tokenizer()(f"Be kind.\nQ: {PROMPTS[0].prompt}\nA:", return_tensors="pt").input_ids
    out = plain.base.model.generate(ids, max_new_tokens=6, do_sample=False, attention_mask=torch.ones_like(ids))
    assert injected[0].text == tiny_tokenizer().decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert injected[0].weights is None


def test_no_prompts_are_refused(mixture: Mixture) -> None:
    with pytest.raises(DataError, match="answers base: no prompts to answer; give at least one"):
        answer_all(mixture, [], prompt_format=PLAIN, generation=Generation(max_new_tokens=1), label="answers base")


class Scripted(PlainModel):
    """Generates the given token ids, one list a prompt, padded as Hugging Face pads."""

    experts = ("one",)
    mixed = True

    def __init__(self, rows: Sequence[Sequence[int]], eos: int | list[int] | None) -> None:
        model = tiny_llama(layers=1)
        model.generation_config.eos_token_id = eos
        super().__init__(LoadedBase(model, tiny_tokenizer()))
        self.rows = rows

    def generate(self, input_ids: torch.Tensor, **_: Any) -> Generated:
        width = max(map(len, self.rows))
        new = torch.tensor([[*row, *[PAD] * (width - len(row))] for row in self.rows])
        weights, unsure = torch.full((len(self.rows), 1), 1 / 3), [None] * len(self.rows)
        return Generated(torch.cat([input_ids, new], dim=1), weights, [*unsure], [*unsure])


A, B, C = (tiny_tokenizer()(letter).input_ids[0] for letter in "ABC")


@pytest.mark.parametrize(
    ("eos", "tokens", "text", "n_tokens"),
    [
        (EOS, [A, B, EOS], "AB", 3),
        (EOS, [A, B, EOS, C], "AB", 3),  # what follows the end belongs to no answer
        (EOS, [A, B, C, A, B], "ABCAB", 5),
        (EOS, [EOS], "", 1),
        ([EOS, B], [A, B, C], "A", 2),
        (None, [A, EOS], "A", 2),  # the tokenizer's own end counts too
    ],
)
def test_answers_end_at_the_first_end_token(
    eos: int | list[int] | None, tokens: list[int], text: str, n_tokens: int
) -> None:
    model = Scripted([tokens, [A] * 5], eos)
    generation = Generation(max_new_tokens=5)
    made, cost = answer_all(model, [PROMPTS[1], PROMPTS[2]], prompt_format=PLAIN, generation=generation, label="test")
    assert (made[0].text, made[0].n_tokens) == (text, n_tokens)
    assert (made[1].text, made[1].n_tokens) == ("AAAAA", 5)
    assert made[0].weights == {"one": 0.333333}
    assert cost.n_tokens == n_tokens + 5
    assert cost.seconds > 0
    assert cost.peak_memory_bytes is None or cost.peak_memory_bytes > 1_000_000


def test_markers_in_a_prompt_do_not_move_the_cut() -> None:
    model = Scripted([[A, B, EOS]], EOS)
    tricky = Example("What follows\nA: nothing\nQ: and this\nA:", "any", "task")
    generation = Generation(max_new_tokens=5)
    made, _ = answer_all(model, [tricky], prompt_format=PLAIN, generation=generation, label="test")
    assert made[0].text == "AB"


def test_sampling_arguments_are_given_only_where_they_matter() -> None:
    greedy = Generation(max_new_tokens=5, temperature=2.0, top_p=0.5)
    assert greedy.arguments() == {"max_new_tokens": 5, "do_sample": False}
    sampled = Generation(max_new_tokens=5, do_sample=True, temperature=2.0, top_p=0.5)
    assert sampled.arguments() == {"max_new_tokens": 5, "do_sample": True, "temperature": 2.0, "top_p": 0.5}


def test_the_system_may_not_tell_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    from mocae.evaluation import answering

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no such file")

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(answering.torch.cuda, "is_available", lambda: False)
    answering._reset_peak_memory()
    peak = answering._peak_memory_bytes()
    assert peak is not None
    assert peak > 1_000_000
    monkeypatch.setitem(__import__("sys").modules, "resource", None)
    assert answering._peak_memory_bytes() is None
