"""Dense task vectors, for tests that compare low-rank algebra with plain matrices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mocae.merging import Delta


def all_dense(delta: Delta, like: Delta) -> dict[str, Tensor]:
    """Return the dense change at every linear of `like`, 0 where `delta` has none."""
    return {m: delta.dense(m) if m in delta.modules else torch.zeros(like.shape(m)) for m in like.modules}


def assert_same(one: Delta, two: Delta | Mapping[str, Tensor]) -> None:
    """Compare two changes at every linear that one of them has."""
    if isinstance(two, Mapping):
        assert set(one.modules) == set(two)
        other = dict(two)
    else:
        other = {m: two.dense(m) if m in two.modules else torch.zeros(one.shape(m)) for m in one.modules}
        assert all(not two.dense(m).any() for m in two.modules if m not in one.modules)
    for module in one.modules:
        torch.testing.assert_close(one.dense(module), other[module], atol=1e-6, rtol=1e-5)
