"""Whether an answer follows the instructions of an IFEval prompt, by the published checks."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from mocae.errors import JudgeError
from mocae.extras import require
from mocae.judges.base import JudgeQuality, Says, unscored
from mocae.progress import say
from mocae.types import Answer, Verdict

__all__ = ["InstructionJudge"]

_TOKENIZED = ("length_constraints:number_sentences", "change_case:capital_word_frequency")
_REMEDY = "run: python -m nltk.downloader punkt_tab"


class InstructionJudge:
    """Judges "follows" (1.0 where all checks of a prompt are met), "checks" (the share that is) and "follows_loose".

    Loose verdicts forgive asterisks and a first or last line, strict ones nothing. The raw text of a verdict names
    every check with what was found. Where one check cannot be made the prompt is unscored: number_sentences and
    capital_word_frequency need NLTK's tokenizer data, and a check whose arguments do not fit, such as the frequency of
    a letter that is none, would be about something drawn at random.

    Raises:
        ConfigError: the package if-verifiable is not installed.

    Reference:
        Zhou et al., *Instruction-Following Evaluation for Large Language Models*, arXiv:2311.07911.

    Deviation:
        Language detection is seeded, so that a verdict is the same every time.
    """

    name = "ifeval"
    judgements = ("follows", "checks", "follows_loose")
    quality: JudgeQuality | None = None
    exact = True

    @classmethod
    def says(cls) -> Says:
        """Return what it can say: its three judgements where a prompt has checks."""
        return lambda example: cls.judgements if "checks" in example.facts else ()

    def __init__(self) -> None:
        require("if_verifiable", for_what="judge 'ifeval'")
        import nltk

        try:
            nltk.data.find("tokenizers/punkt_tab/english/")
        except LookupError:
            say(f"judge ifeval: no tokenizer data, so prompts with {' or '.join(_TOKENIZED)} stay unscored; {_REMEDY}")

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return the three verdicts on each answer whose example has checks, {} for the others."""
        return [self._one(answer) if "checks" in answer.example.facts else {} for answer in answers]

    def _one(self, answer: Answer) -> dict[str, Verdict]:
        try:
            found = [(c["check"], *_found(answer, c["check"], c["arguments"])) for c in answer.example.facts["checks"]]
        except Exception as error:  # a pattern, tokenizer data or a language that the checks cannot read
            return dict.fromkeys(self.judgements, unscored(error, judge=self.name))
        strict, loose = [s for _, s, _ in found], [each for _, _, each in found]
        raw = json.dumps([{"check": check, "strict": s, "loose": each} for check, s, each in found])

        def verdict(share: float, label: str) -> Verdict:
            return Verdict(share, label, self.name, raw)

        return {
            "follows": verdict(float(all(strict)), "all met" if all(strict) else "not all met"),
            "checks": verdict(sum(strict) / len(strict), f"{sum(strict)} of {len(strict)}"),
            "follows_loose": verdict(float(all(loose)), "all met" if all(loose) else "not all met"),
        }


def _found(answer: Answer, check: str, arguments: dict[str, Any]) -> tuple[bool, bool]:
    """Return whether a check is met, strictly and loosely; nothing said meets none.

    Raises:
        JudgeError: it cannot be made.
    """
    import langdetect
    from if_verifiable.common import evaluate_instructions
    from if_verifiable.ifeval import INSTRUCTION_DICT

    if check not in INSTRUCTION_DICT:
        raise JudgeError(f"check {check!r} is unknown to if-verifiable")
    if not answer.text.strip():
        return False, False
    langdetect.DetectorFactory.seed = 0
    before = random.getstate()
    try:
        (result,), _ = evaluate_instructions(answer.text, [check], [arguments], answer.example.prompt, INSTRUCTION_DICT)
    except LookupError as error:
        if check not in _TOKENIZED:
            raise
        raise JudgeError(f"{check} needs tokenizer data; {_REMEDY}") from error
    if random.getstate() != before:
        random.setstate(before)
        raise JudgeError(f"{check}: its arguments {arguments} do not fit, and the check drew others at random")
    return result.strict_pass, result.loose_pass
