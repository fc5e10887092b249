"""The command line as a whole: commands, global options, and what an error looks like.

Exit codes: 0 done, 1 the run failed, 2 wrong usage (a flag, a recipe, a name that is not known), 130 stopped by Ctrl-C.
Results go to stdout, logs and errors to stderr.
"""

from __future__ import annotations

import codecs
import errno
import io
import logging
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

import mocae
from mocae.cli.ablate import ablate
from mocae.cli.bench import bench
from mocae.cli.build import build, train_expert
from mocae.cli.chat import chat
from mocae.cli.compare import compare
from mocae.cli.data import data
from mocae.cli.evaluate import evaluate
from mocae.cli.export import export, pull, push
from mocae.cli.gateway import gateway
from mocae.cli.judge import judge
from mocae.cli.ls import ls
from mocae.cli.plan import plan, validate
from mocae.cli.run import run
from mocae.cli.score import score
from mocae.cli.serve import serve
from mocae.cli.ui import ui
from mocae.errors import ConfigError, MocaeError, PluginError
from mocae.extras import missing_extra

__all__ = ["app", "main"]

_FAILED, _WRONG_USAGE, _INTERRUPTED = 1, 2, 130

_TALKATIVE = ("bitsandbytes", "torchao", "torch.utils._pytree")
"""Loggers that warn about kernels for other machines when they are merely installed and imported."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)

app = typer.Typer(
    name="mocae",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 the run failed, 2 wrong usage (a flag, a recipe, a name that is not known), "
    "130 stopped by Ctrl-C.",
    help="""A bank of low-rank experts and a policy for their weights.

    A first run, a few minutes on two cores, no download:

        [bold]mocae run pocket --out out/pocket[/bold]

        [bold]mocae chat out/pocket --show-routing[/bold]""",
)
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Make": (run, build, train_expert, validate, plan),
    "Use": (chat, ui, serve, gateway),
    "Measure": (evaluate, compare, score, ablate, bench),
    "Share": (export, push, pull),
}
_NAMES = {evaluate: "eval", train_expert: "train-expert"}
_GO_ON = (run, build, train_expert, evaluate, ablate)
"""Commands that keep what is finished: the same one goes on with it."""


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that says after Ctrl-C what is left of it."""

    @wraps(command)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            kept = "; what is finished is kept, and the same command goes on with it" if command in _GO_ON else ""
            typer.echo(f"\nstopped{kept}", err=True)
            raise typer.Exit(_INTERRUPTED) from None

    return call


for panel, commands in _PANELS.items():
    for command in commands:
        app.command(name=_NAMES.get(command), rich_help_panel=panel)(_interruptible(command))
app.add_typer(judge, rich_help_panel="Measure")
app.add_typer(data, rich_help_panel="Make")
app.command(rich_help_panel="Look up")(ls)


def _version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"mocae {mocae.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No log on stderr but warnings.")] = False,
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("mocae").setLevel(logging.WARNING if quiet else logging.INFO)
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own: each line once


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: words after `mocae`; None: those of the process.

    Raises:
        SystemExit: always, with the exit code.
    """
    words = sys.argv[1:] if arguments is None else arguments
    codecs.register_error("mocae-escape", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mocae-escape")
    try:
        app(words, prog_name="mocae")
    except (MocaeError, ModuleNotFoundError, OSError) as error:
        message = _message(error)
        if message is None:
            raise
        if "--debug" in words:
            traceback.print_exception(error)
        for line in message.splitlines():
            typer.echo(f"error: {line}", err=True)
        sys.exit(_WRONG_USAGE if isinstance(error, ConfigError | PluginError) else _FAILED)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""Return what a terminal's encoding lacks as JSON spells it, so that --json stays JSON in any encoding."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex(" ", 2).split()
    return "".join(f"\\u{unit}" for unit in units), error.end


def _message(error: MocaeError | ModuleNotFoundError | OSError) -> str | None:
    """Return what to tell the user, None for an error that is a defect of ours."""
    if isinstance(error, MocaeError):
        return str(error)
    if isinstance(error, OSError):  # a disk may be full wherever something is written, in a library too
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; free space or give another folder" if error.errno in _DISK else None
    return missing_extra(error)
