"""Stages put together: a recipe in, an artifact out. Import the module you need; nothing is loaded here."""

from __future__ import annotations

__all__: list[str] = []
