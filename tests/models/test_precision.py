"""The number format is asked of the machine, or given."""

from __future__ import annotations

import pytest
import torch

from mocae.errors import ConfigError
from mocae.models import pick_dtype, precision


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32), ("fp16", torch.float16)]
)
def test_a_named_dtype_is_taken_whatever_the_device(name: str, dtype: torch.dtype) -> None:
    assert pick_dtype(name, "cpu") == pick_dtype(name, "cuda:0") == dtype


@pytest.mark.parametrize("faster", [True, False])
def test_auto_on_cpu_follows_the_measurement(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    seconds = iter([2.0, 1.0] if faster else [1.0, 2.0])  # fp32 is timed first
    monkeypatch.setattr(precision, "_best_seconds", lambda *_, **__: next(seconds))
    precision._cpu_is_faster_in_bf16.cache_clear()
    expected = torch.bfloat16 if faster else torch.float32
    assert pick_dtype("auto", "cpu") == expected
    assert pick_dtype("auto", torch.device("cpu")) == expected  # measured once a process
    precision._cpu_is_faster_in_bf16.cache_clear()


def test_the_measurement_runs() -> None:
    precision._cpu_is_faster_in_bf16.cache_clear()
    assert pick_dtype("auto", "cpu") in (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_on_cuda_asks_the_device(monkeypatch: pytest.MonkeyPatch, supported: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert pick_dtype("auto", "cuda") == dtype


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dtype 'int4' is not known. Accepted: 'auto', 'bf16', 'fp32', 'fp16'"):
        pick_dtype("int4", "cpu")
