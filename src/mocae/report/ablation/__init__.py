"""Draws `ablation.json`: one self-contained page, a Markdown table and a plot."""

from mocae.report.ablation.page import ablation_page
from mocae.report.ablation.reading import ABLATION_SCHEMA, PartReading, check_ablation, headline, read_parts
from mocae.report.ablation.table import ablation_table, draw_ablation

__all__ = [
    "ABLATION_SCHEMA",
    "PartReading",
    "ablation_page",
    "ablation_table",
    "check_ablation",
    "draw_ablation",
    "headline",
    "read_parts",
]
