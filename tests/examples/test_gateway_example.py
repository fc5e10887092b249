"""The example of the gateway, over real sockets, on a tiny random base model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import mocae
from mocae.policies import CodeBook, weights_vector

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def test_each_request_is_answered_by_the_mixture_nearest_to_its_routing(
    own: Any, load_example: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    example: Any = load_example("gateway")
    artifact, out = own[0] / "artifact", tmp_path / "vllm"
    told = example.serve(artifact, out, n_mixtures=3, progress=False)
    book, model = CodeBook.load(out / "code_book.json"), mocae.load(artifact, device="cpu")
    assert [entry["question"] for entry in told] == list(example.QUESTIONS)
    for entry in told:
        exact = weights_vector(model.reply(entry["question"], max_new_tokens=1).weights, model.experts)
        nearest = int(book.nearest(exact[None])[0])
        assert entry["mixture"] == book.names[nearest]
        assert list(entry["weights"].values()) == pytest.approx(book.mixtures[nearest].tolist())
        said = model.reply(entry["question"], weights=entry["weights"], max_new_tokens=24)
        assert entry["answer"] == said.text
    assert torch.isfinite(book.mixtures).all()
