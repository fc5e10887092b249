"""Fixed importance weights from inner products with a reference vector."""

from __future__ import annotations

import math

import pytest

from mocae.errors import ConfigError
from mocae.merging import TaskVector, importance

Vectors = dict[str, TaskVector]


def test_the_reference_is_a_setting(vectors: Vectors) -> None:
    a, b, c = (vectors[name] for name in "abc")
    three = {name: vectors[name] for name in "abc"}
    others = importance(three, reference="others", normalise="none")
    assert others["a"] == pytest.approx((a.inner(b) + a.inner(c)) / 2)
    mean = importance(three, reference="mean", normalise="none")
    assert mean["b"] == pytest.approx((b.inner(a) + b.inner(b) + b.inner(c)) / 3)
    given = importance(three, reference=vectors["twin"], normalise="none")
    assert given == {name: vector.inner(vectors["twin"]) for name, vector in three.items()}
    assert list(given) == ["a", "b", "c"]


def test_normalisations(vectors: Vectors) -> None:
    reference = vectors["a"] + vectors["b"]
    raw = importance(vectors, reference=reference, normalise="none")
    summed = importance(vectors, reference=reference, normalise="sum")
    assert summed == {name: pytest.approx(value / sum(raw.values())) for name, value in raw.items()}
    soft = importance(vectors, reference=reference, normalise="softmax", temperature=2.0)
    powers = {name: math.exp(value / 2) for name, value in raw.items()}
    assert soft == {name: pytest.approx(power / sum(powers.values())) for name, power in powers.items()}
    cosine = importance(vectors, reference=reference, normalise="cosine")
    assert cosine == {
        name: pytest.approx(raw[name] / (vector.norm() * reference.norm())) for name, vector in vectors.items()
    }


def test_what_has_no_meaning_is_refused(vectors: Vectors) -> None:
    a = vectors["a"]
    with pytest.raises(ConfigError, match="at least one task vector"):
        importance({}, reference="mean", normalise="none")
    with pytest.raises(ConfigError, match="received 'a' alone"):
        importance({"a": a}, reference="others", normalise="softmax")
    with pytest.raises(ConfigError, match=r"not above 0.*use normalise 'softmax'"):
        importance({"a": a, "minus": -a}, reference="others", normalise="sum")
    with pytest.raises(ConfigError, match=r"temperature 0.0"):
        importance({"a": a}, reference="mean", normalise="softmax", temperature=0.0)
