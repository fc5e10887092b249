"""`mocae export`, `mocae push` and `mocae pull`: take a finished run to another stack, and to and from a hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from typer import Argument, Option, echo

from mocae.cli import options as opt

if TYPE_CHECKING:
    from mocae.export.gguf import NumberFormat

__all__ = ["FORMS", "NUMBERS", "export", "pull", "push"]


FORMS = ("peft", "merged", "gguf", "vllm", "lorax")
NUMBERS = ("f32", "f16", "bf16")
"""Number formats of GGUF."""


Repository = Annotated[str, Argument(metavar="OWNER/NAME", help="Model repository on the Hub.")]
Revision = Annotated[str | None, Option(help="Branch, tag or commit; default: the main branch.")]


def export(
    artifact: Annotated[Path, Argument(metavar="DIR", help="Folder a run or a build has written.")],
    to: Annotated[
        str, Option(metavar="FORM", parser=opt.one_of(FORMS, "form"), help=f"One of: {', '.join(FORMS)}; see above.")
    ],
    out: Annotated[Path, Option(metavar="DIR", help="New folder for the export.")],
    system: Annotated[str | None, Option(metavar="NAME", help="Which system of the run; else its best router.")] = None,
    weights: Annotated[
        str | None,
        Option(
            metavar="A=W,B=W",
            help="All but vllm: weight of every expert, as helpfulness=0.7,honesty=-0.2; peft, merged need it.",
        ),
    ] = None,
    rank: Annotated[
        int | None, Option(min=1, help="peft, vllm: cut adapters to this rank by SVD; default: exact.")
    ] = None,
    numbers: Annotated[
        str | None,
        Option(
            metavar="FORMAT",
            parser=opt.one_of(NUMBERS, "number format"),
            help=f"gguf: number format of matrices, one of {', '.join(NUMBERS)}; default: f16.",
        ),
    ] = None,
    mixtures: Annotated[int | None, Option(min=1, help="vllm: mixtures in the code book; default: 8.")] = None,
    measure: Annotated[
        bool | None, Option(help="vllm: answer the recipe's test prompts with and without the code book; default: yes.")
    ] = None,
    base_model: opt.BaseModel = None,
    seed: Annotated[int | None, Option(min=0, max=opt.LARGEST_SEED, help="vllm: of the code book; default: 0.")] = None,
    as_json: opt.AsJson = False,
    progress: opt.Progress = True,
) -> None:
    """Write a finished run in the form another stack reads.

    [bold]peft[/bold]: one plain LoRA for given weights, exact, or cut to --rank with the error printed.
    [bold]merged[/bold]: a standard Hugging Face model with the experts in its weights.
    [bold]gguf[/bold]: base and experts for llama.cpp, which takes the weights with each request.
    [bold]vllm[/bold]: a few mixtures as LoRA adapters, and the router for `mocae gateway`.
    [bold]lorax[/bold]: adapters that LoRAX mixes per request, and the requests.

    [bold]mocae export out/pocket --to peft --weights helpfulness=0.7,honesty=-0.2 --out out/lora[/bold]

    [bold]mocae export out/pocket --to vllm --mixtures 8 --out out/vllm[/bold]

    [bold]mocae export out/pocket --system joint --to peft --out out/joint[/bold]
    """
    from mocae.pipelines.export import ExportOptions
    from mocae.pipelines.export import export as run_export

    options = ExportOptions(
        weights=opt.numbers(opt.words(weights, "--weights"), "--weights"),
        rank=rank,
        number_format=cast("NumberFormat | None", numbers),
        n_mixtures=mixtures,
        measure=measure,
        seed=seed,
    )
    manifest = run_export(
        artifact, to=to, out=out, system=system, options=options, base_model=base_model, progress=progress
    )
    if as_json:
        opt.echo_json(manifest)
    else:
        echo("\n".join(_lines(manifest, out)))


def _lines(manifest: Mapping[str, Any], out: Path) -> list[str]:
    """Return what an export is and how far it differs from the run, a line each."""
    lines = [f"{manifest['format']}: {len(manifest['files'])} files in {out}; README.md says how to load them"]
    if "rank" in manifest:
        lines.append(f"rank {manifest['rank']}")
    if "relative_error" in manifest:
        lines.append(f"relative error of the change (Frobenius) {manifest['relative_error']:.3g}")
    if "relative_errors" in manifest:
        lines.append(f"relative error of the changes (Frobenius) at most {max(manifest['relative_errors']):.3g}")
    if "mixtures" in manifest:
        lines.append(
            f"{len(manifest['mixtures'])} mixtures; {100 * manifest['moved_weight']:.1f} % of the weight moved on "
            "calibration prompts"
        )
    measured = manifest.get("measured")
    if measured:
        lines.append(
            f"acceptable answers on {measured['n']} test prompts: exact {measured['exact']:.3f}, code book "
            f"{measured['code_book']:.3f} (loss {measured['loss']:+.3f}; {measured['changed']} verdicts differ)"
        )
    return lines + [f"note: {note}" for note in manifest.get("notes") or ()]


def push(
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder of a run, a build or an export.")],
    repository: Repository,
    public: Annotated[bool, Option("--public", help="Make a new repository public.")] = False,
    with_answers: Annotated[
        bool, Option("--with-answers", help="Publish judged answers too; they may hold harmful text.")
    ] = False,
    revision: Revision = None,
    message: Annotated[str | None, Option(help="Of the commit.")] = None,
) -> None:
    """Publish an artifact or an export with its model card, in one commit. Log in first: `hf auth login`.

    [bold]mocae push out/pocket ada/aligned-llama[/bold]
    """
    from mocae.export import push as publish

    echo(publish(folder, repository, private=not public, revision=revision, with_answers=with_answers, message=message))


def pull(
    repository: Repository, out: Annotated[Path, Option(metavar="DIR", help="New folder.")], revision: Revision = None
) -> None:
    """Take an artifact or an export from the Hub and check it. No pickle and no Python is downloaded.

    [bold]mocae pull ada/aligned-llama --out out/aligned && mocae chat out/aligned[/bold]
    """
    from mocae.export import pull as take

    echo(take(repository, out, revision=revision))
