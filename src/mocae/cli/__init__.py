"""The command `mocae`: one file a command; each parses, calls a pipeline and prints."""

from __future__ import annotations

from mocae.cli.app import main

__all__ = ["main"]
