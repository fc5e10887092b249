"""Where the shipped base model lies."""

from __future__ import annotations

from pathlib import Path

from mocae.errors import ArtifactError

__all__ = ["pocket_model_path"]


def pocket_model_path() -> Path:
    """Return the folder of the shipped base model and tokenizer (a standard Hugging Face folder).

    Raises:
        ArtifactError: the installation lacks it.
    """
    folder = Path(__file__).parent / "assets"
    if not (folder / "model.safetensors").is_file():
        raise ArtifactError(
            f"{folder}: the pocket base model is not there. Install the package again, or make it with "
            f"`python tools/pretrain_pocket.py --out {folder}` in a checkout (about an hour on 2 cores)"
        )
    return folder
