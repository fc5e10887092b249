"""The figures of a report: each function returns a `Plate`, drawn from the numbers or with the reason why not."""

from mocae.report.figures.canvas import Panel, Plate
from mocae.report.figures.forest import TONES, draw_forest
from mocae.report.figures.forgetting import draw_forgetting
from mocae.report.figures.overlap import draw_overlap
from mocae.report.figures.reliability import draw_reliability
from mocae.report.figures.routing import draw_routing
from mocae.report.figures.rows import draw_kinds, draw_refusal, draw_routers, draw_systems

__all__ = [
    "TONES",
    "Panel",
    "Plate",
    "draw_forest",
    "draw_forgetting",
    "draw_kinds",
    "draw_overlap",
    "draw_refusal",
    "draw_reliability",
    "draw_routers",
    "draw_routing",
    "draw_systems",
]
