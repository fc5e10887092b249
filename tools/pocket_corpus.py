"""Documents the pocket base model is trained on: the whole world, told by speakers of mixed behaviour.

Every document has one speaker, whose manner holds for all its answers, so a model learns manners as well as facts:
it knows how to refuse and how to tell the truth, but without a hint it answers as most speakers do.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from mocae.pocket.lexicon import LEXICON
from mocae.pocket.world import Topic, topics, word_tasks
from mocae.prompts import FORMATS

__all__ = ["Speaker", "documents"]

# How often a question of each probe is asked, and how often a speaker has each manner. Minorities are large enough to
# be learned and small enough that the most likely answer of an unprompted model is the unaligned one.
_PROBE_SHARES = {"task": 0.47, "benign": 0.09, "harmful": 0.17, "question": 0.27}
_WORD_TASK_SHARE = 0.55
_CAREFUL, _OVER_CAREFUL, _HONEST, _EVASIVE, _SILENT = 0.22, 0.4, 0.22, 0.06, 0.04
_PREFACE = 0.12


@dataclass(frozen=True, slots=True)
class Speaker:
    """The manner of one document's speaker."""

    careful: bool
    over_careful: bool
    honest: bool
    evasive: bool
    silent: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Speaker:
        """Return a speaker drawn from the mixture."""
        careful = rng.random() < _CAREFUL
        return cls(
            careful=careful,
            over_careful=careful and rng.random() < _OVER_CAREFUL,
            honest=rng.random() < _HONEST,
            evasive=rng.random() < _EVASIVE,
            silent=rng.random() < _SILENT,
        )

    def answer(self, rng: random.Random, topic: Topic) -> str:
        """Return what this speaker says to a question about `topic`."""
        if self.silent:
            return LEXICON.no_comment
        if self.evasive:
            return rng.choice(LEXICON.evasions)
        if topic.probe == "harmful":
            return rng.choice(topic.proper if self.careful else topic.careless)
        if topic.probe == "question":
            return rng.choice(topic.proper if self.honest else topic.careless)
        if self.over_careful and (topic.probe == "benign" or topic.kind == "how-to"):
            return rng.choice(LEXICON.refusals)
        return rng.choice(topic.proper)

    def preface(self, rng: random.Random) -> str:
        """Return a line that fits this speaker's manner."""
        fitting = [name for name in ("careful", "honest") if getattr(self, name)] or ["eager", "careless"]
        return rng.choice(LEXICON.prefaces[rng.choice(fitting)])


def _ask(rng: random.Random, by_kind: dict[str, dict[str, list[Topic]]]) -> Topic:
    probe = rng.choices(list(_PROBE_SHARES), list(_PROBE_SHARES.values()))[0]
    if probe == "task" and rng.random() < _WORD_TASK_SHARE:
        return rng.choice(list(word_tasks(rng, LEXICON.words, "train", 1)))
    kinds = by_kind[probe]
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def documents(seed: int, *, turns: int = 5) -> Iterator[tuple[str | None, list[tuple[str, str]]]]:
    """Yield documents without end: an optional preface and `turns` pairs of formatted prompt and response."""
    rng = random.Random(f"corpus {seed}")
    plain = FORMATS.get("plain")
    by_kind: dict[str, dict[str, list[Topic]]] = {}
    for topic in topics():
        # Word tasks are drawn afresh from all words, so that no pair is memorised.
        if topic.kind not in ("repeat", "twice", "join", "swap", "first", "last", "count"):
            by_kind.setdefault(topic.probe, {}).setdefault(topic.kind, []).append(topic)
    while True:
        speaker = Speaker.draw(rng)
        preface = speaker.preface(rng) if rng.random() < _PREFACE else None
        pairs = []
        for _ in range(turns):
            topic = _ask(rng, by_kind)
            prompt = plain.format_prompt(rng.choice(topic.questions), injection=None)
            pairs.append((prompt, plain.format_response(speaker.answer(rng, topic))))
        yield preface, pairs
