"""Optional packages, and the extra of this one that brings them."""

from __future__ import annotations

import importlib.util

from mocae.errors import ConfigError

__all__ = ["EXTRA_OF", "missing_extra", "require"]

EXTRA_OF = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "trl": "train",
    "accelerate": "train",
    "datasets": "train",
    "jaxtyping": "train",
    "filelock": "train",
    "httpx": "train",
    "sklearn": "eval",
    "skops": "eval",
    "matplotlib": "eval",
    "openai": "eval",
    "if_verifiable": "eval",
    "lm_eval": "bridge",
    "gguf": "export",
    "fastapi": "serve",
    "httpx2": "serve",
    "prometheus_client": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "gradio": "ui",
    "bitsandbytes": "quantize",
    "torchao": "quantize",
}
"""Module -> extra of `pyproject.toml`; a test holds the two together."""


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """Return the sentence that says what to install, None where the module is none of an extra.

    >>> missing_extra(ModuleNotFoundError(name="sklearn.svm"))
    "sklearn.svm is not installed; run: pip install 'mocae[eval]'"
    """
    extra = EXTRA_OF.get((error.name or "").partition(".")[0])
    return extra and f"{error.name} is not installed; run: pip install 'mocae[{extra}]'"


def require(*modules: str, for_what: str) -> None:
    """Do nothing if all these modules are there; what takes long asks before it begins.

    Raises:
        ConfigError: one is not.
    """
    for module in modules:
        if not _is_there(module):
            raise ConfigError(f"{for_what}: {missing_extra(ModuleNotFoundError(name=module))}")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # ValueError: something else stands in its place
        return False
