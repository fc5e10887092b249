from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
import torch

from mocae.errors import MocaeError
from mocae.policies import Steering
from mocae.ui import Answer, Question, Talk


def last(talk: Talk, *questions: Question) -> list[Answer]:
    *_, answers = talk.answers(questions)
    return answers


def test_two_systems_at_once_answer_as_each_alone(talk: Talk) -> None:
    router, base = Question("alignx", "who?"), Question("base", "who?")
    together = last(talk, router, base)
    for one, alone in zip(together, [*last(talk, router), *last(talk, base)], strict=True):
        assert (one.text, one.reason) == (alone.text, alone.reason)
        assert one.weights == pytest.approx(alone.weights, abs=1e-5)  # a pass over two rows rounds otherwise
    assert together[0].text != together[1].text
    assert together[1].weights == {"helpful": 0, "harmless": 0, "honest": 0}


def test_an_answer_grows_to_its_end(talk: Talk) -> None:
    seen = [answers[0] for answers in talk.answers([Question("alignx", "who?")])]
    assert all(after.text.startswith(before.text) for before, after in itertools.pairwise(seen))
    assert [answer.reason for answer in seen[:-1]] == [None] * (len(seen) - 1)
    assert seen[-1].reason is not None
    assert seen[0].weights == seen[-1].weights


def test_steering_changes_the_weights_and_earlier_turns_are_read(talk: Talk) -> None:
    question = Question("alignx", "who?")
    [plain] = last(talk, question)
    [without] = last(talk, replace(question, steering=Steering.of(at_most={"helpful": 0.0})))
    assert plain.weights is not None
    assert without.weights is not None
    assert plain.weights["helpful"] > 0 == without.weights["helpful"]
    assert sum(without.weights.values()) == pytest.approx(1)
    assert without.why is not None
    assert plain.why is not None
    torch.testing.assert_close(without.why.chances, plain.why.chances)  # the router's own, before steering
    for axis in ("helpful", "harmless", "honest"):
        [expert] = last(talk, Question(f"expert:{axis}", "who?"))
        for words in ({"at_least": {axis: 1.0}}, {"prefer": {axis: 1e6}}):
            [end] = last(talk, replace(question, steering=Steering.of(**words)))
            assert (end.text, end.weights) == (expert.text, expert.weights)
    [later] = last(talk, replace(question, before=[("what?", "that")]))
    assert later.weights != plain.weights


def test_the_parts_add_up_to_the_chances(talk: Talk) -> None:
    [answer] = last(talk, Question("alignx", "who?"))
    why = answer.why
    assert why is not None
    known = (why.features + why.geometry + why.semantics).sigmoid()
    assert (why.chances <= known + 1e-6).all()  # lowered where the prompt is novel
    assert answer.weights is not None
    favourite = max(answer.weights, key=answer.weights.__getitem__)
    assert why.axes[int(why.chances.argmax())] == favourite
    assert why.plane.here.shape == (2,)
    assert [cloud.shape for cloud in why.plane.clouds] == [(20, 2)] * 3
    assert last(talk, Question("base", "who?"))[0].why is None


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("alingx", "who?"), "Did you mean 'alignx'"),
        (Question("alignx", "x" * 300), "the model's context is 256 tokens"),
        (Question("alignx", " "), r"messages\[0\] is empty"),
        (Question("alignx", "who?", steering=Steering.of(at_least={"honesty": 0.5})), "unknown expert 'honesty'"),
    ],
)
def test_what_cannot_be_asked(talk: Talk, question: Question, message: str) -> None:
    with pytest.raises(MocaeError, match=message):
        last(talk, question)


def test_an_answer_nobody_waits_for_is_given_up(talk: Talk) -> None:
    answers = talk.answers([Question("alignx", "who?"), Question("base", "who?")])
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    until = time.monotonic() + 5
    while talk.engine.n_running or talk.engine.n_waiting:
        assert time.monotonic() < until
        time.sleep(0.005)
