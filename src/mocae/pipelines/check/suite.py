"""Whether a suite can be asked: its sources, judges and files, and a judge with a say on every axis."""

from __future__ import annotations

from pathlib import Path

from mocae.data import SOURCES
from mocae.errors import ConfigError, DataError
from mocae.judges import JUDGES
from mocae.judges.base import Says
from mocae.pipelines.check.names import plugin_problems, says_of_judge
from mocae.pipelines.check.rows import unjudged
from mocae.pipelines.suite import Suite, SuiteRows, read_suite

__all__ = ["check_suite", "refuse_unjudged"]


def check_suite(suite: Suite, *, limit: int | None = None) -> SuiteRows:
    """Return the prompts of a suite that can be asked and judged. Reads rows, and no weight.

    Raises:
        ConfigError: a name is not registered, an option does not exist, or a file is missing; one line a problem.
        DataError: rows cannot be read, or no judge has a say on an axis.
    """
    problems: list[str] = []
    sources = [(f"axes.{axis.name}.test.{i}", s) for axis in suite.axes for i, s in enumerate(axis.test)]
    if suite.multiple_choice:
        sources.append(("multiple_choice.test", suite.multiple_choice.test))
    for key, source in sources:
        problems += plugin_problems(f"{key}.source", SOURCES, source.source, source.options)[0]
        path = suite.data_path(source.path)
        if path is not None and not path.exists():
            problems.append(f"{key}.path: no file {str(path)!r}; say where the data lies with --set data_root=FOLDER")
    for index, judge in enumerate(suite.judges):
        wrong, options = plugin_problems(f"judges.{index}.judge", JUDGES, judge.judge, judge.options)
        problems += wrong
        files = [value for value in options.values() if isinstance(value, Path)]
        problems += [
            f"judges.{index}.options: no file {str(path)!r}; say where the data lies with --set data_root=FOLDER"
            for path in (suite.data_path(file) or file for file in files)
            if not path.exists()
        ]
    if problems:
        raise ConfigError("\n".join(f"suite {suite.name}: {problem}" for problem in problems))
    rows = read_suite(suite, limit=limit)
    refuse_unjudged(suite, rows)
    return rows


def refuse_unjudged(suite: Suite, rows: SuiteRows) -> list[str]:
    """Return notes on prompts that no judge of the suite can judge.

    Raises:
        DataError: these are all prompts of an axis.
    """
    problems: list[str] = []
    says: list[tuple[str, Says | None]] = []
    for index, judge in enumerate(suite.judges):
        options = plugin_problems(f"judges.{index}.judge", JUDGES, judge.judge, judge.options)[1]
        said = says_of_judge(judge.judge, options, f"judges.{index}", problems, data_root=suite.data_root)
        says.append((judge.judge, said))
    asked = {f"axes.{name}.test": [row for row in rows.tests if row.axis == name] for name in suite.axis_names}
    more, notes = unjudged({key: found for key, found in asked.items() if found}, says)
    if problems or more:
        raise DataError("\n".join(f"suite {suite.name}: {problem}" for problem in (*problems, *more)))
    return notes
