"""What `make size` counts."""

from __future__ import annotations

from pathlib import Path

from size import import_cycle, measure, packages

SOURCE = '''"""A docstring
of two lines."""

import os  # code with a comment


# a comment
def f(
    x: int,
) -> str:
    """One line."""
    return """two
lines"""
'''


def test_blanks_comments_and_docstrings_are_no_code(tmp_path: Path) -> None:
    path = tmp_path / "package" / "part" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text(SOURCE, encoding="utf-8")
    size = measure(path)
    assert (size.code, size.lines, size.functions) == (6, 13, [6])
    assert packages([size], tmp_path) == {"part": [size]}
    assert packages([size._replace(path=tmp_path / "package" / "module.py")], tmp_path).keys() == {"."}


def test_the_package_has_no_import_cycle() -> None:
    assert import_cycle("mocae") == []
