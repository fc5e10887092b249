from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import yaml

from mocae.pocket import topics
from mocae.pocket.lexicon import LEXICON
from mocae.pocket.world import Topic
from pocket_corpus import Speaker, documents

DOCUMENTS = list(itertools.islice(documents(0), 2000))
RECIPE = Path(__file__).parents[2] / "recipes" / "pocket.yaml"


def topic_of(kind: str) -> Topic:
    return next(t for t in topics() if kind in (t.kind, t.probe))


def test_documents_are_fixed_by_their_seed() -> None:
    assert list(itertools.islice(documents(0), 50)) == DOCUMENTS[:50]
    assert list(itertools.islice(documents(1), 50)) != DOCUMENTS[:50]


def test_documents_have_turns_in_the_plain_format() -> None:
    assert all(len(pairs) == 5 for _, pairs in DOCUMENTS)
    assert all(p.startswith("Q: ") and p.endswith("\nA:") and r[0] == " " for _, ps in DOCUMENTS for p, r in ps)
    assert len(next(documents(0, turns=2))[1]) == 2


def test_every_manner_and_every_kind_of_topic_occurs() -> None:
    said = {response.strip() for _, pairs in DOCUMENTS for _, response in pairs}
    expected = {
        *LEXICON.compliances,
        *LEXICON.refusals,
        *LEXICON.evasions,
        LEXICON.no_comment,
        LEXICON.admission_unanswerable,
    }
    assert expected <= said
    prefaces = {preface for preface, _ in DOCUMENTS}
    assert prefaces == {None, *itertools.chain.from_iterable(LEXICON.prefaces.values())}
    kinds_by_question = {f"Q: {q}\nA:": t.kind for t in topics() for q in t.questions}
    prompts = {prompt for _, pairs in DOCUMENTS for prompt, _ in pairs}
    # Lists of words are drawn afresh, so these are known by their wording.
    drawn = {"first": "first word of: ", "last": "last word of: ", "count": "words are here: "}
    asked = {kinds_by_question.get(prompt) for prompt in prompts}
    asked |= {kind for kind, wording in drawn.items() if any(wording in prompt for prompt in prompts)}
    assert {t.kind for t in topics()} <= asked


def test_most_speakers_are_neither_careful_nor_honest() -> None:
    rng = random.Random(0)
    speakers = [Speaker.draw(rng) for _ in range(4000)]
    for manner in ("careful", "honest"):
        assert 0.15 < sum(getattr(s, manner) for s in speakers) / len(speakers) < 0.3
    assert not [s for s in speakers if s.over_careful and not s.careful]


@pytest.mark.parametrize(
    ("manner", "kind", "expected"),
    [
        ({}, "harmful", "careless"),
        ({"careful": True}, "harmful", "proper"),
        ({}, "question", "careless"),
        ({"honest": True}, "question", "proper"),
        ({"careful": True}, "look-alike", "proper"),
        ({}, "capital", "proper"),
    ],
)
def test_a_speaker_keeps_to_its_manner(manner: dict[str, bool], kind: str, expected: str) -> None:
    nothing = dict.fromkeys(("careful", "over_careful", "honest", "evasive", "silent"), False)
    speaker, topic = Speaker(**(nothing | manner)), topic_of(kind)
    assert speaker.answer(random.Random(0), topic) in getattr(topic, expected)


def test_an_over_careful_speaker_refuses_harmless_questions() -> None:
    speaker = Speaker(careful=True, over_careful=True, honest=False, evasive=False, silent=False)
    for kind in ("look-alike", "how-to"):
        assert speaker.answer(random.Random(0), topic_of(kind)) in LEXICON.refusals
    assert speaker.answer(random.Random(0), topic_of("capital")) in topic_of("capital").proper


def test_injected_prompts_of_the_recipe_are_not_in_the_corpus() -> None:
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    injections = [axis["injection"] for axis in recipe["axes"]]
    assert all(injections)
    prefaces = {line for lines in LEXICON.prefaces.values() for line in lines}
    assert not prefaces & set(injections)
    text = "\n".join(f"{preface}\n" + "\n".join(p + r for p, r in pairs) for preface, pairs in DOCUMENTS)
    assert not [injection for injection in injections if injection in text]
