"""A bank of low-rank experts and a policy for their weights.

    import mocae

    model = mocae.load("out/pocket")
    print(model.reply("Repeat the word river three times.").text)

Importing this package imports no torch: `load` and `run` are looked up when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mocae.pipelines.artifact import load
    from mocae.pipelines.run import run

__all__ = ["__version__", "load", "run"]

__version__ = "0.1.0"

_LAZY = {"load": "mocae.pipelines.artifact", "run": "mocae.pipelines.run"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mocae' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value  # the next access is a plain attribute
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
