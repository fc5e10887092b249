"""`mocae push` and `mocae pull`: artifacts and exports on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

__all__ = ["pull", "push"]

Repository = Annotated[str, Argument(metavar="OWNER/NAME", help="Model repository on the Hub.")]
Revision = Annotated[str | None, Option(help="Branch, tag or commit; default: the main branch.")]


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
    repository: Repository,
    out: Annotated[Path, Option(metavar="DIR", help="New folder.")],
    revision: Revision = None,
) -> None:
    """Take an artifact or an export from the Hub and check it. No pickle and no Python is downloaded.

    [bold]mocae pull ada/aligned-llama --out out/aligned && mocae chat out/aligned[/bold]
    """
    from mocae.export import pull as take

    echo(take(repository, out, revision=revision))
