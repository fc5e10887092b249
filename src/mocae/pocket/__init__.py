"""The embedded default: a small world whose answers can be checked exactly, and a base model for it.

A model organism: every number from it is labelled *synthetic, tiny model*.
"""

from __future__ import annotations

from mocae.pocket.assets import pocket_model_path
from mocae.pocket.verify import verify
from mocae.pocket.world import AXES, SPLITS, axis_rows, probe_rows, topics

__all__ = ["AXES", "SPLITS", "axis_rows", "pocket_model_path", "probe_rows", "topics", "verify"]
