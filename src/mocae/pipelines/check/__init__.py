"""What can be found out before any work: whether a recipe or suite can run, and whether it can show anything."""

from __future__ import annotations

from mocae.pipelines.check.recipe import Checked, check, load_checked, validate

__all__ = ["Checked", "check", "load_checked", "validate"]
