from __future__ import annotations

import pytest
import torch

from mocae.policies import named_weights


def test_a_sum_of_1_is_told_without_the_rounding_of_the_number_format() -> None:
    assert named_weights(["a", "b"], torch.tensor([1.0000001, 0.0])) == {"a": 1.0, "b": 0.0}
    third = torch.full((3,), 1 / 3, dtype=torch.bfloat16)
    assert named_weights("abc", torch.full((3,), 1 / 3)) == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=1e-9)
    assert sum(named_weights("abc", third).values()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.5, -0.25], [0.25, 0.5], [2.0, 1.0]])
def test_other_weights_are_told_as_they_are(values: list[float]) -> None:
    assert list(named_weights(["a", "b"], torch.tensor(values)).values()) == values
