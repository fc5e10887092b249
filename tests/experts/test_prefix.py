from __future__ import annotations

import pytest
import torch

from mocae.errors import ConfigError
from mocae.experts import Pool, PrefixPool, pool_hidden

POOLS: tuple[Pool, ...] = ("mean", "last", "mean+last")
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


def states() -> torch.Tensor:
    hidden = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    hidden[0, :2] = torch.nan  # what stands at padding is nobody's business
    return hidden


@pytest.mark.parametrize("pool", POOLS)
def test_a_token_is_read_as_a_prompt_that_ends_there(pool: Pool) -> None:
    hidden = states()
    found = PrefixPool(pool).update(hidden, MASK)
    assert found.isfinite().all()
    for end in range(1, 7):
        expected = pool_hidden(hidden[:, :end], MASK[:, :end], pool=pool)
        for row in range(2):
            if MASK[row, end - 1]:
                torch.testing.assert_close(found[row, end - 1], expected[row], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_in_several_passes_it_is_the_same(pool: Pool) -> None:
    whole = PrefixPool(pool).update(states(), MASK)
    parts = PrefixPool(pool)
    found = [parts.update(states()[:, :3], MASK[:, :3])]
    found += [parts.update(states()[:, i : i + 1], MASK[:, i : i + 1], n_before=i) for i in range(3, 6)]
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(parts.update(states(), MASK), whole, atol=1e-6, rtol=1e-6)  # and starts anew


def test_a_cache_it_has_not_read_is_refused() -> None:
    pool = PrefixPool("mean")
    with pytest.raises(ConfigError, match=r"has read 0 tokens and the cache holds 3; .*no cache from before"):
        pool.update(states(), MASK, n_before=3)
    pool.update(states(), MASK)
    with pytest.raises(ConfigError, match=r"has read 6 tokens and the cache holds 5"):
        pool.update(states()[:, :1], MASK[:, :1], n_before=5)
    with pytest.raises(ConfigError, match=r"has read 6 tokens and the cache holds 6"):
        pool.update(states()[:1, :1], MASK[:1, :1], n_before=6)  # other rows
