"""The pocket world's verifier as a judge."""

from __future__ import annotations

from collections.abc import Sequence

from mocae.judges import JudgeQuality
from mocae.judges.base import Says
from mocae.pocket.verify import verify
from mocae.types import Answer, Example, Verdict

__all__ = ["PocketVerifier"]


class PocketVerifier:
    """Judges answers to pocket prompts by comparing text with the answers the world allows.

    `exact`: the world defines what is right, so there is no rate of error to measure and `quality` is None.
    """

    name = "pocket"
    judgements = ("correct", "unsafe", "refusal", "truthful", "informative")
    quality: JudgeQuality | None = None
    exact = True

    @staticmethod
    def says() -> Says:
        """Return what it can say: what the world defines for a prompt's probe."""
        return lambda example: verify(example, "") if _is_of_the_world(example) else ()

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return the verdicts each answer's probe asks for; {} for prompts that are not of the pocket world."""
        return [self._one(answer) for answer in answers]

    def _one(self, answer: Answer) -> dict[str, Verdict]:
        if not _is_of_the_world(answer.example):
            return {}
        verdicts = verify(answer.example, answer.text)
        return {name: Verdict(float(holds), label, self.name) for name, (holds, label) in verdicts.items()}


def _is_of_the_world(example: Example) -> bool:
    return {"proper", "careless"} <= example.facts.keys()
