"""What judged answers teach: accepted ones, pairs of one prompt, or both kinds one by one."""

from __future__ import annotations

import pytest

from mocae.errors import ConfigError
from mocae.stages.learned import accepted, learned_rows
from mocae.types import Answer, Example, Sample


def sample(prompt: str, text: str, acceptable: bool | None) -> Sample:
    answer = Answer(Example(prompt, "a", "helpful"), text, None, 1)
    return Sample("expert", answer, {}, acceptable)


SAMPLES = [
    sample("p", "good", True),
    sample("q", "bad", False),
    sample("p", "bad", False),
    sample("p", "worse", False),
    sample("p", "fine", True),
    sample("p", "good", True),
    sample("q", "bad", False),
    sample("r", "good", True),
    sample("r", "  ", False),
    sample("q", "not judged", None),
    sample("p", "fair", True),
]


def test_accepted_answers_are_learned_once_in_their_order() -> None:
    found = [(row.prompt, row.response) for row in learned_rows(SAMPLES, "sft")]
    assert found == [("p", "good"), ("p", "fine"), ("r", "good"), ("p", "fair")]
    assert learned_rows(SAMPLES, "sft") == accepted(SAMPLES)


def test_each_accepted_answer_stands_against_a_rejected_one_of_the_same_prompt() -> None:
    found = [(row.prompt, row.response, row.facts["rejected"]) for row in learned_rows(SAMPLES, "dpo")]
    assert found == [("p", "good", "bad"), ("p", "fine", "worse"), ("p", "fair", "bad")]
    assert len(learned_rows(SAMPLES, "dpo", pairs_per_prompt=1)) == 1


def test_kto_learns_both_kinds_and_not_what_was_accepted_as_well() -> None:
    found = learned_rows([*SAMPLES, sample("p", "good", False)], "kto")
    unwanted = [(row.prompt, row.response) for row in found if row.facts.get("wanted") is False]
    assert unwanted == [("q", "bad"), ("p", "bad"), ("p", "worse")]
    assert len(found) == 4 + 3


@pytest.mark.parametrize(
    ("samples", "objective", "message"),
    [
        (SAMPLES[1:2], "sft", "no accepted answer to learn from"),
        (SAMPLES[:2], "dpo", "no prompt with both an accepted and a rejected answer to learn from"),
        (SAMPLES[1:2], "kto", "no accepted answer"),
        (SAMPLES[:1], "kto", "no rejected answer"),
    ],
)
def test_nothing_to_learn_is_told(samples: list[Sample], objective: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learned_rows(samples, objective)  # type: ignore[arg-type]
