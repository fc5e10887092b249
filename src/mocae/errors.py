"""Every error this package raises on purpose.

    MocaeError
    |- ConfigError          a recipe, flag or argument is wrong
    |- PluginError          a name is not registered, or a plug-in does not fit
    |  |- MissingPackageError   it is one of a package that is not installed
    |- DataError            a data file, row or split is wrong
    |  |- NothingToLearnError   the verdicts on calibration prompts teach a system nothing
    |- ModelMismatchError   an adapter or router does not fit the base model
    |- ArtifactError        a folder written by us is missing, damaged or of another version
    |- TrainingError        training went wrong (for example a loss that is not finite)
    |- JudgeError           a judge cannot be used at all (one failed verdict is *unscored*, no error)
    |- ServingError         a request cannot be served

A message says what was received, where, what is accepted and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "JudgeError",
    "MissingPackageError",
    "MocaeError",
    "ModelMismatchError",
    "NothingToLearnError",
    "PluginError",
    "ServingError",
    "TrainingError",
    "unknown_name",
]


class MocaeError(Exception):
    """Base of all errors raised on purpose; the command line prints it as one line."""


class ConfigError(MocaeError):
    """A recipe, flag or argument is wrong."""


class PluginError(MocaeError):
    """A name is not registered, or what it names does not fit the protocol."""


class MissingPackageError(PluginError):
    """A name is one of a package that is not installed; `advice` says which, and how to get it."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(f"{message}: {advice}")
        self.advice = advice


class DataError(MocaeError):
    """A data file, a row of it, or a split is wrong."""


class NothingToLearnError(DataError):
    """The verdicts on calibration prompts teach a system nothing: a run leaves it out and says why."""


class ModelMismatchError(MocaeError):
    """An adapter, router or artifact was made for another base model."""


class ArtifactError(MocaeError):
    """A folder written by this package is missing, damaged or of another version."""


class TrainingError(MocaeError):
    """Training cannot go on, for example because the loss is not finite."""


class JudgeError(MocaeError):
    """A judge cannot be used at all. A single verdict that failed is unscored, not an error."""


class ServingError(MocaeError):
    """A request cannot be served."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not known, with the nearest known one.

    >>> unknown_name("policy", "alingx", ["alignx", "linear"])
    "unknown policy 'alingx'. Known: 'alignx', 'linear'. Did you mean 'alignx'?"
    """
    names = sorted(known)
    text = f"unknown {what} {name!r}. Known: {', '.join(map(repr, names)) or 'none'}."
    near = difflib.get_close_matches(name, names, n=1)
    return f"{text} Did you mean {near[0]!r}?" if near else text
