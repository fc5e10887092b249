"""Whether any judgement of one's own holds of an answer, learned from rows with that label."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mocae.axes import PROBES, wants_judgement
from mocae.data.readers import place, read_rows
from mocae.data.rows import Row
from mocae.errors import ConfigError, unknown_name
from mocae.judges.base import Says
from mocae.judges.learned.classifier import ClassifierJudge, load_classifier, read_judge
from mocae.judges.learned.design import Design, LabelledAnswer, View
from mocae.judges.learned.features import safety_signs
from mocae.judges.learned.fitting import fit_labelled

__all__ = ["classifier", "fit_classifier", "own_design", "read_labels"]

_NAME = "classifier"
_COLUMNS = ("prompt", "response", "label", "model")
_LABELS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def own_design(judgement: str) -> Design:
    """Return what a judge of any judgement looks at: words and characters of the answer, and its length and shape."""
    probes = frozenset(name for name in PROBES if wants_judgement(name, judgement))
    return Design(
        name=f"{_NAME}:{judgement}",
        judgement=judgement,
        probes=probes or None,
        labels=(judgement, f"not {judgement}"),
        views=(
            View(lambda _, answer: answer, unit="marks", n_grams=(1, 2), min_rows=1),
            View(lambda _, answer: answer, unit="characters", n_grams=(2, 5), min_rows=1),
        ),
        signs=safety_signs,
        signs_weight=0.5,
        strength=1.0,
        aspect_strength=None,
        empty=0.0,
        balanced=True,
    )


def read_labels(
    labelled: Sequence[Path], *, judgement: str, columns: Mapping[str, str] | None = None
) -> list[LabelledAnswer]:
    """Return the labelled answers of files.

    Args:
        labelled: files of rows with a prompt, a response, a label (true, yes or 1; false, no or 0) and maybe a model.
        judgement: what is labelled; its name is the column of the label unless `columns` gives another.
        columns: "prompt", "response", "label", "model" -> column of the file; left out: of the same name.

    Raises:
        ConfigError: a column that is not used.
        DataError: a file cannot be read, or a row has no such column or another label.
    """
    for name in columns or {}:
        if name not in _COLUMNS:
            raise ConfigError(f"judge {_NAME!r}: columns: {unknown_name('column', name, _COLUMNS)}")
    of = {name: name for name in _COLUMNS} | {"label": judgement} | dict(columns or {})
    rows = (Row(values, f"{path}: {place(path, n)}", path.name) for path in labelled for n, values in read_rows(path))
    return [
        LabelledAnswer(
            row.text(of["prompt"]),
            row.text(of["response"], may_be_empty=True),
            _holds(row, of["label"]),
            model=row.optional(of["model"]) or None,
        )
        for row in rows
    ]


def _holds(row: Row, column: str) -> bool:
    word = str(row.json(column)).strip().lower()
    if word not in _LABELS:
        raise row.wrong(column, repr(word[:40]), f"one of {', '.join(_LABELS)}")
    return _LABELS[word]


def fit_classifier(
    *labelled: Path, judgement: str, columns: Mapping[str, str] | None = None, **how: Any
) -> ClassifierJudge:
    """Return a judge of `judgement`, fitted and measured; see `read_labels` and `fit_labelled`, which `how` goes to."""
    read = partial(read_labels, judgement=judgement, columns=columns)
    return fit_labelled(own_design(judgement), read, *labelled, **how)


def classifier(
    *,
    judgement: str | None = None,
    labelled: Path | None = None,
    saved: Path | None = None,
    columns: dict[str, str] | None = None,
    states: str | None = None,
    layers: list[int] | None = None,
    seed: int = 0,
    exclude_prompts: Collection[str] = (),
) -> ClassifierJudge:
    """Return a judge of any judgement, fitted on your own labelled answers or loaded from a folder.

    Args:
        judgement: what is judged; every prompt whose probe wants it is. Not needed with `saved`, which knows.
        labelled: answers with their labels, to learn from.
        saved: folder of a judge saved before; give one of the two.
        columns: "prompt", "response", "label", "model" -> column of the file.
        states: folder or hub id of a causal model whose states it looks at in place of words, in a recipe also "base";
            for `saved`, where it lies now.
        layers: numbers of decoder layers whose input it looks at; None: one in the middle.
        seed: of the split into learned and held-out prompts.
        exclude_prompts: identities of prompts it must not learn, or have learned, from.

    Raises:
        ConfigError: both or none of `labelled` and `saved`, `labelled` without `judgement`, or a model that cannot be
            loaded.
        DataError: the labelled data cannot be used.
        ArtifactError: the saved judge cannot be used.
    """
    if saved is not None and labelled is None:
        name = read_judge(saved).judge.removeprefix(f"{_NAME}:")
        return load_classifier(saved, own_design(judgement or name), states=states, exclude_prompts=exclude_prompts)
    if labelled is None or saved is not None or judgement is None:
        raise ConfigError(
            f"judge {_NAME!r} needs the options 'judgement' and 'labelled' (data to learn from), or 'saved' (folder of "
            "a fitted judge)"
        )
    return fit_classifier(
        labelled,
        judgement=judgement,
        columns=columns,
        states=states,
        layers=layers,
        seed=seed,
        exclude_prompts=exclude_prompts,
    )


def _says(*, judgement: str | None = None, **_: Any) -> Says | None:
    return None if judgement is None else lambda e: (judgement,) if wants_judgement(e.probe, judgement) else ()


classifier.says = _says  # type: ignore[attr-defined]
