"""What every part of a recipe shares: one strict model class and the types of its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["LARGEST_SEED", "Config", "FilePath", "Fraction", "Name", "Seed", "Sequence", "problem", "without_removed"]

LARGEST_SEED = 2**32 - 1
"""What NumPy's and transformers' generators take."""
_LARGEST_NUMBER = 2**31 - 1
"""What the libraries below take as a count: beyond, they overflow long after a recipe was read."""


class Config(BaseModel):
    """Strict: unknown keys are refused, `true` is no number, nothing changes after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="after")
    def _no_number_overflows(self) -> Config:
        for name, value in self:
            if name != "seed" and isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
                raise problem(name, f"got a whole number of {len(str(abs(value)))} digits; at most {_LARGEST_NUMBER}")
        return self


def problem(key: str, message: str, *more: tuple[str, str]) -> PydanticCustomError:
    """Return an error about `key`, dotted and relative to the model whose validator raises it; `more` are others."""
    return PydanticCustomError("recipe_problem", "{message}", {"message": message, "key": key, "more": more})


def without_removed(settings: Any, **left: Any) -> Any:
    """Return settings as written without those that were removed, where they have the one value that is left.

    Recipes and finished runs of earlier versions name them. Another value is an error.
    """
    if not isinstance(settings, dict):
        return settings
    for key, value in left.items():
        if settings.get(key, value) != value:
            raise problem(
                key,
                f"got {settings[key]!r}; this setting was removed, what is left is {value!r}: the others were measured "
                "to buy nothing (docs/results.md). Leave it out",
            )
    return {key: value for key, value in settings.items() if key not in left}


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _to_path(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
"""A name that is also a folder and one part of a dotted key: letters, digits, `_` and `-`."""

Fraction = Annotated[float, Field(ge=0, le=1)]

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""Where drawing starts."""

FilePath = Annotated[Path, BeforeValidator(_to_path)]
"""A path, written as text."""

Sequence = BeforeValidator(_to_tuple)
"""Marks a tuple that is written as a list."""
