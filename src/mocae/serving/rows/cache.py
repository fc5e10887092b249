"""Keys and values of answers that are written at the same time, though they began at different times.

All rows end at the same column, so that a decoding step writes one column for all of them; a shorter row has padding
on its left, as in any left-padded batch:

    start                     end
      |  . . . q q q a a a a   |      q prompt, a answer, . padding
      |  q q q q q q q q a a   |
      |  . . . . . . . q q a   |

A row that joins is copied in with its last token in column `end - 1`; a row that leaves is overwritten by the last one.
What is left of a row holds zeros or what was its own, never another's: a masked column still takes part in a product,
and 0 times nan is nan.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

__all__ = ["RowCache"]

_GROWTH = 64
"""Columns added at once: every so many steps rows are moved to the left, or into larger tensors."""


class _Span:
    """What all layers share: rows in use, and the columns [start, end) that hold them."""

    def __init__(self) -> None:
        self.rows = self.start = self.end = 0


class _Layer(CacheLayerMixin):
    """One layer's keys and values, (rows, heads, columns, size); a step writes column `end` in place."""

    is_sliding = False  # all columns are kept; a sliding window is a matter of the mask

    def __init__(self, span: _Span) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._span = span

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = key_states, value_states
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        n, start, end = self._span.rows, self._span.start, self._span.end
        self.keys[:n, :, end : end + 1] = key_states
        self.values[:n, :, end : end + 1] = value_states
        return self.keys[:n, :, start : end + 1], self.values[:n, :, start : end + 1]

    def get_seq_length(self) -> int:
        return self._span.end - self._span.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):
    """A cache whose rows join and leave between decoding steps.

    Attributes:
        lengths: tokens each row holds, (rows,), which is also the position of its next token.
    """

    def __init__(self, n_layers: int, *, device: torch.device) -> None:
        self._span = _Span()
        self._rows: list[_Layer] = [_Layer(self._span) for _ in range(n_layers)]
        super().__init__(layers=list(self._rows))
        self._device = device
        self.lengths = torch.zeros(0, dtype=torch.long, device=device)

    def __len__(self) -> int:
        """Return the number of layers, as in any cache; `n_rows` is the number of rows."""
        return len(self.layers)

    @property
    def n_rows(self) -> int:
        """Rows in use."""
        return self._span.rows

    @property
    def n_bytes(self) -> int:
        """Memory held."""
        tensors = [t for layer in self._rows for t in (layer.keys, layer.values) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)

    def join(self, read: DynamicCache, lengths: Tensor) -> None:
        """Add the rows of a pass that has read left-padded prompts.

        Args:
            read: what the pass has cached.
            lengths: tokens of each prompt without padding, (rows,).

        A failure (no memory) may leave the rows unusable; `clear` then.
        """
        span, width = self._span, read.get_seq_length()
        n = len(lengths)
        self._make_room(span.rows + n, max(width, span.end - span.start), read)
        columns = slice(span.end - width, span.end)
        layers: Any = read.layers
        for mine, theirs in zip(self._rows, layers, strict=True):
            assert mine.keys is not None
            assert mine.values is not None
            for own, new in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
                own[span.rows : span.rows + n, :, : span.end - width] = 0
                own[span.rows : span.rows + n, :, columns] = new
        span.rows += n
        self.lengths = torch.cat([self.lengths, lengths.to(self._device)])
        self._narrow()

    def leave(self, row: int) -> None:
        """Drop a row; the last row takes its place, so its number is `row` from now on."""
        span, last = self._span, self._span.rows - 1
        if row != last:
            for layer in self._rows:
                for tensor in (layer.keys, layer.values):
                    assert tensor is not None
                    tensor[row, :, span.start : span.end] = tensor[last, :, span.start : span.end]
            self.lengths[row] = self.lengths[last]
        span.rows = last
        self.lengths = self.lengths[:last].clone()
        self._narrow()

    def clear(self) -> None:
        """Drop all rows and their memory."""
        self._span.rows = self._span.start = self._span.end = 0
        self.lengths = self.lengths[:0]
        for layer in self._rows:
            layer.keys = layer.values = None
            layer.is_initialized = False

    def before_step(self) -> Tensor | None:
        """Make room for one token a row and return the mask of the step, (rows, columns); None: no padding."""
        span = self._span
        first = self._rows[0].keys
        assert first is not None
        if span.end == first.shape[2]:
            self._make_room(span.rows, span.end - span.start, None)
        width = span.end - span.start
        columns = torch.arange(width + 1, device=self._device)
        mask = columns >= width - self.lengths[:, None]
        return None if bool(mask[:, 0].all()) else mask

    def after_step(self) -> None:
        """Count the token that every layer has written for each row."""
        self._span.end += 1
        self.lengths += 1

    def _narrow(self) -> None:
        span = self._span
        if span.rows:
            span.start = span.end - int(self.lengths.max())
        else:
            span.start = span.end = 0

    def _make_room(self, rows: int, width: int, like: DynamicCache | None) -> None:
        """Move the rows so that they end at column `width`, with room for a step, and for `rows` rows."""
        span, held = self._span, self._rows[0].keys
        used = span.end - span.start
        capacity = (0, 0) if held is None else (held.shape[0], held.shape[2])
        if rows <= capacity[0] and width <= span.end < capacity[1]:
            return
        n_rows = max(capacity[0], 1 << (rows - 1).bit_length())
        n_columns = max(capacity[1], -(-(width + _GROWTH) // _GROWTH) * _GROWTH)
        for i, layer in enumerate(self._rows):
            for name in ("keys", "values"):
                old = getattr(layer, name)
                shape = getattr(like.layers[i], name) if old is None and like is not None else old
                if (n_rows, n_columns) == capacity:
                    kept = old[: span.rows, :, span.start : span.end].clone()
                    new = old
                else:
                    new = shape.new_zeros(n_rows, shape.shape[1], n_columns, shape.shape[3])
                    kept = None if old is None else old[: span.rows, :, span.start : span.end]
                if kept is not None:
                    new[: span.rows, :, width - used : width] = kept
                    new[: span.rows, :, : width - used] = 0
                setattr(layer, name, new)
            layer.is_initialized = True
        span.start, span.end = width - used, width
