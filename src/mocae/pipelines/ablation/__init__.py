"""One recipe over several seeds and settings. Import the module you need; nothing is loaded here."""

from __future__ import annotations

__all__: list[str] = []
