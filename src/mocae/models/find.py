"""Where a base model is: a registered name, a folder whose files are there, or the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from mocae.errors import ConfigError
from mocae.registry import Registry

__all__ = ["BASE_MODELS", "find_base", "is_cached"]

BASE_MODELS: Registry[Callable[[], Path]] = Registry(
    "base model",
    entry_point_group="mocae.base_models",
    builtin={"pocket": ("mocae.pocket.assets:pocket_model_path", "the 3 M-parameter Llama of the pocket lab")},
)
"""Short names for base models: each entry is a function that returns the model's folder."""


def find_base(name_or_path: str | Path) -> str:
    """Return the folder of a base model whose files are there, or the Hub id that a name can only be.

    Args:
        name_or_path: as for `load_base`.

    Raises:
        ConfigError: there is no such folder, or it holds no model in safetensors.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in BASE_MODELS:
        return _checked_folder(BASE_MODELS.get(name)())
    try:
        folder = Path(name).expanduser()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long for the file system, a NUL, somebody else's home
        raise ConfigError(f"base model {name[:80]!r} can be no folder ({error}); give a shorter name") from error
    if is_folder:
        return _checked_folder(folder)
    if is_file or folder.suffix == ".gguf":
        raise ConfigError(_gguf(folder) if folder.suffix == ".gguf" else f"{name!r} is a file; give the model's folder")
    if isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ConfigError(
            f"base model folder {name!r} does not exist; give a folder that does, or a Hub id (owner/name)"
        )
    return name


def is_cached(hub_id: str) -> bool:
    """Return whether a model of the Hub is on this machine."""
    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)


def _checked_folder(folder: Path) -> str:
    if (folder / "config.json").is_file():
        odd = next((p.name for p in folder.iterdir() if p.exists() and not (p.is_file() or p.is_dir())), None)
        if odd is not None:
            raise ConfigError(f"folder {str(folder)!r}: {odd} is a device or FIFO; give a folder of plain files")
        _check_weights(folder)
        return str(folder)
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{str(folder)!r} is an adapter, not a base model (it has adapter_config.json, no config.json); "
            "name its base model here and the adapter as an expert"
        )
    if gguf := next(iter(sorted(folder.glob("*.gguf"))), None):
        raise ConfigError(_gguf(gguf))
    held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else ""
    raise ConfigError(
        f"folder {str(folder)!r} is not a model: no config.json in it (it holds: {held or 'nothing'}); "
        "give a folder written by save_pretrained"
    )


def _check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are not there, or in a form that is not read."""
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        try:
            names = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{index}: damaged ({error}); fetch the model again") from error
    missing = sorted(name for name in names if not (folder / name).is_file())
    if not missing:
        return
    pickled = next((path for end in ("*.bin", "*.pt", "*.pth") for path in sorted(folder.glob(end))), None)
    if index.is_file() or pickled is None:
        gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
        raise ConfigError(
            _gguf(gguf)
            if gguf
            else f"folder {str(folder)!r}: its weights are missing ({', '.join(missing[:3])}); fetch the model again"
        )
    raise ConfigError(
        f"folder {str(folder)!r}: its weights are {pickled.name}, a pickle, which can run code and is not read. "
        'Convert them where you trust the file: python -c "from transformers import AutoModelForCausalLM as M; '
        f'M.from_pretrained({str(folder)!r}, use_safetensors=False).save_pretrained({str(folder)!r})"'
    )


def _gguf(path: Path) -> str:
    return (
        f"{str(path)!r} is a GGUF file, which llama.cpp runs and nothing trains; give the folder it was made from, or "
        'write one: python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"[x.from_pretrained({str(path.parent)!r}, gguf_file={path.name!r}).save_pretrained('base') for x in (M, T)]\""
    )
