"""Draws a finished run: `report.html` for readers and `README.md`, the model card, from `report.json`."""

from mocae.report.card import card_text
from mocae.report.comparison import comparison_page
from mocae.report.findings import Finding, Findings, find
from mocae.report.html import html_page
from mocae.report.judged import disagreements, judged_page, rates_table
from mocae.report.judges import judge_rows
from mocae.report.samples import samples_payload
from mocae.report.schema import SCHEMA, check_report
from mocae.report.tables import Table, format_estimate, systems_table
from mocae.report.writing import write_report

__all__ = [
    "SCHEMA",
    "Finding",
    "Findings",
    "Table",
    "card_text",
    "check_report",
    "comparison_page",
    "disagreements",
    "find",
    "format_estimate",
    "html_page",
    "judge_rows",
    "judged_page",
    "rates_table",
    "samples_payload",
    "systems_table",
    "write_report",
]
