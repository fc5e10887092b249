"""The answers being written: rows that read their prompts together and decode together, each with its own weights."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from mocae.bank import same_for_all
from mocae.errors import ConfigError
from mocae.models import BaseGenerator, Beginning, Generated, LoadedBase, Trace, layer_inputs, resumed
from mocae.policies import Mixture, PerPrompt, named_weights
from mocae.serving.errors import Lost
from mocae.serving.request import Delta, Event, Finished, Request, Sink, Ticket
from mocae.serving.rows.cache import RowCache
from mocae.serving.rows.prefixes import Prefixes, Reach
from mocae.serving.rows.sampling import Sampler, TokenLogprob, choose, log_probs_of
from mocae.serving.rows.text import TextStream

__all__ = ["Batch", "Row"]

_MIXTURES_COUNTED = 1024


class Row:
    """One answer being written.

    Args:
        request: what was asked.
        sink: takes the events.
        ticket: says whether anybody still wants them.
        base: decodes, and says what acts in every answer.
        submitted: when it was asked, `time.monotonic()`.
    """

    def __init__(self, request: Request, sink: Sink, ticket: Ticket, *, base: LoadedBase, submitted: float) -> None:
        self.request = request
        self.sink = sink
        self.ticket = ticket
        self.sampler = Sampler(request.sampling, base.description, prompt=request.tokens)
        self.output = None if request.policy is None else request.policy.output
        self.submitted = submitted
        self.deadline = None if request.timeout_s is None else submitted + request.timeout_s
        self.started = self.first_token = submitted
        self.n_known = 0
        self.weights: dict[str, float] = {}
        self.confidence: float | None = None
        self.novelty: float | None = None
        self.written: list[int] = []
        self._text = TextStream(base.tokenizer, stop=request.stop, strip=request.strip)
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._ahead: list[tuple[int, TokenLogprob]] = []  # tokens whose text is held back, with where it begins

    def take(self, token: int, logprob: TokenLogprob | None, *, ends: bool) -> Literal["stop", "length"] | None:
        """Note a token, tell the text it makes final, and return why the answer ends here, None if it goes on."""
        self.written.append(token)
        if self.n_tokens == 1:
            self.first_token = time.monotonic()
        if ends:
            self._tell(self._text.finish(), last=True)
            return "stop"
        if logprob is not None:
            self._ahead.append((self._text.n_decoded, logprob))
        text = self._text.push(token)
        self._tell(text, last=self._text.stopped)
        if self._text.stopped:
            return "stop"
        if self.n_tokens >= self.request.max_tokens:
            self._tell(self._text.finish(), last=True)
            return "stop" if self._text.stopped else "length"
        return None

    @property
    def n_tokens(self) -> int:
        """Tokens written."""
        return len(self.written)

    def finished(self, reason: Literal["stop", "length"]) -> Finished:
        """Return the answer as a whole."""
        now = time.monotonic()
        return Finished(
            text="".join(self._pieces),
            reason=reason,
            weights=self.weights,
            confidence=self.confidence,
            novelty=self.novelty,
            n_prompt_tokens=len(self.request.tokens),
            n_known_tokens=self.n_known,
            n_tokens=self.n_tokens,
            logprobs=tuple(self._logprobs),
            waited_s=self.started - self.submitted,
            first_token_s=self.first_token - self.submitted,
            total_s=now - self.submitted,
        )

    def _tell(self, text: str, *, last: bool) -> None:
        """Note and tell text that became final, with the tokens all of whose text has."""
        shown_up_to = self._text.n_told
        if not last:  # up to the last token that ends within what is shown_up_to
            ends = [*(begin for begin, _ in self._ahead), self._text.n_decoded]
            shown_up_to = max((end for end in ends if end <= shown_up_to), default=0)
        n = next((i for i, (begin, _) in enumerate(self._ahead) if begin >= shown_up_to), len(self._ahead))
        shown = tuple(logprob for _, logprob in self._ahead[:n])
        del self._ahead[:n]
        self._logprobs += shown
        self._pieces.append(text)
        if self.request.stream and (text or shown):
            self.sink(Delta(text, shown))


class _Known(NamedTuple):
    """A new row, what of its prompt others may take over, and what it can take over itself."""

    row: Row
    reach: Reach | None
    beginning: Beginning | None


class _Read(NamedTuple):
    """What a pass over prompts has left: (B, K) weights, how sure they are, (B, V) logits of the next token."""

    rows: list[Row]
    cache: DynamicCache
    alpha: Tensor
    sure: tuple[list[float | None], list[float | None]]
    logits: Tensor


def _chosen(logits: Tensor, rows: Sequence[Row]) -> list[int | Exception]:
    """Return the token of each row, or why it has none; where all together fail, each is chosen alone."""
    try:
        tokens, finite = choose(logits, [row.sampler for row in rows])
    except Exception as error:
        if len(rows) == 1:
            return [error]
        return [_chosen(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    return [
        token if good else ConfigError(f"with the weights {row.weights} the model's output is not finite")
        for row, token, good in zip(rows, tokens, finite, strict=True)
    ]


class Batch:
    """Rows that decode together. One thread uses it.

    Args:
        model: what answers; the base model is left as it was after every call.
        prefixes: remembers how prompts begin; None: nothing is remembered.
        merge_after: when a mixture has been alone in force for so many steps it is merged into the base weights; None:
            never. The bank keeps it (`ExpertBank.keep_merged`).
    """

    def __init__(
        self, model: BaseGenerator, *, prefixes: Prefixes | None = None, merge_after: int | None = None
    ) -> None:
        self._generator = model
        self._prefixes = prefixes
        self._merge_after = merge_after
        self._steps_alone: Counter[bytes] = Counter()
        self._model: Any = model.base.model
        self._pad = int(model.base.tokenizer.pad_token_id or 0)
        self._end_tokens = frozenset(model.base.description.end_tokens)
        self._cache = RowCache(self._model.config.get_text_config().num_hidden_layers, device=self._model.device)
        self._alpha = torch.zeros(0, len(model.experts))
        self.rows: list[Row] = []

    @torch.no_grad()
    def join(self, rows: Sequence[Row]) -> list[tuple[Row, Event | Exception]]:
        """Read the prompts of new rows, choose their weights and first tokens, and return the rows that ended at once.

        Raises:
            Lost: there was no room for their keys and values; the rows of the batch cannot go on, `clear` it.
            Exception: whatever a policy or the model raises; the batch is as it was.
        """
        now = time.monotonic()
        for row in rows:
            row.started = now
        passes = [self._read(some) for some in self._by_beginning(rows)]
        first = len(self.rows)
        for read in passes:
            for row, alpha, *sure in zip(read.rows, read.alpha.cpu(), *read.sure, strict=True):
                row.weights = named_weights(self._generator.experts, alpha) if self._generator.mixed else {}
                row.confidence, row.novelty = sure
            try:
                if self._generator.cached:
                    self._cache.join(read.cache, torch.tensor([len(row.request.tokens) for row in read.rows]))
            except Exception as error:
                raise Lost(f"no room for {len(rows)} more answers; all running ones are given up") from error
            self._alpha = torch.cat([self._alpha, read.alpha])
            self.rows += read.rows
        return self._take(torch.cat([read.logits for read in passes]), first)

    def _by_beginning(self, rows: Sequence[Row]) -> list[list[_Known]]:
        """Return rows as they are read together: those of which nothing is known, and those known up to one layer."""
        groups: dict[int, list[_Known]] = {}
        for row in rows:
            request, reach, beginning = row.request, None, None
            if self._prefixes is not None and request.policy is not None:
                reach = self._prefixes.reach(request.policy, request.prompt_id, len(request.tokens))
                beginning = self._prefixes.find(request.tokens, reach)
            groups.setdefault(0 if beginning is None else beginning.n_layers, []).append(_Known(row, reach, beginning))
        return list(groups.values())

    def _read(self, known: Sequence[_Known]) -> _Read:
        """Read the prompts of some rows in one pass, which routes each of them."""
        rows = [one.row for one in known]
        lengths = [len(row.request.tokens) for row in rows]
        ids, mask = self._padded([row.request.tokens for row in rows])
        cache = DynamicCache()  # without a config every layer keeps all columns, whatever its attention
        beginnings = [one.beginning for one in known if one.beginning is not None]
        n_new = max(n - (one.beginning.n_tokens if one.beginning else 0) for n, one in zip(lengths, known, strict=True))
        n_layers = None if self._prefixes is None else self._prefixes.n_layers
        keeping = {one.reach.n_layers for one in known if one.reach is not None} - {n_layers}
        with ExitStack() as stack:
            if beginnings:
                stack.enter_context(resumed(self._model, cache, beginnings, lengths))
            entered = {n: stack.enter_context(layer_inputs(self._model, n, stop=False)) for n in keeping}
            stack.enter_context(self._corrected(rows))
            trace = stack.enter_context(self._routed(rows, {"input_ids": ids, "attention_mask": mask}))
            logits = self._pass(ids, mask, (mask.cumsum(-1) - 1).clamp_min(0), cache)
        for i, (row, reach, _) in enumerate(known):
            row.n_known = max(0, lengths[i] - n_new)
            if reach is not None and self._prefixes is not None:
                hidden = entered[reach.n_layers][-1] if reach.n_layers in entered else None
                self._prefixes.keep(row.request.tokens, reach, row=i, cache=cache, hidden=hidden)
        answered = Generated.of(ids, trace)
        return _Read(rows, cache, answered.weights, (answered.confidence, answered.novelty), logits)

    def _routed(self, rows: Sequence[Row], inputs: Mapping[str, Tensor]) -> AbstractContextManager[Trace]:
        """Return a context in which a pass reads the prompts of rows, each under the policy of its request."""
        policies = [row.request.policy for row in rows if row.request.policy is not None]
        model = self._generator
        if isinstance(model, Mixture) and policies:
            model = model.using(PerPrompt(policies))
        return model.reading(inputs, [row.request.prompt_id for row in rows])

    def _pass(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Any) -> Tensor:
        """Return the logits of the next token of each row, (B, V)."""
        held = {"past_key_values": cache, "use_cache": True} if self._generator.cached else {"use_cache": False}
        out = self._model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, **held)
        logits: Tensor = out.logits[:, -1]
        return logits

    @torch.no_grad()
    def step(self) -> list[tuple[Row, Event | Exception]]:
        """Write one token in every row and return the rows that ended."""
        with self._corrected(self.rows), self._generator.writing(self._alpha, merged=self._is_merged()):
            if self._generator.cached:
                mask = self._cache.before_step()
                last = torch.tensor([[row.written[-1]] for row in self.rows], device=self._model.device)
                logits = self._pass(last, mask, self._cache.lengths[:, None], self._cache)
                self._cache.after_step()
            else:
                ids, mask = self._padded([[*row.request.tokens, *row.written] for row in self.rows])
                logits = self._pass(ids, mask, (mask.cumsum(-1) - 1).clamp_min(0), None)
        return self._take(logits, 0)

    def _is_merged(self) -> bool:
        """Return whether the weights of a step are merged into the base weights.

        Merging costs what so many stacked steps lose, so it is done when a mixture has cost that much: whatever comes
        after, at most twice as much is lost as with the best choice.
        """
        one = None if self._merge_after is None else same_for_all(self._alpha)
        if one is None or not one.any():
            return False
        if len(self._steps_alone) >= _MIXTURES_COUNTED:
            self._steps_alone.clear()
        mixture = one.numpy().tobytes()
        self._steps_alone[mixture] += 1
        return self._steps_alone[mixture] > (self._merge_after or 0)

    def drop(self, row: Row) -> None:
        """Take a row out."""
        i, last = self.rows.index(row), self.rows.pop()
        if self._generator.cached:
            self._cache.leave(i)
        if last is not row:
            self.rows[i] = last
            self._alpha[i] = self._alpha[-1]
        self._alpha = self._alpha[:-1].clone()

    def clear(self) -> list[Row]:
        """Drop and return all rows; nothing of them is left behind."""
        rows, self.rows = self.rows, []
        self._cache.clear()
        if self._prefixes is not None:
            self._prefixes.clear()
        self._alpha = self._alpha[:0]
        return rows

    def _take(self, logits: Tensor, first: int) -> list[tuple[Row, Event | Exception]]:
        """Choose a token for each row from `first` on, and take out the rows that end with it."""
        rows, logits = self.rows[first:], logits.float()
        ended: list[tuple[Row, Event | Exception]] = []
        for row, of_row, chosen in zip(rows, logits, _chosen(logits, rows), strict=True):
            try:
                reason = self._write(row, of_row, chosen)
                if reason is not None:
                    ended.append((row, row.finished(reason)))
            except Exception as error:  # of this row alone
                ended.append((row, error))
        for row, _ in ended:
            self.drop(row)
        return ended

    def _write(self, row: Row, logits: Tensor, chosen: int | Exception) -> Literal["stop", "length"] | None:
        """Give a row its next token; return why it ends, None if it goes on."""
        if isinstance(chosen, Exception):
            raise chosen
        top = row.request.top_logprobs
        logprob = None if top is None else log_probs_of(logits, chosen, top=top)
        return row.take(chosen, logprob, ends=chosen in self._end_tokens)

    @contextmanager
    def _corrected(self, rows: Sequence[Row]) -> Iterator[None]:
        """Return a context in which rows whose policy has output calibrators are written with them, the others not."""
        with ExitStack() as stack:
            for output in {id(row.output): row.output for row in rows}.values():
                if output is not None:
                    mine = torch.tensor([row.output is output for row in rows], device=self._model.device)
                    stack.enter_context(output.attached(self._model, rows=None if bool(mine.all()) else mine))
            yield

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, prompts))
        ids = [[self._pad] * (width - len(tokens)) + list(tokens) for tokens in prompts]
        mask = [[0] * (width - len(tokens)) + [1] * len(tokens) for tokens in prompts]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
