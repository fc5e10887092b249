"""Suites: which prompts a model is asked and who judges, as data with a version."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, PositiveInt, model_validator

from mocae.axes import probe
from mocae.config import GenerationConfig, JudgeConfig, SourceConfig
from mocae.config.base import Config, FilePath, Name, problem
from mocae.config.base import Sequence as AsTuple
from mocae.config.load import checked_values
from mocae.config.overrides import apply_override
from mocae.config.probes import Probes
from mocae.config.shipped import shipped_recipes
from mocae.config.training import Sources
from mocae.config.yaml import read_yaml
from mocae.data import read_source, select
from mocae.errors import ConfigError, DataError, PluginError, unknown_name
from mocae.types import Example

__all__ = ["Suite", "SuiteRows", "is_suite", "load_suite", "read_suite", "suite_names", "with_endpoint_judges"]

_ENDPOINT_PROMPTS = ("win-rate", "safety", "refusal", "truthful", "informative", "abstains")


class SuiteAxis(Config):
    """One axis and the prompts that test it."""

    name: Name
    test: Annotated[
        Sources,
        Field(min_length=1, validation_alias=AliasChoices("test", "tests"), serialization_alias="tests"),
    ]
    """As in a recipe; suites of earlier versions say tests."""


class MultipleChoice(Config):
    """Multiple choice by log-probabilities, for models whose probabilities can be read."""

    axis: Name
    test: SourceConfig


class Suite(Config):
    """What is asked and who judges. Numbers of different versions are not to be compared."""

    name: Name
    version: PositiveInt
    description: str
    data_root: FilePath | None = None
    probes: Probes = ()
    axes: Annotated[tuple[SuiteAxis, ...], AsTuple, Field(min_length=1)]
    judges: Annotated[tuple[JudgeConfig, ...], AsTuple, Field(min_length=1)]
    multiple_choice: MultipleChoice | None = None
    generation: GenerationConfig = GenerationConfig()
    notes: Annotated[tuple[str, ...], AsTuple] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        names = self.axis_names
        for index, name in enumerate(names):
            if name in names[:index]:
                raise problem(f"axes.{index}.name", f"{name!r} is there twice; names should be unique")
        if self.multiple_choice and self.multiple_choice.axis not in names:
            raise problem("multiple_choice.axis", unknown_name("axis", self.multiple_choice.axis, names))
        return self

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes in order."""
        return tuple(axis.name for axis in self.axes)

    @property
    def hash(self) -> str:
        """Identity of everything but where the data lies."""
        left_out = {"data_root"} if self.probes else {"data_root", "probes"}
        return hashlib.sha256(self.model_dump_json(exclude=left_out, by_alias=True).encode()).hexdigest()

    def data_path(self, path: Path | None) -> Path | None:
        """Return a path below `data_root`."""
        return path if path is None or self.data_root is None else self.data_root / path


@dataclass(frozen=True, slots=True)
class SuiteRows:
    """The prompts of a suite.

    Attributes:
        tests: every prompt once, axis after axis.
        choices: multiple-choice questions.
        n_skipped: bad rows left out.
        n_repeated: rows whose prompt was there already; left out.
        n_seen: rows whose prompt was to be left out.
    """

    tests: Sequence[Example]
    choices: Sequence[Example]
    n_skipped: int
    n_repeated: int
    n_seen: int = 0


def suite_names() -> list[str]:
    """Return the suites that ship with the package."""
    folder = files("mocae.pipelines") / "suites"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def is_suite(path: Path) -> bool:
    """Return whether a file or name is a suite rather than a recipe: it has a version, and names no base model."""
    if str(path) in suite_names():
        return str(path) not in shipped_recipes() and not path.exists()
    try:
        values = read_yaml(path.read_text(encoding="utf-8"), str(path)) if path.suffix in (".yaml", ".yml") else None
    except (OSError, UnicodeDecodeError, ConfigError):
        return False
    return isinstance(values, dict) and "version" in values and "base" not in values


def load_suite(name: str, overrides: Sequence[str] = ()) -> Suite:
    """Return a suite that ships with the package, or one from a YAML file.

    Args:
        name: a name in `suite_names()`, or a path ending in ".yaml".
        overrides: "key=value" with a dotted key, as in "data_root=~/data".

    Raises:
        ConfigError: no such suite, or one that does not check; one line a problem, with its dotted key.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name}: cannot be read ({error}); give a suite in YAML") from error
    elif name in suite_names():
        text = (files("mocae.pipelines") / "suites" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"{unknown_name('suite', name, suite_names())} A path ending in .yaml works too")
    values = read_yaml(text, name)
    if not isinstance(values, dict):
        raise ConfigError(f"suite {name}: expected a mapping with name, version, axes and judges")
    places = {apply_override(values, override): override for override in overrides}
    return checked_values(Suite, values, where=f"suite {name}", places=places)


def read_suite(
    suite: Suite, *, limit: int | None = None, seed: int = 0, without: Collection[str] = frozenset()
) -> SuiteRows:
    """Return the prompts of a suite.

    Args:
        suite: what to read.
        limit: most prompts of each source, drawn by hash and `seed`; None: as the suite says.
        seed: of the draw and of generated sources.
        without: identities of prompts that are left out, before the draw: what the system has learned from.

    Raises:
        DataError: a source cannot be read, or an axis is left without prompts; one line a problem.
    """
    counts = {"skipped": 0, "repeated": 0, "seen": 0}
    problems: list[str] = []

    def read(key: str, source: SourceConfig, axis: str) -> list[Example]:
        try:
            return rows_of(source, axis)
        except (ConfigError, DataError, PluginError) as error:
            problems.extend(f"suite {suite.name}: {key}: {line}" for line in str(error).splitlines())
            return []

    def rows_of(source: SourceConfig, axis: str) -> list[Example]:
        path = suite.data_path(source.path)
        if path is not None and not path.is_file() and suite.data_root is None:
            raise ConfigError(f"{source.path}: no such file; say where the data lies with --set data_root=FOLDER")
        result = read_source(source.source, path, axis=axis, on_bad_row=source.on_bad_row, options=source.options)
        counts["skipped"] += result.n_skipped
        most = source.limit if limit is None else min(limit, source.limit or limit)
        unseen = [row for row in result.examples if row.id not in without]
        counts["seen"] += len(result.examples) - len(unseen)
        if not unseen and result.examples:
            return []
        chosen = select(unseen, hash_range=source.hash_range, limit=most, seed=seed)
        for row in chosen:
            probe(row.probe)
        return chosen

    tests: dict[str, Example] = {}
    for axis in suite.axes:
        n_problems = len(problems)
        sources = [(f"axes.{axis.name}.test.{i}", source) for i, source in enumerate(axis.test)]
        for row in (row for key, source in sources for row in read(key, source, axis.name)):
            if row.id in tests:
                counts["repeated"] += 1
            tests.setdefault(row.id, row)
        if len(problems) == n_problems and not any(row.axis == axis.name for row in tests.values()):
            problems.append(
                f"suite {suite.name}: axis {axis.name!r} has no prompt of its own"
                + (" that the system has not learned from" if counts["seen"] else "")
                + "; an empty suite says nothing"
            )
    more = suite.multiple_choice
    choices = read("multiple_choice.test", more.test, more.axis) if more else []
    if problems:
        raise DataError("\n".join(problems))
    asked = list({row.id: row for row in choices}.values())
    return SuiteRows(list(tests.values()), asked, counts["skipped"], counts["repeated"], counts["seen"])


def with_endpoint_judges(suite: Suite, *, base_url: str, model: str, options: dict[str, Any] | None = None) -> Suite:
    """Return the suite judged by a language model behind an endpoint, in place of all its own judges.

    Args:
        suite: what is asked.
        base_url: of the server.
        model: name the server knows the judge by.
        options: further options of the judge `openai`.
    """
    shared = {"base_url": base_url, "model": model, **(options or {})}
    judges = tuple(JudgeConfig(judge="openai", options={"prompt": name, **shared}) for name in _ENDPOINT_PROMPTS)
    return suite.model_copy(update={"judges": judges})
