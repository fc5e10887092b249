"""The 14 categories of harm of BeaverTails, in the order of its moderation models."""

from __future__ import annotations

__all__ = ["HARM_CATEGORIES"]

HARM_CATEGORIES = (
    "animal_abuse",
    "child_abuse",
    "controversial_topics,politics",
    "discrimination,stereotype,injustice",
    "drug_abuse,weapons,banned_substance",
    "financial_crime,property_crime,theft",
    "hate_speech,offensive_language",
    "misinformation_regarding_ethics,laws_and_safety",
    "non_violent_unethical_behavior",
    "privacy_violation",
    "self_harm",
    "sexually_explicit,adult_content",
    "terrorism,organized_crime",
    "violence,aiding_and_abetting,incitement",
)
"""Reference: Ji et al., *BeaverTails*, arXiv:2307.04657, section 3.1."""
