"""`mocae judge`: train the judges that learn from labelled data, and look at what was trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option, Typer, echo

from mocae.cli.options import LARGEST_SEED, AsJson, echo_json, pairs

if TYPE_CHECKING:
    from mocae.judges import JudgeAudit, JudgeQuality

__all__ = ["judge"]

judge = Typer(name="judge", no_args_is_help=True, help="Train and inspect judges that learn from labelled data.")


@judge.command()
def train(
    name: Annotated[
        str, Argument(metavar="JUDGE", help="classifier, safety-classifier, refusal-classifier or refusal-signs.")
    ],
    data: Annotated[
        list[Path], Option(metavar="FILE", help="Labelled answers; JSON, JSONL, CSV, Parquet. May be repeated.")
    ],
    out: Annotated[Path, Option(metavar="DIR", help="Folder for the judge.")],
    states: Annotated[
        str | None, Option(metavar="ID_OR_PATH", help="A causal model whose hidden states it reads, not words.")
    ] = None,
    layer: Annotated[
        list[int] | None, Option(min=0, help="A layer of that model; may be repeated. Default: one in the middle.")
    ] = None,
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of the split into learned and held-out prompts.")] = 0,
    exclude: Annotated[
        Path | None, Option(metavar="FILE", help="Prompts not to learn from: rows with a column 'prompt'.")
    ] = None,
    judgement: Annotated[
        str | None, Option(metavar="NAME", help="What `classifier` judges, and the column of its label.")
    ] = None,
    column: Annotated[
        list[str] | None,
        Option(metavar="NAME=COLUMN", help="Where `classifier` finds prompt, response, label, model. May be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a local judge, measure and audit it on held-out prompts, and save it.

    [bold]mocae judge train safety-classifier --data labelled.jsonl --out judges/safety[/bold]

    [bold]mocae judge train classifier --judgement polite --data labelled.jsonl --out judges/polite[/bold]

    A recipe or suite names it: {judge: safety-classifier, options: {saved: judges/safety}}.
    """
    from mocae.pipelines.judge_training import train_judge

    trained = train_judge(
        name,
        data,
        out=out,
        states=states,
        layers=layer or None,
        seed=seed,
        exclude=_prompts(exclude),
        judgement=judgement,
        columns=pairs(column, "--column", form="NAME=COLUMN", example="label=polite"),
    )
    quality, audit = trained.judge.quality, trained.judge.audit
    assert quality is not None  # a fitted judge is a measured one
    n_learned = len(trained.judge.learned_from)
    if as_json:
        made = {"judge": name, "folder": str(out), "seed": seed, "quality": asdict(quality)}
        unseen = [asdict(model) for model in trained.judge.unseen]
        echo_json(made | {"audit": asdict(audit) if audit else None, "unseen": unseen, "n_learned_from": n_learned})
        return
    echo(f"{name}: learned from {n_learned} prompts, seed {seed}")
    echo(_held_out(quality))
    echo(_lines(audit) if audit else f"constant answers: which are {judgement}, nobody but you knows; not audited")
    if trained.judge.unseen:
        echo("\n".join(["each model left out, with its prompts:", *(f"  {m}" for m in trained.judge.unseen)]))
    echo(f"use it: {trained.option}")


@judge.command()
def audit(
    name: Annotated[str, Argument(metavar="JUDGE", help="A judge, or JUDGE:{JSON options}, see `mocae ls judges`.")],
    data: Annotated[Path, Option(metavar="FILE", help="Prompts that the judge has not learned from.")],
    source: Annotated[
        str, Option(metavar="NAME", help="What reads the file, or NAME:{JSON options}; `mocae ls sources`.")
    ],
    as_json: AsJson = False,
) -> None:
    """Put constant answers to prompts, and count how often the judge gives the wrong verdict.

    [bold]mocae judge audit reference-truth --source truthfulqa --data TruthfulQA.csv[/bold]

    A hundred prompts of each probe are tried. Where the file has answers, a polite preface is put in front of them.
    """
    from mocae.pipelines.judge_training import audit_judge

    audited = audit_judge(name, data, source=source)
    if as_json:
        echo_json({"judge": name, "audit": asdict(audited)})
    else:
        echo(_lines(audited))


@judge.command()
def measure(
    name: Annotated[
        str, Argument(metavar="JUDGE", help="A judge of refusals, or JUDGE:{JSON options}; `mocae ls judges`.")
    ],
    data: Annotated[list[Path], Option(metavar="FILE", help="Labelled answers with their models. May be repeated.")],
    as_json: AsJson = False,
) -> None:
    """Compare a judge of refusals with labels, model by model. It learns nothing.

    [bold]mocae judge measure refusal --data do_not_answer/labelled.jsonl[/bold]
    """
    from mocae.pipelines.judge_training import measure_judge

    measured = measure_judge(name, data)
    if as_json:
        echo_json({"judge": name, "models": [asdict(model) for model in measured]})
    else:
        echo("\n".join(map(str, measured)))


def _prompts(path: Path | None) -> list[str]:
    """Return the column "prompt" of a file, nothing where there is none.

    Raises:
        DataError: the file cannot be read, or a row has no prompt.
    """
    if path is None:
        return []
    from mocae.data.readers import place, read_rows
    from mocae.data.rows import Row

    return [Row(values, f"{path}: {place(path, n)}", str(path)).text("prompt") for n, values in read_rows(path)]


def _lines(audit: JudgeAudit) -> str:
    rows = [f"  {row}{' (fails)' if row.fails else ''}" for row in audit.rows]
    return "\n".join(["constant answers, wrong verdicts:", *rows, audit.verdict])


def _held_out(quality: JudgeQuality) -> str:
    ranked = "" if quality.auroc is None else f", AUROC {quality.auroc:.3f}"
    return (
        f"held out: accuracy {quality.accuracy:.3f}, balanced accuracy {quality.balanced_accuracy:.3f}{ranked} "
        f"on {quality.n} labelled answers ({quality.note})"
    )
