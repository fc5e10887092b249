"""`mocae serve`: a finished run behind the OpenAI API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mocae.cli.options import AllowHost, AllowOrigin, ApiKeys, Host, NoKeys, Threads

__all__ = ["serve"]


def serve(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="Folder a run has written.")],
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_keys: ApiKeys = None,
    no_keys: NoKeys = False,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Answers written at once.")] = 32,
    queue_size: Annotated[int, typer.Option("--queue-size", min=0, help="Requests that may wait; then 429.")] = 256,
    prefix_cache: Annotated[
        int,
        typer.Option(
            "--prefix-cache", metavar="MIB", min=0, help="Memory for how prompts began, to read others faster; 0: none."
        ),
    ] = 256,
    merged_cache: Annotated[
        int,
        typer.Option(
            "--merged-cache",
            metavar="MIB",
            min=0,
            help="Memory for mixtures merged into the base weights: faster where one mixture answers alone; 0: none.",
        ),
    ] = 0,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Longest answer of a request; else the context.")
    ] = None,
    max_body: Annotated[int, typer.Option("--max-body", metavar="BYTES", min=1024, help="Largest request.")] = 1 << 20,
    timeout: Annotated[float, typer.Option("--timeout", metavar="S", min=0.1, help="Longest time of a request.")] = 120,
    stall: Annotated[
        float, typer.Option("--stall", metavar="S", min=0.1, help="Drop a client that reads nothing for so long.")
    ] = 30,
    grace: Annotated[float, typer.Option("--grace", metavar="S", min=0, help="Time to finish when stopped.")] = 20,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...; else an accelerator if any.")] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="DIR", help="Where the base model lies now, if it moved.")
    ] = None,
    threads: Threads = None,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="One line a request on stderr.")] = False,
) -> None:
    """Serve a finished run to any OpenAI client: every policy and every expert is a model name.

    [bold]mocae serve out/pocket[/bold]

    [bold]curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{"model": "alignx",
    "messages": [{"role": "user", "content": "What is 11 plus 5?"}], "steer": {"honesty": 2}}'[/bold]

    Three fields more than OpenAI's in a request: steer {axis: factor}, weights {expert: number}, policy. The response
    tells the routing weights: choices[0].routing.weights. /v1/models lists the names, /metrics is for Prometheus.
    Requests are answered together, each with its own weights. Ctrl-C stops; answers being written get --grace seconds.
    """
    import mocae
    from mocae.pipelines.artifact import load
    from mocae.serving.app import Settings, build_app
    from mocae.serving.connection import Patience
    from mocae.serving.engine import Limits
    from mocae.serving.guard import Access
    from mocae.serving.listening import (
        address_of,
        hosts_of,
        listen,
        open_socket,
        origins_of,
        read_keys,
        refuse_open,
    )
    from mocae.serving.served import Served

    keys = read_keys(api_keys)
    refuse_open(host, keys, without_keys=no_keys)
    hosts, origins = hosts_of(host, keys, allow_host or ()), origins_of(allow_origin or ())
    settings = Settings(
        access=Access(keys, hosts, origins, body_bytes=max_body),
        limits=Limits(
            batch_size=batch_size,
            queue_size=queue_size,
            prefix_bytes=prefix_cache << 20,
            merged_bytes=merged_cache << 20,
        ),
        max_tokens=max_tokens,
        timeout_s=timeout,
    )
    opened = open_socket(host, port)
    with opened:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        served = Served(load(artifact, device=device, base_model=base_model).artifact, version=mocae.__version__)
        typer.echo(f"{address_of(opened, host)}/v1  models: {', '.join(served.models)}")
        listen(
            build_app(served, settings),
            opened,
            grace_s=grace,
            patience=Patience(stall_s=stall, connections=max(1024, 2 * (batch_size + queue_size))),
            log_level="info" if log_requests else "warning",
        )
