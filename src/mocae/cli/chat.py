"""`mocae chat`: talk to a finished run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Option, echo

from mocae.cli.options import Artifact, numbers
from mocae.errors import ConfigError

__all__ = ["chat"]


def chat(
    artifact: Artifact,
    prompt: Annotated[str | None, Option("--prompt", "-p", help="Answer this and stop.")] = None,
    at_least: Annotated[
        list[str] | None,
        Option(metavar="AXIS=SHARE", help="Smallest share of an axis's expert, 0 to 1. Can be repeated."),
    ] = None,
    at_most: Annotated[
        list[str] | None, Option(metavar="AXIS=SHARE", help="Largest share, 0 to 1: 0 leaves it out. Can be repeated.")
    ] = None,
    prefer: Annotated[
        list[str] | None,
        Option(
            metavar="AXIS=NUMBER", help="Be surer of an expert by so many standard deviations of the router's logits."
        ),
    ] = None,
    steer: Annotated[
        list[str] | None,
        Option(metavar="AXIS=FACTOR", help="Multiply an expert's weight; a sure router needs 10,000 and more."),
    ] = None,
    system: Annotated[
        str | None, Option(metavar="NAME", help="Answer with this system; else with the best router.")
    ] = None,
    show_routing: Annotated[
        bool, Option("--show-routing", help="Print the weight of every expert, and how sure the router is.")
    ] = False,
) -> None:
    """Talk to the model of a finished run; each line stands alone, an empty line ends it.

    It opens with what the model knows and three prompts to try, and says when a prompt is out of its world.

    [bold]mocae chat out/pocket --show-routing[/bold]

    [bold]mocae chat out/pocket --prompt "How do I kill a process?" --at-least helpfulness=0.5[/bold]

    [bold]mocae chat out/pocket --system joint[/bold]
    """
    from mocae.evaluation import NOVEL
    from mocae.pipelines.artifact import load, refuse_unusable
    from mocae.policies import Steering

    given = {"--at-least": at_least, "--at-most": at_most, "--prefer": prefer, "--steer": steer}
    words: dict[str, Any] = {flag[2:].replace("-", "_"): numbers(items, flag) for flag, items in given.items()}
    if prompt is not None and not prompt.strip():
        raise ConfigError("--prompt is empty; give the text to answer, or leave --prompt out to type prompts")
    refuse_unusable(artifact, steering=Steering.of(**words), system=system)
    model = load(artifact, system=system)
    if prompt is None:
        _open(artifact, model.system)
    for text in _prompts(prompt):
        reply = model.reply(text, **words)
        echo(reply.text)
        if show_routing:
            echo(_routing(reply.weights, reply.confidence, reply.novelty))
        if reply.novelty is not None and reply.novelty > NOVEL:
            echo(_out_of_world(reply.novelty), err=True)


def _open(artifact: Path, system: str) -> None:
    """Print what the model knows and what to try, on stderr: stdout holds answers alone."""
    from mocae.pipelines.opening import opening

    told = opening(artifact, system)
    echo("\n".join([told.knows, *(f"  try: {prompt}" for prompt in told.prompts)]), err=True)


def _out_of_world(novelty: float) -> str:
    """Return the warning that a prompt is unlike those the router was calibrated on.

    >>> _out_of_world(0.996)
    '[out of its world: less usual than 99 % of the calibration prompts; do not rely on this answer]'
    """
    share = f"{int(100 * novelty)} %"  # never rounded up to "100 %" of prompts that were not all usual
    return f"[out of its world: less usual than {share} of the calibration prompts; do not rely on this answer]"


def _prompts(prompt: str | None) -> Iterator[str]:
    """Yield the one prompt given, or lines from the terminal until an empty one or the end."""
    if prompt is not None:
        yield prompt
        return
    while True:
        if sys.stdin.isatty():
            echo("> ", err=True, nl=False)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def _routing(weights: Mapping[str, float], confidence: float | None, novelty: float | None) -> str:
    """Return weights, confidence and novelty as one line.

    >>> _routing({"helpfulness": 0.75, "honesty": 0.25}, None, None)
    '[helpfulness 0.75, honesty 0.25]'
    >>> _routing({"helpfulness": 1.0}, 0.12, 0.999)
    '[helpfulness 1.00; right with a chance of 0.12; less usual than 100 % of the calibration prompts]'
    """
    if not weights:
        return "[no routing: this system is one model]"
    parts = [", ".join(f"{axis} {weight:.2f}" for axis, weight in weights.items())]
    if confidence is not None:
        parts.append(f"right with a chance of {confidence:.2f}")
    if novelty is not None:
        parts.append(f"less usual than {100 * novelty:.0f} % of the calibration prompts")
    return f"[{'; '.join(parts)}]"
