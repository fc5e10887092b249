"""Log-probabilities of given continuations: every prompt is read once, its continuations go on from the cache."""

import copy
import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from mocae.distributed import spread
from mocae.errors import DataError
from mocae.models.load import LoadedBase
from mocae.models.shard import is_sharded
from mocae.progress import bar

__all__ = ["Continuation", "continuation_scores"]


class Continuation(NamedTuple):
    """The log-probability of a continuation in nats, and whether each of its tokens is the likeliest one."""

    log_prob: float
    is_greedy: bool


@dataclass(slots=True)
class _Question:
    """A tokenised prompt and its tokenised choices."""

    place: int
    prompt: list[int]
    choices: list[list[int]]
    identity: str

    @property
    def longest(self) -> int:
        return len(self.prompt) + max(map(len, self.choices))


@runtime_checkable
class _Reader(Protocol):
    """What scoring asks of a generator, see `mocae.models.BaseGenerator`."""

    base: LoadedBase
    experts: tuple[str, ...]

    @property
    def each_token(self) -> bool: ...

    def reading(self, inputs: Mapping[str, Tensor], ids: Sequence[str]) -> AbstractContextManager[Any]: ...


def continuation_scores(
    model: _Reader,
    prompts: Sequence[list[int]],
    continuations: Sequence[Sequence[list[int]]],
    *,
    ids: Sequence[str] | None = None,
    batch_tokens: int = 4096,
) -> list[list[Continuation]]:
    """Return how a model scores every continuation of every prompt, all given as tokens.

    What all prompts share is read once (without experts only: weights differ from prompt to prompt), every prompt once,
    in batches of like length; its continuations are read on from the cache, all in one pass. A model that weighs each
    token is read once a continuation. Where prompt and continuation exceed the context, the left end is cut.

    Args:
        model: a generator.
        prompts: tokens, at least one in each.
        continuations: of each prompt at least one, of at least one token.
        ids: identities of the prompts, needed by the oracle only.
        batch_tokens: most tokens in one batch, padding included; a single prompt may have more.

    Raises:
        DataError: a prompt or continuation is empty.
    """
    questions = []
    for place, (prompt, tails) in enumerate(zip(prompts, continuations, strict=True)):
        if not prompt or not tails or not all(tails):
            raise DataError(f"prompt {place}: prompt, choices or one of them is empty; expected text in each")
        questions.append(_Question(place, list(prompt), [list(t) for t in tails], ids[place] if ids else ""))
    limit = model.base.description.context
    batched = 0 if model.each_token else _longest_batched(model.base.model, limit)
    fitting = [q for q in questions if q.longest <= batched]
    found: dict[int, list[Continuation]] = {}
    with torch.inference_mode(), bar(len(questions), "log-probabilities") as shown:
        shared = 0 if model.experts else _shared(fitting)
        opening = _read_opening(model.base, fitting[0].prompt[:shared]) if shared else None
        together = is_sharded(model.base.model)

        def score(batch: list[_Question]) -> dict[int, list[Continuation]]:
            shown.advance(len(batch))
            if batch[0].longest > batched:
                return {batch[0].place: _score_singly(model, batch[0], limit)}
            return _score_batch(model, batch, opening, shared)

        # Batches first, then long questions by themselves: in one list, so that processes share them evenly.
        batches = [*_batches(fitting, shared, batch_tokens), *([q] for q in questions if q.longest > batched)]
        for scored in spread(batches, score, lockstep=together):
            found |= scored
        shown.finish()
    return [found[i] for i in range(len(prompts))]


def _longest_batched(model: Any, limit: int) -> int:
    """Return how many tokens prompt and choice may have to be read in batches; 0 where the model cannot.

    Reading on behind one cached prompt needs a mask of our own, which not every kind of attention takes.
    """
    config = model.config.get_text_config()
    own_mask = getattr(config, "_attn_implementation", "") in ("sdpa", "eager")
    if not own_mask or "position_ids" not in inspect.signature(model.forward).parameters:
        return 0
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds <= {"full_attention"} and getattr(config, "sliding_window", None) is None:
        return limit
    window = getattr(config, "sliding_window", None)
    return min(limit, window) if window and kinds <= {"full_attention", "sliding_attention"} else 0


def _shared(questions: Sequence[_Question]) -> int:
    """Return how many tokens all prompts begin with; each keeps one of its own to continue from."""
    if len(questions) < 2:
        return 0
    columns = zip(*(q.prompt for q in questions), strict=False)  # as long as the shortest
    length = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    return min(length, min(len(q.prompt) for q in questions) - 1)


def _batches(questions: Sequence[_Question], shared: int, batch_tokens: int) -> Iterator[list[_Question]]:
    """Yield questions of like width, so that little is padding and no batch is too large."""

    def width(question: _Question) -> int:
        return max(len(question.prompt) - shared, sum(map(len, question.choices)))

    batch: list[_Question] = []
    for question in sorted(questions, key=lambda q: (width(q), q.place)):
        if batch and (len(batch) + 1) * width(question) > batch_tokens:
            yield batch
            batch = []
        batch.append(question)
    if batch:
        yield batch


def _read_opening(base: LoadedBase, tokens: list[int]) -> Any:
    ids = torch.tensor([tokens], device=base.model.device)
    return base.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values


def _score_batch(
    model: _Reader, batch: Sequence[_Question], opening: Any, shared: int
) -> dict[int, list[Continuation]]:
    """Return the scores of a batch: one pass over the prompts, one over all their choices."""
    base = model.base
    device = base.model.device
    ids, mask = _padded([q.prompt[shared:] for q in batch], side="left", device=device)
    whole = torch.cat([torch.ones(len(batch), shared, dtype=torch.long, device=device), mask], 1)
    cache = None
    if opening is not None:
        cache = copy.deepcopy(opening)
        cache.batch_repeat_interleave(len(batch))
    with model.reading({"input_ids": ids, "attention_mask": mask}, [q.identity for q in batch]):
        out = base.model(
            input_ids=ids,
            attention_mask=whole,
            position_ids=(whole.cumsum(1) - 1).clamp(min=0)[:, shared:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        first = out.logits[:, -1].double().log_softmax(-1)
        later = _read_on(base.model, batch, out.past_key_values, whole)
    likeliest = first.argmax(-1).tolist()
    return {
        q.place: [
            Continuation(float(first[r, choice[0]]) + rest.log_prob, choice[0] == likeliest[r] and rest.is_greedy)
            for choice, rest in zip(q.choices, later[r], strict=True)
        ]
        for r, q in enumerate(batch)
    }


def _read_on(model: Any, batch: Sequence[_Question], cache: Any, whole: Tensor) -> list[list[Continuation]]:
    """Return the score of each choice's tokens after the first.

    The choices of a question stand one after the other in one row, and a mask lets each see the prompt and itself
    only: the cache of the prompt is used as it is, never copied.
    """
    device = whole.device
    heads = [[token for choice in q.choices for token in choice[:-1]] for q in batch]
    if not any(heads):
        return [[Continuation(0.0, True)] * len(q.choices) for q in batch]
    owners = [[i for i, choice in enumerate(q.choices, 1) for _ in choice[:-1]] for q in batch]
    steps = [[step for choice in q.choices for step in range(len(choice) - 1)] for q in batch]
    nexts = [[token for choice in q.choices for token in choice[1:]] for q in batch]
    ids, _ = _padded(heads, side="right", device=device)
    owner, _ = _padded(owners, side="right", device=device)  # 0: padding
    step, _ = _padded(steps, side="right", device=device)
    target, _ = _padded(nexts, side="right", device=device)
    own = (owner[:, :, None] == owner[:, None, :]).tril()
    seen = torch.cat([whole.bool()[:, None, :].expand(-1, ids.shape[1], -1), own], 2)[:, None]
    attention = torch.zeros(seen.shape, dtype=model.dtype, device=device)
    attention.masked_fill_(~seen, torch.finfo(model.dtype).min)
    logits = model(
        input_ids=ids,
        attention_mask=attention,
        position_ids=whole.sum(1, keepdim=True) + step,
        past_key_values=cache,
        use_cache=True,
    ).logits
    said = logits.gather(2, target[:, :, None])[:, :, 0].double() - logits.double().logsumexp(-1)
    missed = (logits.argmax(-1) != target).double()
    shape = (len(batch), 1 + max(len(q.choices) for q in batch))
    sums, misses = (
        torch.zeros(shape, dtype=torch.double, device=device).scatter_add_(1, owner, values).tolist()
        for values in (said, missed)
    )
    return [
        [Continuation(sums[r][i], misses[r][i] == 0) for i in range(1, len(q.choices) + 1)] for r, q in enumerate(batch)
    ]


def _score_singly(model: _Reader, question: _Question, limit: int) -> list[Continuation]:
    """Return the scores of one question, a pass a choice, each with as much of the prompt as fits."""
    base = model.base
    values = []
    for choice in question.choices:
        tokens = (question.prompt + choice)[-(limit + 1) :]
        ids = torch.tensor([tokens[:-1]], device=base.model.device)
        kept = choice[-(len(tokens) - 1) :]
        with model.reading({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, [question.identity]):
            logits = base.model(input_ids=ids, use_cache=False).logits[0, -len(kept) :].double()
        target = torch.tensor(kept, device=ids.device)
        said = logits.log_softmax(-1).gather(1, target[:, None])
        values.append(Continuation(float(said.sum()), bool((logits.argmax(-1) == target).all())))
    return values


def _padded(rows: Sequence[Sequence[int]], *, side: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask, (B, T), padded with zeros that the mask hides."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = 1
    return ids.to(device), mask.to(device)
