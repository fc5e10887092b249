"""Adapters that were trained elsewhere: where they lie, and whether they are of the base model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mocae.bank import LoraWeights
from mocae.bank.adapters import CONFIG_FILE, WEIGHTS_FILE
from mocae.config import BaseConfig
from mocae.errors import ConfigError, ModelMismatchError

__all__ = ["adapter_digests", "adapter_folder", "refuse_another_base"]


def adapter_folder(adapter: str) -> Path:
    """Return the folder of an adapter: the one named, or its two files taken from the Hub.

    Raises:
        ConfigError: there is no such folder, and the Hub has no such repository.
    """
    folder = Path(adapter).expanduser()
    if folder.is_dir():
        return folder
    if adapter.startswith((".", "/", "~")) or adapter.count("/") != 1:
        raise ConfigError(f"adapter {adapter!r}: no such folder; give a PEFT LoRA folder, or a Hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(adapter, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except Exception as error:  # network, login, no such repository: the hub's own words say which
        raise ConfigError(
            f"adapter {adapter!r}: no such folder, and the Hub does not give it ({type(error).__name__}: {error}). "
            "Give a PEFT LoRA folder or a Hub id (owner/name)"
        ) from error


def adapter_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the two files of an adapter."""
    return {name: _digest(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_another_base(expert: LoraWeights, base: BaseConfig) -> None:
    """Do nothing if an adapter names no other base model: one of the same shape would take it, and answer nonsense.

    Names are compared by their last part: that of a Hub id, or of a folder.

    Raises:
        ModelMismatchError: it names another one.
    """
    ours = (base.required_model(), *base.known_as)
    if expert.base_model is None or _last_part(expert.base_model) in map(_last_part, ours):
        return
    raise ModelMismatchError(
        f"expert {expert.name!r} was trained on {expert.base_model!r} (base_model_name_or_path in {CONFIG_FILE}), and "
        f"base.model is {ours[0]!r}. Use that base model; if they are the same, say so: "
        f"--set 'base.known_as=[{expert.base_model}]'"
    )


def _last_part(name: str) -> str:
    """Return what tells models apart in a Hub id or a path."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold()
