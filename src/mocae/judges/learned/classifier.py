"""Judges that learned from labelled answers: TF-IDF views of prompt and answer, hand-made signs, logistic regression.

`ClassifierJudge` is frozen and carries a quality figure from labels it has not learned from; `fitting` makes it. With a
sentence encoder a second classifier reads its vectors, and both have half a say in log-odds. All is saved as JSON and a
skops file, which loads without running code.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from mocae.errors import ArtifactError, DataError
from mocae.files import read_plain
from mocae.judges.audit import JudgeAudit
from mocae.judges.base import JudgeQuality, judge_batches
from mocae.judges.learned.design import Design, endings
from mocae.judges.learned.encoder import SentenceEncoder, load_encoder
from mocae.judges.learned.unseen import UnseenModel
from mocae.types import Answer, Verdict

__all__ = ["ClassifierJudge", "load_classifier", "saved_audit"]

_SCHEMA_VERSION = 1


class _Record(BaseModel):
    """The schema of `judge.json`. A judge saved before audits has none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: int
    judge: str
    quality: JudgeQuality | None
    audit: JudgeAudit | None = None
    unseen: tuple[UnseenModel, ...] = ()
    learned_from: tuple[str, ...]
    encoder: _EncoderRecord | None = None


class _EncoderRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ClassifierJudge:
    """A fitted judge. The score is the probability that its judgement holds.

    Attributes:
        design: what it looks at.
        parts: fitted scikit-learn parts: "vectorizers", "scaler", "model", "aspects"; with an encoder "kernel", "odds".
        quality: agreement with held-out labels.
        learned_from: identities of the prompts it has learned from.
        encoder: of prompts and answers; None: words alone.
        audit: what it says to constant answers to held-out prompts; None where that was not measured.
        unseen: how well it judges each labelled model when that is left out; empty where that was not measured.
    """

    design: Design
    parts: dict[str, Any] = field(repr=False)
    quality: JudgeQuality | None
    learned_from: frozenset[str] = field(repr=False)
    encoder: SentenceEncoder | None = field(default=None, repr=False)
    audit: JudgeAudit | None = field(default=None, repr=False)
    unseen: tuple[UnseenModel, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """Registered name."""
        return self.design.name

    @property
    def judgements(self) -> tuple[str, ...]:
        """The one judgement it gives."""
        return (self.design.judgement,)

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return the verdict on each answer to a probe of the design, {} for the others."""
        design = self.design

        def read(batch: Sequence[Answer]) -> list[dict[str, Verdict]]:
            pairs = [(answer.example.prompt, answer.text) for answer in batch]
            return [
                {design.judgement: Verdict(score, design.label(score, *pair))}
                for score, pair in zip(self.scores(pairs), pairs, strict=True)
            ]

        return judge_batches(
            answers,
            lambda answer: design.probes is None or answer.example.probe in design.probes,
            read,
            judge=self.name,
            judgements=self.judgements,
            batch_size=max(1, len(answers)),
        )

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return the probability that the judgement holds for each pair of prompt and answer.

        Raises:
            DataError: no pairs.
        """
        if not pairs:
            raise DataError(f"judge {self.name!r} got no answers; expected at least one")
        parts = [
            (i, (prompt, end)) for i, (prompt, text) in enumerate(pairs) for end in endings(text, self.design.drops)
        ]
        highest = [0.0] * len(pairs)
        for (i, _), prob in zip(parts, self._probs([pair for _, pair in parts]), strict=True):
            highest[i] = max(highest[i], float(prob))
        return self.design.scores(highest, [text for _, text in pairs])

    def _probs(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        from scipy.special import expit

        features = self.design.features(self.parts, pairs)
        probs = self.parts["model"].predict_proba(features)[:, 1]
        if self.parts["aspects"]:
            # Any aspect that holds makes the whole hold: 1 - prod(1 - p), averaged with the direct estimate.
            none_holds = np.prod([1 - model.predict_proba(features)[:, 1] for model in self.parts["aspects"]], axis=0)
            probs = (probs + 1 - none_holds) / 2
        if self.encoder is not None:
            margins = self.parts["kernel"].decision_function(self.encoder.pairs(pairs))
            probs = expit((_log_odds(probs) + self.parts["odds"].decision_function(margins[:, None])) / 2)
        return np.asarray(probs)

    def save(self, folder: Path) -> None:
        """Write `judge.json` and `judge.skops` into a folder, which is made.

        Raises:
            ArtifactError: the folder holds a judge already.
        """
        from skops import io

        if (folder / "judge.json").exists():
            raise ArtifactError(f"{folder}: holds a judge already; choose another folder or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        io.dump(self.parts, folder / "judge.skops", compression=zipfile.ZIP_DEFLATED)
        encoder = self.encoder
        record = _Record(
            schema_version=_SCHEMA_VERSION,
            judge=self.name,
            quality=self.quality,
            audit=self.audit,
            unseen=self.unseen,
            learned_from=tuple(sorted(self.learned_from)),
            encoder=_EncoderRecord(model=encoder.name, fingerprint=encoder.fingerprint) if encoder else None,
        )
        (folder / "judge.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if self.design.sign_names:
            signs = json.dumps(self.design.weights(self.parts), indent=1) + "\n"
            (folder / "signs.json").write_text(signs, encoding="utf-8")


def _log_odds(probs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(probs, 1e-9, 1 - 1e-9)
    return np.log(clipped) - np.log1p(-clipped)


def load_classifier(
    folder: Path, design: Design, *, encoder: str | None = None, exclude_prompts: Collection[str] = ()
) -> ClassifierJudge:
    """Return the judge `ClassifierJudge.save` wrote.

    Args:
        folder: where it was saved.
        design: the design it was fitted with.
        encoder: where its encoder lies now; None: where it lay. Its weights must be the same.
        exclude_prompts: identities of prompts it must not have learned from.

    Raises:
        ArtifactError: files are missing, damaged, of another judge or version, hold types that are not plain
            scikit-learn, or the judge has learned from an excluded prompt.
    """
    record = _read(folder)
    version, name, learned_from = record.schema_version, record.judge, frozenset(record.learned_from)
    if (version, name) != (_SCHEMA_VERSION, design.name):
        raise ArtifactError(
            f"{folder}: holds judge {name!r} of version {version}; expected {design.name!r} of version "
            f"{_SCHEMA_VERSION}"
        )
    leaked = learned_from.intersection(exclude_prompts)
    if leaked:
        raise ArtifactError(
            f"{folder}: judge {name!r} has learned from {len(leaked)} prompts of the test split; expected none, fit it "
            "again with these prompts excluded"
        )
    parts = _load_parts(folder / "judge.skops", design)
    eyes = None
    if record.encoder is not None:
        eyes = load_encoder(encoder or record.encoder.model)
        if eyes.fingerprint != record.encoder.fingerprint:
            raise ArtifactError(
                f"{folder}: judge {name!r} was fitted with an encoder of other weights than those of {eyes.name!r}; "
                "name the encoder it was fitted with, or fit it again"
            )
    return ClassifierJudge(design, parts, record.quality, learned_from, eyes, record.audit, record.unseen)


def saved_audit(folder: Path) -> JudgeAudit | None:
    """Return the audit in a judge's folder without loading the judge; None where it was saved without one.

    Raises:
        ArtifactError: `judge.json` is missing or damaged.
    """
    return _read(folder).audit


def _read(folder: Path) -> _Record:
    try:
        return _Record.model_validate_json(read_plain(folder / "judge.json", links=True))
    except (ArtifactError, OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: judge.json is missing or damaged ({error}); fit the judge again") from error


def _load_parts(path: Path, design: Design) -> dict[str, Any]:
    from skops import io

    try:
        parts = io.loads(read_plain(path, links=True), trusted=[])  # nothing beyond what skops trusts by itself
        if len(parts["vectorizers"]) != len(design.views) or not {"scaler", "model", "aspects"} <= parts.keys():
            raise KeyError("parts")
    except Exception as error:  # skops, zip and JSON each raise their own, and a hostile file whatever it likes
        raise ArtifactError(
            f"{path}: does not load ({type(error).__name__}: {error}); expected parts saved by this package"
        ) from error
    return dict(parts)
