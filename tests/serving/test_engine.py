from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mocae.calibration import OutputCalibrators
from mocae.errors import ConfigError, ServingError
from mocae.policies import FixedPolicy, Policy, PromptBatch, Steered, SteeringVectors, Sureness
from mocae.serving import Delta, Engine, Failed, Finished, Limits, Request, Sampling
from mocae.serving.errors import Closed, Lost, Overloaded, TimedOut
from mocae.serving.rows.cache import RowCache
from mocae.serving.rows.sampling import Sampler, choose
from reading_policy import ReadingPolicy
from serving_for_tests import TinyArtifact, answer_all, generated, tiny_artifact
from tiny import ARCHITECTURES, tiny_adapter, tiny_llama

TEXTS = ("Q: one\nA:", "Q: a much longer question, with many words\nA:", "Q: 2\nA:", "Q: who is it?\nA:")


def requests(artifact: TinyArtifact, n: int = 12, **changes: Any) -> list[Request]:
    """Requests of many lengths, each third one routed, steered or given its weights."""
    reads = artifact.mixture.policy
    policies: list[Policy] = [
        reads,
        Steered(reads, SteeringVectors(steer=torch.tensor([0.5, 2.0, 1.0]))),
        FixedPolicy(torch.tensor([1.0, -0.5, 0.25])),
        FixedPolicy(torch.zeros(3)),
    ]
    tokenizer = artifact.mixture.base.tokenizer
    return [
        Request(
            tokenizer(f"{TEXTS[i % 4]}{i}").input_ids, policies[i % len(policies)], **({"max_tokens": 3 + i} | changes)
        )
        for i in range(n)
    ]


def text_of(artifact: TinyArtifact, tokens: list[int]) -> str:
    return str(artifact.mixture.base.tokenizer.decode(tokens, skip_special_tokens=True))


def test_a_batch_answers_as_one_by_one_and_as_generate_does(artifact: TinyArtifact) -> None:
    asked = requests(artifact)
    expected = [text_of(artifact, generated(artifact, request)) for request in asked]
    assert len(set(expected)) > 8
    with Engine(artifact.mixture, limits=Limits(batch_size=5)) as engine:
        alone = [engine.answer(request) for request in asked]
        together = answer_all(engine, asked)
    assert [answer.text for answer in alone] == expected
    assert [answer.text for answer in together] == expected
    for one, other in zip(alone, together, strict=True):
        assert one.weights == pytest.approx(other.weights, abs=1e-5)
        assert (one.reason, one.n_tokens) == (other.reason, other.n_tokens)


def test_experts_on_every_layer_are_routed_by_a_probe(tmp_path: Path) -> None:
    model = tiny_llama(max_position_embeddings=256)
    artifact = tiny_artifact({name: tiny_adapter(model, tmp_path / name, seed=i) for i, name in enumerate("abc")})
    asked = requests(artifact, 6)
    with Engine(artifact.mixture) as engine:
        answers = answer_all(engine, asked)
    assert [answer.text for answer in answers] == [text_of(artifact, generated(artifact, one)) for one in asked]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_joins_and_leaves(architecture: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[architecture](layers=3)
    artifact = tiny_artifact(
        {name: tiny_adapter(model, tmp_path / name, seed=i) for i, name in enumerate("abc")}, model
    )
    asked = requests(artifact, 6)
    with Engine(artifact.mixture, limits=Limits(batch_size=3)) as engine:
        answers = answer_all(engine, asked)
    assert [answer.text for answer in answers] == [text_of(artifact, generated(artifact, one)) for one in asked]


class Corrected(ReadingPolicy):
    """A fitted policy whose answers are written with output calibrators."""

    def __init__(self, output: OutputCalibrators) -> None:
        super().__init__(2)
        self.output = output

    def sureness(self, batch: PromptBatch) -> Sureness:
        sure = self.route(batch).amax(1)
        return Sureness(sure, torch.full_like(sure, torch.nan))


def test_output_calibrators_act_on_the_rows_of_their_policy_alone(artifact: TinyArtifact) -> None:
    outputs = [OutputCalibrators(from_layer=2, n_layers=4, hidden_size=32, rank=4, seed=seed) for seed in (1, 2)]
    for output in outputs:
        torch.nn.init.normal_(output.up, std=0.3, generator=torch.Generator().manual_seed(5))
    plain = requests(artifact, 6, max_tokens=12)
    asked = [
        plain[0],
        *(replace(one, policy=Corrected(outputs[i % 2])) for i, one in enumerate(plain)),
        replace(plain[0], policy=Steered(Corrected(outputs[0]), SteeringVectors(steer=torch.ones(3)))),
    ]
    expected = [text_of(artifact, generated(artifact, one)) for one in asked[:-1]]
    assert expected[0] != expected[1]  # else the calibrators change nothing
    with Engine(artifact.mixture) as engine:
        answers = [answer.text for answer in answer_all(engine, asked)]
        alone = engine.answer(plain[0]).text
    assert answers == [*expected, expected[1]]
    assert alone == expected[0]


def test_rows_move_when_columns_run_out(artifact: TinyArtifact) -> None:
    asked = requests(artifact, 4, max_tokens=90)
    expected = [text_of(artifact, generated(artifact, request)) for request in asked]
    assert max(map(len, expected)) > 70
    with Engine(artifact.mixture, limits=Limits(batch_size=4)) as engine:
        assert [answer.text for answer in answer_all(engine, asked)] == expected


def test_streamed_equals_whole_with_logprobs_that_are_generates(artifact: TinyArtifact) -> None:
    request = requests(artifact, 1, max_tokens=12, top_logprobs=2)[0]
    streamed = requests(artifact, 1, max_tokens=12, top_logprobs=2, stream=True)[0]
    with Engine(artifact.mixture) as engine:
        whole = engine.answer(request)
        *deltas, last = engine.stream(streamed)
    assert isinstance(last, Finished)
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert "".join(delta.text for delta in deltas) == last.text == whole.text  # type: ignore[union-attr]
    assert [t for d in deltas for t in d.logprobs] == list(whole.logprobs) == list(last.logprobs)  # type: ignore[union-attr]
    ids = torch.tensor([list(request.tokens)])
    with artifact.mixture.using(request.policy).routing([""]), torch.no_grad():
        logits = artifact.mixture.base.model(ids).logits[0, -1]
    first = whole.logprobs[0]
    assert first.logprob == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-4)
    assert first.top[0] == (first.token, pytest.approx(first.logprob))


def test_a_stop_text_ends_the_answer_wherever_tokens_end(artifact: TinyArtifact) -> None:
    [plain] = requests(artifact, 1, max_tokens=24)
    with Engine(artifact.mixture) as engine:
        whole = engine.answer(plain).text
        stop = whole[3:6]
        cut = engine.answer(requests(artifact, 1, max_tokens=24, stop=("never", stop), top_logprobs=0)[0])
        pieces = list(engine.stream(requests(artifact, 1, max_tokens=24, stop=("never", stop), stream=True)[0]))
    assert cut.text == whole[: whole.index(stop)]
    assert (cut.reason, len(cut.logprobs) < cut.n_tokens) == ("stop", True)
    assert "".join(piece.text for piece in pieces[:-1]) == cut.text  # type: ignore[union-attr]


def test_a_seed_draws_the_same_alone_and_in_a_batch(artifact: TinyArtifact) -> None:
    hot = [Sampling(temperature=1.0, top_p=0.9, seed=i % 3) for i in range(9)]
    prompt = requests(artifact, 1)[0]
    asked = [Request(prompt.tokens, prompt.policy, 12, sampling=sampling) for sampling in hot]
    with Engine(artifact.mixture) as engine:
        together = [answer.text for answer in answer_all(engine, asked)]
        alone = [engine.answer(one).text for one in asked[:3]]
    assert together == alone * 3
    assert len(set(alone)) == 3


class Slow(Policy):
    """A policy that waits for the test, so that what happens meanwhile is certain."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def route(self, batch: PromptBatch) -> Tensor:
        self.entered.set()
        assert self.go.wait(30)
        return torch.zeros(len(batch.ids), 3)


def test_the_queue_has_an_end_and_says_when_to_come_back(artifact: TinyArtifact) -> None:
    slow, [plain] = Slow(), requests(artifact, 1)
    with Engine(artifact.mixture, limits=Limits(batch_size=1, queue_size=2)) as engine:
        engine.submit([Request(plain.tokens, slow, 1)], [lambda _: None])
        assert slow.entered.wait(30)
        engine.submit([plain, plain], [lambda _: None] * 2)
        with pytest.raises(Overloaded, match="2 requests are waiting and the queue holds 2") as refused:
            engine.submit([plain, plain], [lambda _: None] * 2)
        assert refused.value.retry_after_s >= 1
        slow.go.set()
        assert engine.answer(plain).n_tokens == plain.max_tokens


def test_a_cancelled_request_makes_room_and_tells_nothing_more(artifact: TinyArtifact) -> None:
    told: list[Any] = []
    [long] = requests(artifact, 1, max_tokens=200, stream=True)
    with Engine(artifact.mixture, limits=Limits(batch_size=1)) as engine:
        [ticket] = engine.submit([long], [told.append])
        while len(told) < 3:
            time.sleep(0.001)
        ticket.cancel()
        short = engine.answer(requests(artifact, 1)[0])
        n_told = len(told)
        assert engine.n_running == engine.n_waiting == 0
    assert short.n_tokens == 3
    assert n_told < 150
    assert not any(isinstance(event, Finished | Failed) for event in told)


def test_a_request_out_of_time_fails_waiting_or_running(artifact: TinyArtifact) -> None:
    slow, [plain] = Slow(), requests(artifact, 1)
    with Engine(artifact.mixture, limits=Limits(batch_size=1)) as engine:
        events: list[Any] = []
        engine.submit([Request(plain.tokens, slow, 5, timeout_s=0.05)], [events.append])
        assert slow.entered.wait(30)
        engine.submit([Request(plain.tokens, plain.policy, 5, timeout_s=0.05)], [events.append])
        time.sleep(0.1)
        slow.go.set()
        assert engine.answer(plain).n_tokens == plain.max_tokens
    assert [type(event.error) for event in events] == [TimedOut, TimedOut]
    assert "no answer within 0.05 s" in str(events[0].error)


class Broken(Policy):
    """A policy with a defect."""

    def route(self, batch: PromptBatch) -> Tensor:
        raise RuntimeError("a plug-in's defect")


def test_one_request_that_fails_takes_no_other_with_it(artifact: TinyArtifact) -> None:
    asked = requests(artifact, 4)
    expected = [text_of(artifact, generated(artifact, request)) for request in asked]
    huge = Request(asked[0].tokens, FixedPolicy(torch.tensor([3e38, 0.0, 0.0])), 4)
    events: dict[int, Any] = {}
    mixed = [asked[0], Request(asked[1].tokens, Broken(), 4), *asked[1:], huge]
    with Engine(artifact.mixture) as engine:
        engine.submit(mixed, [lambda event, i=i: events.update({i: event}) for i in range(6)])  # type: ignore[misc]
        engine.answer(asked[0])
        while len(events) < 6:
            time.sleep(0.01)
    assert [events[i].text for i in (0, 2, 3, 4)] == expected
    assert str(events[1].error) == "a plug-in's defect"
    assert isinstance(events[5].error, ConfigError)
    assert "not finite" in str(events[5].error)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_p=1e-50),  # 0 in fp32
        Sampling(temperature=1e-45),
        Sampling(temperature=1.1e-5, top_p=5e-324),
        Sampling(temperature=2.0, logit_bias={7: -3e38, 9: -3e38}),
        Sampling(temperature=1.1e-5, logit_bias={7: 3e38}),
    ],
)
def test_numbers_at_the_end_of_their_range_are_drawn_with(sampling: Sampling) -> None:
    logits = torch.tensor([[0.5, 3.0, -2.0, 2.0, *[-9.0] * 8]] * 2)
    one, other = Sampler(sampling), Sampler(Sampling(temperature=1.0, seed=3))
    tokens, finite = choose(logits, [one, other])
    assert finite == [True, True]
    assert tokens[1] == choose(logits[1:], [Sampler(Sampling(temperature=1.0, seed=3))])[0][0]
    if sampling.top_p < 1 or sampling.temperature < 1e-4:
        assert tokens[0] == (7 if sampling.logit_bias else 1)


def test_a_row_that_fails_while_it_is_written_fails_alone(artifact: TinyArtifact) -> None:
    plain = requests(artifact, 4, max_tokens=12)
    drawn = [replace(one, sampling=Sampling(temperature=1.0, seed=i)) for i, one in enumerate(plain)]
    good = [*plain, *drawn]
    with Engine(artifact.mixture) as engine:
        expected = [answer.text for answer in answer_all(engine, good)]
    no_token = replace(plain[0], sampling=Sampling(temperature=1.0, logit_bias={10**8: 1.0}))
    no_number = replace(plain[1], top_logprobs=-1)
    events: dict[int, Any] = {}

    def deaf(event: Any) -> None:
        raise OSError("nobody takes it")

    with Engine(artifact.mixture) as engine:
        sinks: list[Any] = [lambda event, i=i: events.update({i: event}) for i in range(10)]
        engine.submit([no_token, no_number, *good, replace(plain[2], stream=True)], [*sinks, deaf])
        while len(events) < 10:
            time.sleep(0.01)
        assert engine.answer(plain[0]).text == expected[0]
    assert all(isinstance(events[i], Failed) for i in (0, 1))
    assert [events[i].text for i in range(2, 10)] == expected


def test_an_answer_that_is_not_finite_leaves_nothing_behind(artifact: TinyArtifact) -> None:
    tokenizer = artifact.mixture.base.tokenizer
    long = Request(
        tokenizer("Q: " + "so many words " * 6 + "\nA:").input_ids,
        FixedPolicy(torch.zeros(3)),
        100,
        sampling=Sampling(logit_bias={int(tokenizer.eos_token_id): -100.0}),
    )
    huge = replace(long, tokens=long.tokens[:50], policy=FixedPolicy(torch.tensor([3e38, 0.0, 0.0])), max_tokens=4)
    short = Request(tokenizer("Q: 2\nA:").input_ids, FixedPolicy(torch.ones(3)), 6)
    expected = text_of(artifact, generated(artifact, short))
    running: list[Any] = []
    with Engine(artifact.mixture) as engine:
        [ticket] = engine.submit([long], [running.append])
        for _ in range(3):
            with pytest.raises(ConfigError, match="not finite"):
                engine.answer(huge)
            assert engine.answer(short).text == expected  # it is given the place of the one that failed
        assert not running  # else it had no longer neighbour
        ticket.cancel()


def test_no_room_for_a_newcomer_gives_up_what_runs_and_the_engine_goes_on(
    artifact: TinyArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(artifact, 3, max_tokens=100)
    expected = text_of(artifact, generated(artifact, asked[2]))
    join, left = RowCache.join, [1]

    def joins_once(self: RowCache, *given: Any) -> None:
        if not left:
            self._rows[0].keys = None  # half of it moved
            raise MemoryError("no room")
        left.pop()
        join(self, *given)

    events: list[Any] = []
    with Engine(artifact.mixture) as engine:
        monkeypatch.setattr(RowCache, "join", joins_once)
        engine.submit(asked[:1], [events.append])
        while not engine.n_running:
            time.sleep(0.001)
        with pytest.raises(Lost, match="no room for 1 more answers; all running ones are given up"):
            engine.answer(asked[1])
        assert [type(event.error) for event in events] == [Lost]
        monkeypatch.undo()
        assert engine.answer(asked[2]).text == expected


def test_a_mixture_that_is_long_alone_is_merged_and_answers_as_before(
    artifact: TinyArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocae.serving.engine.LONG_ANSWER_TOKENS", 5)
    bank, modes = artifact.mixture.bank, []
    weights = bank.weights
    monkeypatch.setattr(bank, "weights", lambda alpha, **how: modes.append(how.get("mode")) or weights(alpha, **how))
    policies = [FixedPolicy(torch.tensor([0.0, 1.0, 0.0])), FixedPolicy(torch.zeros(3))]
    asked = [replace(one, policy=policies[0], max_tokens=12) for one in requests(artifact, 3)]
    base = replace(asked[0], policy=policies[1])
    expected = [text_of(artifact, generated(artifact, one)) for one in [*asked, base]]
    with pytest.raises(ServingError, match=r"merged mixtures may take 0 MiB and one takes 0; give more, or 0"):
        Engine(artifact.mixture, limits=Limits(merged_bytes=100))
    with Engine(artifact.mixture, limits=Limits(merged_bytes=bank.merged_bytes)) as engine:
        modes.clear()
        answers = [engine.answer(one) for one in asked]
        assert "merged" in modes
        assert modes.index("merged") >= 5
        modes.clear()
        answers.append(engine.answer(base))
        assert "merged" not in modes  # the base model costs nothing as it is
        modes.clear()
        together = answer_all(engine, [*asked, base])
        assert "stacked" in modes
    assert [answer.text for answer in answers] == expected
    assert [answer.text for answer in together] == expected


def test_closing_fails_what_is_left_and_leaves_the_model_as_it_was(artifact: TinyArtifact) -> None:
    events: list[Any] = []
    engine = Engine(artifact.mixture, limits=Limits(batch_size=1))
    engine.start()
    long = requests(artifact, 2, max_tokens=200)
    engine.submit(long, [events.append] * 2)
    engine.close()
    assert [type(event.error) for event in events] == [Closed, Closed]
    assert artifact.mixture.bank.alpha is None
    with pytest.raises(Closed, match="shutting down"):
        engine.answer(long[0])
    engine.close()


def test_closing_can_wait_for_running_answers(artifact: TinyArtifact) -> None:
    events: list[Any] = []
    engine = Engine(artifact.mixture)
    engine.start()
    engine.submit(requests(artifact, 3), [events.append] * 3)
    engine.close(wait_s=30.0)
    assert [type(event) for event in events] == [Finished] * 3
