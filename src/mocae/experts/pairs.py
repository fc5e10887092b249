"""What an expert is trained on: prompt / completion pairs, the axis's prompt injected into a share of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from mocae.errors import DataError, unknown_name
from mocae.prompts import PromptFormat
from mocae.types import Example

__all__ = ["inject"]


def inject(
    rows: Sequence[Example],
    injections: Mapping[str, str],
    *,
    rate: float,
    prompt_format: PromptFormat,
    tokenizer: Any,
    seed: int,
) -> list[dict[str, str]]:
    """Return prompt / completion pairs; a share `rate` of the prompts carries the injected prompt of its row's axis.

    Args:
        rows: training rows, of one axis or of several.
        injections: axis -> text put before its prompts.
        rate: in [0, 1], the chance of a row to carry it.
        prompt_format: how prompt and response are written.
        tokenizer: for formats that need one.
        seed: of the draw; the same rows and seed give the same pairs.

    Raises:
        DataError: a row has no response, or is of an axis without injection.

    Reference: AlignX (arXiv 2602.07381), stage 1, prompt-injected fine-tuning.
    Deviation: the papers' code trains on the prompts; we train on the responses alone, and can leave a share of the
        prompts bare, so that an expert also acts on prompts as users write them.
    """
    rng = random.Random(f"injection {seed}")
    pairs = []
    for row in rows:
        if row.response is None or not row.response.strip():
            raise DataError(f"{row.source}: a training row of axis {row.axis!r} has no response; training needs one")
        if row.axis not in injections:
            raise DataError(f"{row.source}: {unknown_name('axis', row.axis, injections)}")
        injection = injections[row.axis] if rng.random() < rate else None
        prompt = prompt_format.format_prompt(row.prompt, injection=injection, tokenizer=tokenizer)
        pairs.append({"prompt": prompt, "completion": prompt_format.format_response(row.response)})
    return pairs
