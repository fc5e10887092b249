"""The template environment of the report, and the two ways in which text is made safe."""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mocae.report.tables import format_estimate

__all__ = ["templates"]


@cache
def templates() -> Environment:
    """Return the templates. What goes into HTML is escaped; a name that a template lacks raises."""
    environment = Environment(
        loader=PackageLoader("mocae.report"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["prose"] = _prose
    environment.filters["breakable"] = _breakable
    environment.filters["markdown"] = _markdown
    environment.filters["estimate"] = format_estimate
    return environment


def _prose(text: str) -> str:
    """Return the text with each number tied to its unit and its n, so that no line begins with a percent sign."""
    return re.sub(r"(?<=[\d\u00b1\]]) (?=%|points|s\b|\d)|(?<=\bn) (?==)|(?<==) (?=\d)", "\u00a0", text)


def _breakable(name: str) -> Markup:
    """Return a name, escaped, that may break after a colon, hyphen or underscore."""
    return Markup("<wbr>").join(re.split(r"(?<=[:_-])", name))


def _markdown(text: object) -> str:
    """Return text on one line that Markdown prints as it is: no markup, no end of a table cell, no HTML."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(str(text).split()))
