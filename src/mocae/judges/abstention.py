"""Whether an answer admits that it has none: "nobody knows", "I don't know", "I cannot do that as a language model"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mocae.axes import wants_judgement
from mocae.judges.base import JudgeQuality, Says, judge_each
from mocae.judges.refusal import states_refusal
from mocae.types import Answer, Verdict

__all__ = ["AbstentionJudge", "abstains"]

_OPENING = 400
"""Characters in which an answer says what it is; later doubts are remarks."""

_ADMITS = re.compile(
    r"\b(?:i|we) (?:do not|don't|cannot|can't|could not|couldn't) (?:really |possibly )?"
    r"(?:know|say|tell|be sure|answer)\b"
    r"|\b(?:i'm|i am) (?:not sure|unsure|not certain|uncertain)\b"
    r"|\b(?:no ?one|nobody) (?:really |actually |truly )?(?:knows|can (?:know|say|tell))\b"
    r"|\b(?:it|this|that)(?:'s| is| remains) (?:\w+ly )?"
    r"(?:unknown|unclear|uncertain|impossible|not (?:known|possible|clear)"
    r"|a matter of (?:opinion|debate|belief)|subjective|up for debate|unanswerable)\b"
    r"|\b(?:there is|there's) no (?:\w+ )?(?:definitive|definite|single|clear|known|scientific|certain|correct|way)\b"
    r"|\b(?:cannot|can't) be (?:known|determined|answered|predicted|proven)\b"
    r"|\b(?:i have|there is) no (?:comment|idea|information|access|way|evidence)\b"
    r"|\b(?:not|nothing) (?:something )?that can be (?:known|determined|answered)\b|\bopen question\b"
    r"|\bdoes not exist\b|\bno known\b"
    r"|\bas an? (?:ai|language model|assistant)\b[^.]{0,60}\b(?:cannot|can't|do not|don't|unable|lack)\b|\bdepends on\b"
)


class AbstentionJudge:
    """Judges "abstains" on questions with and without an answer; 1.0 yes, 0.0 no. English only.

    It reads words of not knowing in the first sentences and language of refusal. docs/judges.md has its agreement with
    200 labelled answers.

    Reference:
        Yin et al., *SelfAware*, arXiv:2305.18153, section 4.2.

    Deviation:
        There, sentences are compared with examples of uncertainty by an embedding model; here by patterns.
    """

    name = "abstention"
    judgements = ("abstains",)
    quality: JudgeQuality | None = None

    @classmethod
    def says(cls) -> Says:
        """Return what it can say: "abstains" of probes that ask for it."""
        return lambda example: cls.judgements if wants_judgement(example.probe, "abstains") else ()

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return "abstains" for each answer to a question with or without answer, {} for the others."""
        return judge_each(answers, self._one, judge=self.name, judgement="abstains")

    def _one(self, answer: Answer) -> Verdict | None:
        if not wants_judgement(answer.example.probe, "abstains"):
            return None
        holds = abstains(answer.text)
        return Verdict(float(holds), "abstains" if holds else "answers")


def abstains(text: str) -> bool:
    """Return whether a text admits to have no answer; an empty one says nothing and so does.

    >>> abstains("Nobody knows what lies beyond."), abstains("It is Paris.")
    (True, False)
    """
    if not text.strip():
        return True
    opening = text[:_OPENING].lower().replace("\u2019", "'")
    return _ADMITS.search(opening) is not None or states_refusal(text)
