"""`mocae ui`: a finished run in a browser."""

from __future__ import annotations

from typing import Annotated

from typer import Option, echo

from mocae.cli import options as opt
from mocae.cli.serve import opened_run

__all__ = ["ui"]


def ui(
    artifact: opt.Artifact,
    system: Annotated[
        str | None, Option(metavar="NAME", help="The system that answers first; else the best router.")
    ] = None,
    host: Annotated[str, Option(help="Address; other than loopback needs --open.")] = "127.0.0.1",
    port: opt.Port = 7860,
    let_in: Annotated[bool, Option("--open", help="Let other machines in; the page has no password.")] = False,
    device: opt.Device = None,
    base_model: opt.BaseFolder = None,
    threads: opt.Threads = None,
) -> None:
    """Talk to a finished run in a browser, see which experts answer, and steer them.

    [bold]mocae ui out/pocket[/bold]

    Three tabs: a conversation with the weights of each answer as bars and why they were chosen; two systems side by
    side; the reliability diagram of the routers. Nothing leaves this machine and nothing is fetched. Ctrl-C stops.
    """
    from mocae.errors import ConfigError
    from mocae.pipelines.artifact import read_report
    from mocae.serving.listening import LOOPBACK, address_of, hosts_of, listen, open_socket
    from mocae.ui.site import build_site

    if host not in LOOPBACK and not let_in:
        raise ConfigError(
            f"--host {host} lets other machines in and the page has no password; add --open if that is meant"
        )
    with open_socket(host, port) as opened:
        served = opened_run(artifact, system=system, device=device, base_model=base_model, threads=threads)
        report, hosts = read_report(artifact), hosts_of(host, (), ())
        site = build_site(served, name=artifact.resolve().name, report=report, hosts=hosts)
        echo(address_of(opened, host))
        listen(site, opened, grace_s=1)
