"""`mocae ui`: a finished run in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mocae.cli.options import Threads

__all__ = ["ui"]


def ui(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="Folder a run has written.")],
    host: Annotated[str, typer.Option("--host", help="Address; other than loopback needs --open.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 7860,
    let_in: Annotated[bool, typer.Option("--open", help="Let other machines in; the page has no password.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; else an accelerator if any.")] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="DIR", help="Where the base model lies now, if it moved.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Talk to a finished run in a browser, see which experts answer, and steer them.

    [bold]mocae ui out/pocket[/bold]

    Three tabs: a conversation with the weights of each answer as bars and why they were chosen; two systems side by
    side; the reliability diagram of the routers. Nothing leaves this machine and nothing is fetched. Ctrl-C stops.
    """
    import mocae
    from mocae.errors import ConfigError
    from mocae.pipelines.artifact import load, read_report
    from mocae.serving.listening import LOOPBACK, address_of, hosts_of, listen, open_socket
    from mocae.serving.served import Served
    from mocae.ui.site import build_site

    if host not in LOOPBACK and not let_in:
        raise ConfigError(
            f"--host {host} lets other machines in and the page has no password; add --open if that is meant"
        )
    with open_socket(host, port) as opened:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        served = Served(load(artifact, device=device, base_model=base_model).artifact, version=mocae.__version__)
        site = build_site(
            served, name=artifact.resolve().name, report=read_report(artifact), hosts=hosts_of(host, (), ())
        )
        typer.echo(address_of(opened, host))
        listen(site, opened, grace_s=1)
