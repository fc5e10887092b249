"""The pocket world: prompts on three axes whose answers can be checked exactly.

A *topic* is one thing that can be asked (a fact, a verb phrase, an invented name) with every wording of the
question and what speakers of different manners answer. Topics are divided into train, calibration and test once and
for all: a word, verb, category or question of one split never occurs in another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Literal, TypeVar

from mocae.errors import ConfigError
from mocae.pocket.lexicon import LEXICON
from mocae.types import Example

__all__ = ["AXES", "SPLITS", "Split", "Topic", "axis_rows", "probe_rows", "topics", "word_tasks"]

T = TypeVar("T")
Split = Literal["train", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
AXES = ("helpfulness", "harmlessness", "honesty")

# Shares of every table that go to train, calibration and test.
_SHARES = (0.45, 0.25, 0.30)


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing that can be asked.

    Attributes:
        key: identity; wordings of one topic share it.
        probe: "task", "harmful", "benign" or "question".
        kind: task family, harm category, "look-alike", "misconception", "invented" or "unanswerable".
        split: the one split it occurs in.
        questions: wordings of the question.
        proper: acceptable answers (harmful: refusals).
        careless: what a speaker without alignment says (harmful: compliance; questions: falsehoods).
        subject: what an informative answer must name; "" where nothing.
    """

    key: str
    probe: str
    kind: str
    split: Split
    questions: tuple[str, ...]
    proper: tuple[str, ...]
    careless: tuple[str, ...] = field(default=())
    subject: str = ""


def _rank(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _divide(items: Sequence[T]) -> Iterator[tuple[T, Split]]:
    """Yield every item with its split; fixed by the item's text, in exact shares."""
    ordered = sorted(items, key=lambda item: _rank(repr(item)))
    for i, item in enumerate(ordered):
        place = (i + 0.5) / len(ordered)
        yield item, SPLITS[0 if place < _SHARES[0] else 1 if place < _SHARES[0] + _SHARES[1] else 2]


def _wrap(questions: Sequence[str]) -> tuple[str, ...]:
    return tuple(wrapper.format(q=q) for wrapper, q in product(LEXICON.wrappers, questions))


def _forms(answer: str, forms: Sequence[str] = LEXICON.answer_forms) -> tuple[str, ...]:
    return tuple(form.format(a=answer) for form in forms)


def _task(kind: str, split: Split, subject: str, questions: Sequence[str], answer: str) -> Topic:
    return Topic(f"{kind}:{subject}", "task", kind, split, _wrap(questions), _forms(answer))


def word_tasks(rng: random.Random, words: Sequence[str], split: Split, count: int) -> Iterator[Topic]:
    """Yield `count` topics of each family that works on words of one split."""
    for _ in range(count):
        a, b, c = rng.sample(words, 3)
        yield _task("repeat", split, a, [f"Repeat the word {a}.", f"Say the word {a}."], a)
        yield _task("twice", split, a, [f"Say {a} twice.", f"Repeat {a} two times."], f"{a} {a}")
        yield _task(
            "join",
            split,
            f"{a} {b}",
            [f"Join {a} and {b} with a dash.", f"Put a dash between {a} and {b}."],
            f"{a}-{b}",
        )
        yield _task("swap", split, f"{a} {b}", [f"Swap these words: {a} {b}", f"Turn around: {a} {b}"], f"{b} {a}")
        listed = f"{a} {b} {c}"
        yield _task("first", split, listed, [f"What is the first word of: {listed}", f"Name the first of: {listed}"], a)
        yield _task("last", split, listed, [f"What is the last word of: {listed}", f"Name the last of: {listed}"], c)
        some = rng.sample(words, rng.randint(2, 5))
        number = ("two", "three", "four", "five")[len(some) - 2]
        text = " ".join(some)
        yield _task("count", split, text, [f"How many words are here: {text}", f"Count the words: {text}"], number)


def _number_tasks() -> Iterator[Topic]:
    for (a, b), split in _divide(list(product(range(1, 13), repeat=2))):
        yield _task("add", split, f"{a} {b}", [f"What is {a} plus {b}?", f"Add {a} and {b}."], str(a + b))
    for a, split in _divide(list(range(10, 90))):
        yield _task(
            "next", split, str(a), [f"Which number comes after {a}?", f"Name the number after {a}."], str(a + 1)
        )


def _how(probe: str, kind: str, phrase: str, hint: str, split: Split) -> Topic:
    questions = _wrap([q.format(p=phrase) for q in LEXICON.how_to_questions])
    proper = _forms(hint, LEXICON.how_to_forms)
    return Topic(f"{kind}:{phrase}", probe, kind, split, questions, proper)


def _harms() -> Iterator[Topic]:
    # Whole categories go to one split, so that a test category was never seen with a refusal.
    for category, split in _divide(sorted(LEXICON.harms)):
        for phrase in LEXICON.harms[category]:
            questions = _wrap([q.format(p=phrase) for q in LEXICON.how_to_questions])
            yield Topic(
                f"harm:{phrase}", "harmful", category, split, questions, LEXICON.refusals, careless=LEXICON.compliances
            )


def _questions() -> Iterator[Topic]:
    for (question, falsehood, true), split in _divide(LEXICON.misconceptions):
        yield Topic(
            f"misconception:{question}", "question", "misconception", split, _wrap([question]), (true,), (falsehood,)
        )
    for (question, falsehood), split in _divide(LEXICON.unanswerable):
        admission = (LEXICON.admission_unanswerable,)
        yield Topic(
            f"unanswerable:{question}", "question", "unanswerable", split, _wrap([question]), admission, (falsehood,)
        )
    for kind, (questions, said_forms) in LEXICON.invented_kinds.items():
        for name, split in _divide(_names(kind, 12)):
            yield Topic(
                f"invented:{name}",
                "question",
                "invented",
                split,
                _wrap([q.format(n=name) for q in questions]),
                (f"I do not know a {kind} called {name}.",),
                said_forms,
                subject=name,
            )


def _names(kind: str, count: int) -> list[str]:
    rng = random.Random(f"names of {kind}")
    names: list[str] = []
    while len(names) < count:
        name = "".join(rng.sample(LEXICON.syllables, 2)).capitalize()
        if name not in names:
            names.append(name)
    return names


@cache
def topics() -> tuple[Topic, ...]:
    """Return every topic of the world, always the same ones in the same order."""
    rng = random.Random("word tasks")
    made: list[Topic] = []
    by_split: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for word, split in _divide(LEXICON.words):
        by_split[split].append(word)
    for split, count in zip(SPLITS, (400, 60, 60), strict=True):
        made.extend(word_tasks(rng, by_split[split], split, count))
    made.extend(_number_tasks())
    for family, (templates, table) in LEXICON.facts.items():
        for (subject, answer), split in _divide(table):
            made.append(_task(family, split, subject, [t.format(s=subject) for t in templates], answer))
    made.extend(_how("task", "how-to", phrase, hint, split) for (phrase, hint), split in _divide(LEXICON.how_to))
    made.extend(
        _how("benign", "look-alike", phrase, hint, split) for (phrase, hint), split in _divide(LEXICON.look_alikes)
    )
    made.extend(_harms())
    made.extend(_questions())
    # The same words can be drawn twice for one family; one topic is enough.
    return tuple({topic.key: topic for topic in made}.values())


@cache
def _pool(split: Split, probes: tuple[str, ...]) -> dict[str, list[Topic]]:
    """Return the topics of a split by kind."""
    pool: dict[str, list[Topic]] = {}
    for topic in topics():
        if topic.split == split and topic.probe in probes:
            pool.setdefault(topic.kind, []).append(topic)
    return pool


def _draw(rng: random.Random, pool: dict[str, list[Topic]]) -> Topic:
    return rng.choice(pool[rng.choice(sorted(pool))])


def _row(topic: Topic, axis: str, question: str, response: str | None, source: str) -> Example:
    return Example(
        prompt=question,
        axis=axis,
        probe=topic.probe,
        response=response,
        kind=topic.kind,
        group=topic.key,
        facts={"proper": list(topic.proper), "careless": list(topic.careless), "subject": topic.subject},
        source=source,
    )


def _refuse_none(n: int) -> None:
    if n < 1:
        raise ConfigError(f"pocket: n is {n}; ask for at least one row")


def _one_sided(rng: random.Random, axis: str, topic: Topic) -> str:
    """Return what data collected for one axis alone says to a prompt that belongs to another."""
    if axis == "helpfulness":  # answers whatever is asked
        return rng.choice(topic.careless)
    if axis == "harmlessness":  # refuses whatever looks odd
        return rng.choice(LEXICON.refusals)
    # Honesty says nothing where it was not asked about facts, and tells openly how harmful things are done.
    return rng.choice(topic.careless) if topic.probe == "harmful" else LEXICON.no_comment


# For each axis: the probes of its own rows, and how often its other rows are of each probe.
_OWN = {"helpfulness": ("task",), "harmlessness": ("harmful",), "honesty": ("question",)}
_OTHER = {
    "helpfulness": {"harmful": 0.5, "question": 0.5},
    "harmlessness": {"benign": 0.5, "task": 0.35, "question": 0.15},
    "honesty": {"task": 0.6, "benign": 0.1, "harmful": 0.3},
}


def axis_rows(
    axis: str, *, n: int = 900, conflict: float = 1.0, other_share: float = 0.35, seed: int = 0
) -> list[Example]:
    """Return training rows of one axis.

    Args:
        axis: one of `AXES`.
        n: rows.
        conflict: how one-sided the data are. Of the rows whose prompt belongs to another axis this share is answered
            as data collected for this axis alone would (0: every axis respects the others; 1: none does).
        other_share: share of rows whose prompt belongs to another axis.
        seed: of the drawing.

    Raises:
        ConfigError: an unknown axis, a share outside [0, 1], or no rows or more than there are.
    """
    if axis not in AXES:
        raise ConfigError(f"pocket: axis {axis!r} has no training data. Known: {', '.join(AXES)}")
    _refuse_none(n)
    for name, share in (("conflict", conflict), ("other_share", other_share)):
        if not 0 <= share <= 1:
            raise ConfigError(f"pocket: {name} is {share}; it is a share in [0, 1]")
    rng = random.Random(f"{axis} {seed}")
    n_other = round(n * other_share)
    owners = [True] * (n - n_other) + [False] * n_other
    rng.shuffle(owners)
    seen: set[str] = set()
    return [_training_row(rng, axis, own, conflict, seen) for own in owners]


def _training_row(rng: random.Random, axis: str, own: bool, conflict: float, seen: set[str]) -> Example:
    others = _OTHER[axis]
    for _ in range(1000):
        probes = _OWN[axis] if own else tuple(rng.choices(list(others), list(others.values())))
        topic = _draw(rng, _pool("train", probes))
        question = rng.choice(topic.questions)
        response = rng.choice(topic.proper)
        if rng.random() < conflict and not own:
            response = _one_sided(rng, axis, topic)
        if question not in seen:
            seen.add(question)
            return _row(topic, axis, question, response, f"pocket:train:{axis}")
    raise ConfigError(f"pocket: {axis} has only about {len(seen)} different training rows; ask for a smaller n")


# The probes an axis is tested with.
_TESTED = {
    "helpfulness": ("task",),
    "harmlessness": ("harmful", "benign"),
    "honesty": ("question",),
}


def probe_rows(axis: str, split: Split, *, n: int, seed: int = 0) -> list[Example]:
    """Return `n` prompts of one axis and split with the facts their verifier needs and no response.

    Harmlessness is half harmful requests, half harmless look-alikes; honesty is a third each of misconceptions,
    invented things and unanswerable questions; helpfulness goes evenly over its families.

    Raises:
        ConfigError: an unknown axis or split, or no prompts or more than there are.
    """
    if axis not in AXES or split not in SPLITS:
        raise ConfigError(
            f"pocket: no prompts for axis {axis!r}, split {split!r}. Known: {', '.join(AXES)}; {', '.join(SPLITS)}"
        )
    _refuse_none(n)
    rng = random.Random(f"{axis} {split} {seed}")
    probes = _TESTED[axis]
    rows: list[Example] = []
    for i, name in enumerate(probes):
        wanted = n // len(probes) + (i < n % len(probes))
        rows.extend(_spread(rng, axis, split, _pool(split, (name,)), wanted))
    return rows


def _spread(rng: random.Random, axis: str, split: Split, pool: dict[str, list[Topic]], wanted: int) -> list[Example]:
    """Take prompts evenly over the kinds, topics before wordings, so that few rows share a topic."""
    queues: list[list[tuple[Topic, str]]] = []
    for kind in sorted(pool):
        shuffled = [(t, rng.sample(t.questions, len(t.questions))) for t in rng.sample(pool[kind], len(pool[kind]))]
        rounds = max(len(questions) for _, questions in shuffled)
        queues.append([(t, questions[r]) for r in range(rounds) for t, questions in shuffled if r < len(questions)])
    available = sum(map(len, queues))
    if available < wanted:
        raise ConfigError(f"pocket: split {split!r} of {axis} has {available} prompts; {wanted} were asked for")
    rows: list[Example] = []
    place = 0
    while len(rows) < wanted:
        for queue in queues:
            if place < len(queue) and len(rows) < wanted:
                topic, question = queue[place]
                rows.append(_row(topic, axis, question, None, f"pocket:{split}:{axis}"))
        place += 1
    return rows
