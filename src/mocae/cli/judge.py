"""`mocae judge`: ask judges about answers, train those that learn from labelled data, and see what one is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option, Typer, echo

from mocae.cli.options import LARGEST_SEED, AsJson, Progress, echo_json, pairs

if TYPE_CHECKING:
    from mocae.judges import JudgeAudit, JudgeQuality

__all__ = ["judge"]

judge = Typer(
    name="judge", no_args_is_help=True, help="Ask judges about answers you have; train judges, see what one is worth."
)


@judge.command()
def run(
    names: Annotated[
        list[str],
        Argument(
            metavar="JUDGE_OR_SUITE...",
            help="Judges (`mocae ls judges`), JUDGE:{JSON options}, folders of trained ones, or a suite.",
        ),
    ],
    answers: Annotated[Path, Option(metavar="FILE", help="Prompts and responses: JSON, JSONL, CSV or Parquet.")],
    out: Annotated[
        Path | None, Option(metavar="DIR", help="Folder for verdicts, report and page; else FILE.judged.")
    ] = None,
    column: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=COLUMN",
            help="Where prompt, response, system, kind, probe, group or a fact, as reference, stands. Can be repeated.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None, Option(metavar="COLUMN=TEXT", help="Keep rows that match; != and * work. Can be repeated.")
    ] = None,
    kind_of_prompt: Annotated[
        str | None, Option("--probe", metavar="NAME", help="The kind of all prompts, see `mocae ls probes`.")
    ] = None,
    prompts: Annotated[
        Path | None, Option(metavar="FILE", help="The prompts, with what judges need: references, checks, kinds.")
    ] = None,
    source: Annotated[
        str, Option(metavar="NAME", help="What reads --prompts, or NAME:{JSON options}; `mocae ls sources`.")
    ] = "examples",
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change a key of the suite, e.g. data_root=~/data.")
    ] = None,
    on_bad_row: Annotated[
        Literal["error", "skip"],
        Option(help="What a row that cannot be used does: stop all, or be counted and left out."),
    ] = "error",
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of judges that learn and of intervals.")] = 0,
    as_json: AsJson = False,
    progress: Progress = True,
) -> None:
    """Judge answers that you have: verdicts beside them, rates with intervals, where judges disagree, a page.

    [bold]mocae judge run refusal --answers answers.jsonl[/bold]

    [bold]mocae judge run refusal judges/refusal --answers completions.csv --column kind=type[/bold]

    [bold]mocae judge run over-refusal --set data_root=data --answers completions.csv[/bold]

    [bold]mocae judge run ifeval --answers responses.jsonl --prompts input_data.jsonl --source ifeval[/bold]

    Columns are found by their usual names (prompt or instruction; response, answer, completion or output; system or
    model). A suite, --prompts or --probe says what is wanted of an answer; else rates are what judges say, no more.
    The same command goes on where it was stopped, and asks no judge twice about one answer.
    """
    from mocae.pipelines.answers import Asked, judge_answers_of

    asked = Asked(
        names,
        settings=settings or (),
        columns=pairs(column, "--column", form="NAME=COLUMN", example="response=completion"),
        where=where or (),
        kind_of_prompt=kind_of_prompt,
        prompts=prompts,
        source=source,
        on_bad_row=on_bad_row,
        seed=seed,
    )
    place = out or answers.with_name(f"{answers.name}.judged")
    result = judge_answers_of(answers, asked, out=place, progress=progress)
    if as_json:
        echo_json(result.report)
    else:
        _print_rates(result.report, result.html_path)


def _print_rates(report: Mapping[str, Any], page: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from mocae.cli.tables import numbers, print_fitted
    from mocae.report import disagreements, judge_rows, rates_table

    rates, out = rates_table(report), Console()
    heads = (f"{column.group}\n{column.label}" if column.group else column.label for column in rates.columns)
    table = Table("answers of", *numbers(*heads), title=f"{report['recipe']['name']}: share on which a judgement holds")
    for row in rates.rows:
        table.add_row(row.name, *(f"{cell.text} {cell.interval}".rstrip() for cell in row.cells))
    print_fitted(out, table, elsewhere=f"{page.name} has them")
    lines = [f"judge {row.name}: {row.short}{f'; {row.trust}' if row.trust else ''}" for row in judge_rows(report)]
    lines += [*disagreements(report), *(f"note: {note}" for note in report["notes"]), f"verdicts and page: {page}"]
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


@judge.command()
def show(
    name: Annotated[
        str, Argument(metavar="DIR", help="A folder of `mocae judge train`; or a judge, or JUDGE:{JSON options}.")
    ],
    as_json: AsJson = False,
) -> None:
    """Print what a judge is worth: its agreement with labels it has not learned from, and its audit.

    [bold]mocae judge show judges/safety[/bold]

    [bold]mocae judge show refusal[/bold]
    """
    from mocae.pipelines.judge_training import worth_of

    worth = worth_of(name)
    if as_json:
        echo_json(asdict(worth))
        return
    echo(f"{worth.judge}: {worth.about}")
    echo(
        "exact: the task defines which answers are right"
        if worth.exact
        else "never compared with labels; `mocae judge measure` or `mocae score kappa` does, on yours"
        if worth.quality is None
        else _held_out(worth.quality)
    )
    if worth.audit is not None:
        echo(_lines(worth.audit))
    elif not worth.exact:
        echo("not audited here: mocae judge audit puts constant answers to it, on prompts of yours")
    if worth.unseen:
        echo("\n".join(["each model left out, with its prompts:", *(f"  {model}" for model in worth.unseen)]))
    if worth.n_learned_from:
        echo(
            f"learned from {worth.n_learned_from} prompts"
            + (f", reads states of {worth.states}" if worth.states else "")
        )


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
