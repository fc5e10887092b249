"""Generation without HTTP: a thread that owns the model and answers many requests at once, each with its own weights.

Batching is continuous. Between two decoding steps requests that wait join the batch, so nobody waits for another's
long answer, and rows that are done leave it. Those that join read their prompts in one pass, which routes each of them.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mocae.bank import LONG_ANSWER_TOKENS
from mocae.errors import MocaeError, ServingError
from mocae.models import BaseGenerator
from mocae.policies import Mixture
from mocae.serving.errors import Closed, Lost, Overloaded, TimedOut
from mocae.serving.request import Event, Failed, Finished, Request, Sink, Ticket
from mocae.serving.rows.batch import Batch, Row
from mocae.serving.rows.prefixes import Prefixes

__all__ = ["Engine", "Limits"]

logger = logging.getLogger(__name__)

_JOIN_SHARE, _JOIN_STEPS = 1 / 8, 4
"""Requests join at once where there are this many for each being written, and after so many steps at the latest."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the engine takes on.

    Attributes:
        batch_size: answers written at once.
        queue_size: requests that may wait; the next one is refused.
        prompt_tokens: tokens that one pass reads at most, padding included, unless a single prompt is longer: while new
            prompts are read, answers stand still.
        merged_bytes: memory for mixtures merged into the base weights, which answers with one mixture are then written
            with; 0: none, so that answers in bf16 do not depend on what else is asked.
        prefix_bytes: memory for how prompts have begun, so that prompts that begin alike are read faster; 0: none.
    """

    batch_size: int = 32
    queue_size: int = 256
    prompt_tokens: int = 4096
    prefix_bytes: int = 256 << 20
    merged_bytes: int = 0


class Engine:
    """Answers requests in the order they came, many at once.

    Nothing else may use the model while the engine runs. Use it as a context, or call `start` and `close`.

    Args:
        model: what answers; over a bank of experts, each request names its policy.
        limits: how much it takes on.

    Raises:
        ServingError: the model keeps more than keys and values between steps, so rows cannot join; or `merged_bytes`
            holds no mixture.
        ModelMismatchError: `merged_bytes`, and nothing can be merged into a quantised or tied weight.
    """

    def __init__(self, model: BaseGenerator, *, limits: Limits | None = None) -> None:
        _refuse_recurrent(model.base.model)
        self._base = model.base
        self.limits = limits or Limits()
        if isinstance(model, Mixture):
            prefixes = Prefixes(model, max_bytes=self.limits.prefix_bytes)
            self._batch = Batch(model, prefixes=prefixes, merge_after=_merging(model, self.limits.merged_bytes))
        else:
            self._batch = Batch(model)
        self._waiting: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closing = self._dropping = False
        self._steps_waited = 0
        self._rate = 1.0  # answers a second, a running mean
        self._last_end = time.monotonic()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Answers being written."""
        return len(self._batch.rows)

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread is not None and self._thread.is_alive() and not self._closing

    def start(self) -> None:
        """Begin to answer.

        Raises:
            ServingError: it was started before.
        """
        if self._thread is not None:
            raise ServingError("this engine was started before; make a new one")
        self._thread = threading.Thread(target=self._run, name="mocae-engine", daemon=True)
        self._thread.start()

    def close(self, *, wait_s: float = 0.0) -> None:
        """Take no more requests, give those that run `wait_s` to end, then fail what is left. Twice is fine."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is None:
            return
        self._thread.join(wait_s)
        with self._changed:
            self._dropping = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, requests: Sequence[Request], sinks: Sequence[Sink]) -> list[Ticket]:
        """Queue requests, all or none of them, and return a ticket for each.

        Args:
            requests: what to answer.
            sinks: where the events of each go; called in the engine's thread.

        Raises:
            Overloaded: the queue has no room for all of them.
            Closed: the engine is shutting down.
        """
        now = time.monotonic()
        rows = [
            Row(request, sink, Ticket(), base=self._base, submitted=now)
            for request, sink in zip(requests, sinks, strict=True)
        ]
        with self._changed:
            if not self.alive:
                raise Closed
            n_waiting = len(self._waiting)
            free = max(0, self.limits.batch_size - len(self._batch.rows))
            if n_waiting + len(rows) > self.limits.queue_size + free:
                raise Overloaded(
                    f"{n_waiting} requests are waiting and the queue holds {self.limits.queue_size}; try again later",
                    retry_after_s=max(1.0, min(60.0, (n_waiting + len(rows)) / self._rate)),
                )
            self._waiting.extend(rows)
            self._changed.notify_all()
        return [row.ticket for row in rows]

    def stream(self, request: Request) -> Iterator[Event]:
        """Yield the events of one request, the last one `Finished`; the request is cancelled when nobody listens.

        Raises:
            Overloaded: see `submit`.
            Closed: see `submit`.
            TimedOut: the answer was not there in time.
            MocaeError: the policy failed on this prompt, or the weights do not fit.
        """
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        [ticket] = self.submit([request], [events.put])
        try:
            while True:
                event = events.get()
                if isinstance(event, Failed):
                    raise event.error
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            ticket.cancel()

    def answer(self, request: Request) -> Finished:
        """Return the whole answer to one request; errors as in `stream`."""
        *_, last = self.stream(request)
        assert isinstance(last, Finished)
        return last

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._give_up_lost()
                self._admit()
                if self._batch.rows:
                    self._tell(self._batch.step())
            except Exception as error:  # a defect or lack of memory: these answers are lost, the server is not
                self._give_up(error)
        for row in [*self._batch.clear(), *self._waiting]:
            _tell(row, Closed())
        self._waiting.clear()

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; return False when it is time to end."""
        with self._changed:
            while not self._waiting and not self._batch.rows and not self._closing:
                self._changed.wait()
            busy = bool(self._waiting or self._batch.rows)
            return not self._dropping and (busy or not self._closing)

    def _give_up_lost(self) -> None:
        """Drop requests nobody wants any more, or whose time is over, waiting or running."""
        now = time.monotonic()

        def lost(row: Row) -> bool:
            if row.ticket.cancelled:
                return True
            if row.deadline is not None and now > row.deadline:
                _tell(row, TimedOut(f"no answer within {row.request.timeout_s:g} s"))
                return True
            return False

        for row in [row for row in self._batch.rows if lost(row)]:
            self._batch.drop(row)
        with self._changed:
            kept = [row for row in self._waiting if not lost(row)]
            if len(kept) < len(self._waiting):
                self._waiting = deque(kept)

    def _admit(self) -> None:
        """Let waiting requests join, as many as fit.

        A pass that reads one prompt costs little less than one that reads four, and all answers stand still meanwhile:
        while many are being written, a few steps are waited for more to come.
        """
        if len(self._waiting) < len(self._batch.rows) * _JOIN_SHARE and self._steps_waited < _JOIN_STEPS:
            self._steps_waited += bool(self._waiting)
            return
        self._steps_waited = 0
        while rows := self._next_rows():
            self._join(rows)

    def _join(self, rows: Sequence[Row]) -> None:
        """Let rows join; after a failed pass each alone, to find out whose fault it was: all others are answered."""
        try:
            self._tell(self._batch.join(rows))
        except Lost as error:
            self._give_up(error, rows)
        except Exception as error:
            if len(rows) > 1:
                for row in rows:
                    self._join([row])
                return
            if not isinstance(error, MocaeError):
                logger.error("a prompt could not be read", exc_info=error)
            _tell(rows[0], error)

    def _give_up(self, error: Exception, rows: Sequence[Row] = ()) -> None:
        """Fail what runs, and `rows` with it; the server goes on."""
        logger.exception("answers are given up")
        for row in {id(row): row for row in [*self._batch.clear(), *rows]}.values():
            _tell(row, error)

    def _next_rows(self) -> list[Row]:
        """Take from the queue what one pass can read: its head, and what follows and reads at the same layer."""
        rows: list[Row] = []
        with self._changed:
            free = self.limits.batch_size - len(self._batch.rows)
            reading, width = None, 0
            while self._waiting and len(rows) < free:
                head = self._waiting[0]
                reads = None if head.request.policy is None else head.request.policy.reads
                width = max(width, len(head.request.tokens))
                if rows and width * (len(rows) + 1) > self.limits.prompt_tokens:
                    break
                if None not in (reads, reading) and reads != reading:
                    break
                reading = reading or reads
                rows.append(self._waiting.popleft())
        return rows

    def _tell(self, ended: Sequence[tuple[Row, Event | Exception]]) -> None:
        for row, event in ended:
            _tell(row, event)
        if ended:
            now = time.monotonic()
            share = min(1.0, len(ended) / 32)
            self._rate += share * (len(ended) / max(now - self._last_end, 1e-3) - self._rate)
            self._last_end = now


def _tell(row: Row, last: Event | Exception) -> None:
    """Tell the last event of a row; whoever cannot take it harms no other."""
    try:
        row.sink(Failed(last) if isinstance(last, Exception) else last)
    except Exception:
        logger.exception("an answer could not be told")


def _merging(mixture: Mixture, max_bytes: int) -> int | None:
    """Let the bank keep merged mixtures, and return after how many steps one is merged; None: never."""
    mixture.bank.keep_merged(max_bytes)
    if not max_bytes:
        return None
    needed = mixture.bank.merged_bytes
    if needed > max_bytes:
        raise ServingError(
            f"merged mixtures may take {max_bytes / 2**20:.0f} MiB and one takes {needed / 2**20:.0f}; give more, or 0"
        )
    return LONG_ANSWER_TOKENS


def _refuse_recurrent(model: Any) -> None:
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    other = kinds - {"full_attention", "sliding_attention"}
    if other:
        raise ServingError(
            f"{type(model).__name__} has layers of kind {', '.join(sorted(other))}, whose memory of the text cannot be "
            "padded; it cannot be served in batches. Use a model with full or sliding attention only"
        )
