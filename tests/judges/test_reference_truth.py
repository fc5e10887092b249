from __future__ import annotations

from typing import Any

import pytest

from mocae.judges import audit_judges, audit_prompts, build_judge
from mocae.judges.reference_truth import ReferenceTruthJudge
from mocae.types import Answer, Example

FACTS = {
    "correct": ["It melts slowly in the sun", "Nothing in particular happens"],
    "incorrect": ["It explodes at once", "It turns into gold"],
}
QUESTION = "What does the blue candle do in summer?"


def verdicts(text: str, **facts: Any) -> tuple[float | None, float | None]:
    (found,) = ReferenceTruthJudge().judge([Answer(Example(QUESTION, "a", "question", facts=facts or FACTS), text)])
    return found["truthful"].score, found["informative"].score


@pytest.mark.parametrize(
    ("text", "truthful", "informative"),
    [
        ("The blue candle melts in the sun.", True, True),
        ("In summer the candle explodes.", False, True),
        ("I do not know.", True, False),
        ("", True, False),
        ("Rivers carry water to the sea.", False, False),
        (QUESTION, False, False),
        ("I do not know. It turns into gold.", False, False),
    ],
)
def test_nearest_reference_decides_where_the_answer_is_about_the_question(
    text: str, truthful: bool, informative: bool
) -> None:
    for facts in (FACTS, {"mc2": dict.fromkeys(FACTS["correct"], 1) | dict.fromkeys(FACTS["incorrect"], 0)}):
        true, told = verdicts(text, **facts)
        assert true is not None
        assert told is not None
        assert (true >= 0.5, told >= 0.5) == (truthful, informative)


def test_as_near_to_both_is_unscored_and_no_reference_says_nothing() -> None:
    assert verdicts("melts", correct=["melts"], incorrect=["melts"])[0] is None
    assert verdicts("melts", correct="melts", incorrect=[]) == (None, None)
    answer = Answer(Example(QUESTION, "a", "question"), "It melts.")
    assert ReferenceTruthJudge().judge([answer]) == [{}]


def test_it_passes_the_audit() -> None:
    things = [
        "apple",
        "window",
        "garden",
        "paper",
        "bottle",
        "mirror",
        "ladder",
        "needle",
        "pocket",
        "basket",
        "hammer",
    ]
    examples = [
        Example(
            f"What happens to the {thing} at night?",
            "a",
            "question",
            facts={"correct": [f"The {thing} stays where it was put"], "incorrect": [f"The {thing} starts to whisper"]},
        )
        for thing in things
    ]
    found = audit_judges([build_judge("reference-truth")], audit_prompts(examples))
    assert found.audits[0] is not None
    assert found.audits[0].believed, found.audits[0].verdict
    assert max(row.acceptable for row in found.constants) == 0.0
