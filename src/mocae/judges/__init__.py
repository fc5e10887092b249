"""Judges: answers to verdicts, each with a measure of how far it can be trusted.

A judge is registered under a name with a function or class that makes it; its annotated keyword arguments are its
options. Installed packages add their own under the entry point group `mocae.judges`.
"""

from __future__ import annotations

from mocae.judges.audit import (
    AuditPrompt,
    AuditRow,
    ConstantAnswer,
    JudgeAudit,
    audit_judges,
    audit_prompts,
    is_audited,
)
from mocae.judges.base import (
    JUDGES,
    Judge,
    JudgeQuality,
    build_judge,
    judge_each,
    reference_of,
    sayings,
    unscored,
    with_correct,
)

__all__ = [
    "JUDGES",
    "AuditPrompt",
    "AuditRow",
    "ConstantAnswer",
    "Judge",
    "JudgeAudit",
    "JudgeQuality",
    "audit_judges",
    "audit_prompts",
    "build_judge",
    "is_audited",
    "judge_each",
    "reference_of",
    "sayings",
    "unscored",
    "with_correct",
]
