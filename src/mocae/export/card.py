"""What an export says of itself: the README with the commands that load it, and other texts made from templates."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader

from mocae.models import BASE_MODELS

__all__ = ["export_card", "written"]

_LIBRARY = {"merged": "transformers"}
"""Format -> the library that loads it, where it has another name."""


def written(template: str, values: Mapping[str, Any]) -> str:
    """Return a text made from a template of this package; nothing in it is escaped as HTML."""
    environment = Environment(
        loader=PackageLoader("mocae.export"), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"shell": shlex.quote, "json": json.dumps}
    return environment.get_template(template).render(values)


def export_card(manifest: Mapping[str, Any]) -> str:
    """Return the README of an export, front matter first."""
    base, to, copy = manifest["base"]["model"], manifest["format"], manifest["base"].get("copy")
    front = {
        **({} if copy or base in BASE_MODELS else {"base_model": base}),  # the Hub knows no name of ours
        "library_name": _LIBRARY.get(to, to),
        "pipeline_tag": "text-generation",
        "tags": ["mocae", "lora" if to != "merged" else "merge", "mixture-of-experts", "alignment"],
    }
    named = json.dumps(base) if copy is None else f'f"{{folder}}/{copy}"' if to == "peft" else f"`{copy}/`"
    facts = {"front": yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(), "base_code": named}
    return written("card.md.j2", {**manifest, **facts})
