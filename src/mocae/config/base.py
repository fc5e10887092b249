"""What every part of a recipe shares: one strict model class and the types of its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = ["Config", "FilePath", "Fraction", "Name", "Sequence", "problem"]


class Config(BaseModel):
    """Strict: unknown keys are refused, `true` is no number, nothing changes after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def problem(key: str, message: str) -> PydanticCustomError:
    """Return an error about `key`, dotted and relative to the model whose validator raises it."""
    return PydanticCustomError("recipe_problem", "{message}", {"message": message, "key": key})


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _to_path(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
"""A name that is also a folder and one part of a dotted key: letters, digits, `_` and `-`."""

Fraction = Annotated[float, Field(ge=0, le=1)]

FilePath = Annotated[Path, BeforeValidator(_to_path)]
"""A path, written as text."""

Sequence = BeforeValidator(_to_tuple)
"""Marks a tuple that is written as a list."""
