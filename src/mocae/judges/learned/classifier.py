"""Judges that learned from labelled answers: logistic regression on words and signs, or on states of a language model.

`ClassifierJudge` is frozen and carries a quality figure from labels it has not learned from; `fitting` makes it. All is
saved as JSON and a skops file, which loads without running code.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from mocae.errors import ArtifactError, DataError
from mocae.files import read_plain
from mocae.judges.audit import JudgeAudit
from mocae.judges.base import JudgeQuality, judge_batches
from mocae.judges.learned.design import Design, endings
from mocae.judges.learned.unseen import UnseenModel
from mocae.types import Answer, Verdict

if TYPE_CHECKING:
    from mocae.judges.learned.states import StateReader

__all__ = ["ClassifierJudge", "JudgeRecord", "load_classifier", "read_judge"]

_SCHEMA_VERSION = 2


class JudgeRecord(BaseModel):
    """`judge.json`: what a saved judge is worth. A judge saved before audits has none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: int
    judge: str
    quality: JudgeQuality | None
    audit: JudgeAudit | None = None
    unseen: tuple[UnseenModel, ...] = ()
    learned_from: tuple[str, ...]
    states: _StatesRecord | None = None


class _StatesRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    fingerprint: str
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClassifierJudge:
    """A fitted judge. The score is the probability that its judgement holds.

    Attributes:
        design: what it looks at.
        parts: fitted scikit-learn parts: "vectorizers", "scaler", "model", "aspects"; with a reader "probe" alone.
        quality: agreement with held-out labels.
        learned_from: identities of the prompts it has learned from.
        reader: of the states that it looks at; None: it looks at words and signs.
        audit: what it says to constant answers to held-out prompts; None where that was not measured.
        unseen: how well it judges each labelled model when that is left out; empty where that was not measured.
    """

    design: Design
    parts: dict[str, Any] = field(repr=False)
    quality: JudgeQuality | None
    learned_from: frozenset[str] = field(repr=False)
    reader: StateReader | None = field(default=None, repr=False)
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
        if self.reader is not None:
            return np.asarray(self.parts["probe"].predict_proba(self.reader.read(pairs))[:, 1], dtype=np.float64)
        features = self.design.features(self.parts, pairs)
        probs = self.parts["model"].predict_proba(features)[:, 1]
        if self.parts["aspects"]:
            # Any aspect that holds makes the whole hold: 1 - prod(1 - p), averaged with the direct estimate.
            none_holds = np.prod([1 - model.predict_proba(features)[:, 1] for model in self.parts["aspects"]], axis=0)
            probs = (probs + 1 - none_holds) / 2
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
        reader = self.reader
        record = JudgeRecord(
            schema_version=_SCHEMA_VERSION,
            judge=self.name,
            quality=self.quality,
            audit=self.audit,
            unseen=self.unseen,
            learned_from=tuple(sorted(self.learned_from)),
            states=_StatesRecord(model=reader.name, fingerprint=reader.fingerprint, layers=reader.layers)
            if reader
            else None,
        )
        (folder / "judge.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        if self.design.sign_names:
            signs = json.dumps(self.design.weights(self.parts), indent=1) + "\n"
            (folder / "signs.json").write_text(signs, encoding="utf-8")


def load_classifier(
    folder: Path, design: Design, *, states: str | None = None, exclude_prompts: Collection[str] = ()
) -> ClassifierJudge:
    """Return the judge `ClassifierJudge.save` wrote.

    Args:
        folder: where it was saved.
        design: the design it was fitted with.
        states: where the model whose states it reads lies now; None: where it lay. Its weights must be the same.
        exclude_prompts: identities of prompts it must not have learned from.

    Raises:
        ArtifactError: files are missing, damaged, of another judge or version, hold types that are not plain
            scikit-learn, or the judge has learned from an excluded prompt.
    """
    record = read_judge(folder)
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
    reader = None
    if record.states is not None:
        from mocae.judges.learned.states import load_reader  # imports torch, which words do not need

        reader = load_reader(states or record.states.model, record.states.layers)
        if reader.fingerprint != record.states.fingerprint:
            raise ArtifactError(
                f"{folder}: judge {name!r} was fitted on states of another model than {reader.name!r}; name the model "
                "it was fitted with, or fit it again"
            )
    return ClassifierJudge(design, parts, record.quality, learned_from, reader, record.audit, record.unseen)


def read_judge(folder: Path) -> JudgeRecord:
    """Return what the folder of a saved judge says of it, without loading the judge.

    Raises:
        ArtifactError: `judge.json` is missing or damaged.
    """
    try:
        return JudgeRecord.model_validate_json(read_plain(folder / "judge.json", links=True))
    except (ArtifactError, OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: judge.json is missing or damaged ({error}); fit the judge again") from error


def _load_parts(path: Path, design: Design) -> dict[str, Any]:
    from skops import io

    try:
        parts = io.loads(read_plain(path, links=True), trusted=[])  # nothing beyond what skops trusts by itself
        reads_words = {"vectorizers", "scaler", "model", "aspects"} <= parts.keys()
        if "probe" not in parts and not (reads_words and len(parts["vectorizers"]) == len(design.views)):
            raise KeyError("parts")
    except Exception as error:  # skops, zip and JSON each raise their own, and a hostile file whatever it likes
        raise ArtifactError(
            f"{path}: does not load ({type(error).__name__}: {error}); expected parts saved by this package"
        ) from error
    return dict(parts)
