"""Every kind of system that can be compared, loaded, served and exported: one class a file, one registry."""

from __future__ import annotations

from mocae.systems.base import SYSTEMS, BankSystem, NoOptions, System, build_system, build_systems, task_vectors
from mocae.systems.routers import LearningOptions, LearningSystem

__all__ = [
    "SYSTEMS",
    "BankSystem",
    "LearningOptions",
    "LearningSystem",
    "NoOptions",
    "System",
    "build_system",
    "build_systems",
    "task_vectors",
]
