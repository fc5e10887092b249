"""`mocae gateway`: route requests in front of another server."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mocae.cli.options import AllowHost, AllowOrigin, ApiKeys, Host, NoKeys

__all__ = ["gateway"]


def gateway(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An export: --to vllm or --to gguf.")],
    backend: Annotated[
        str, typer.Option("--backend", metavar="URL", help="Server with the adapters, as http://127.0.0.1:8000/v1.")
    ],
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8080,
    api_keys: ApiKeys = None,
    no_keys: NoKeys = False,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    queue_size: Annotated[
        int, typer.Option("--queue-size", min=1, help="Requests that may wait for the router; then 429.")
    ] = 256,
    max_body: Annotated[int, typer.Option("--max-body", metavar="BYTES", min=1024, help="Largest request.")] = 8 << 20,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.1, help="Longest silence of the backend.")
    ] = 600,
    wait: Annotated[
        float, typer.Option("--wait", metavar="S", min=0, help="How long the backend may take to start.")
    ] = 600,
    canary: Annotated[
        bool, typer.Option("--canary/--no-canary", help="First ask the backend for proof that the experts act there.")
    ] = True,
    grace: Annotated[float, typer.Option("--grace", metavar="S", min=0, help="Time to finish when stopped.")] = 20,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="ID_OR_PATH", help="Where the base model lies now.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Where the router's layers run; default: auto.")
    ] = None,
) -> None:
    """Stand in front of an OpenAI-compatible server and choose the mixture of experts for every request.

    The router reads the prompt with the first layers of the base model. In front of vLLM it picks the nearest mixture
    of the code book; in front of llama.cpp it sends the exact weights. A request may carry `steer` or `weights`.

    [bold]mocae export out/pocket --to vllm --out out/vllm[/bold]

    [bold]sh out/vllm/serve.sh --port 8000 & mocae gateway out/vllm --backend http://127.0.0.1:8000/v1[/bold]

    Before it listens it asks the backend one prompt with each expert or mixture, and refuses to start where two answers
    are alike: then the experts do not act there.

    A client's `Authorization` goes to the backend, unless the gateway has keys of its own. A key for the backend is
    read from MOCAE_BACKEND_KEY.
    """
    from mocae.export.chooser import load_chooser
    from mocae.serving.gateway import backend_address, create_gateway, prove_backend
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

    address, keys = backend_address(backend), read_keys(api_keys)
    refuse_open(host, keys, without_keys=no_keys)
    key = os.environ.get("MOCAE_BACKEND_KEY") or None
    access = Access(keys, hosts_of(host, keys, allow_host or ()), origins_of(allow_origin or ()), body_bytes=max_body)
    with open_socket(host, port) as opened:
        chooser = load_chooser(folder, base_model=base_model, device=device)
        if canary:
            prove_backend(chooser, address, key=key, wait_s=wait, on_wait=partial(typer.echo, err=True))
        app = create_gateway(
            chooser,
            address,
            access=access,
            backend_key=key,
            queue_size=queue_size,
            timeout_s=timeout,
        )
        typer.echo(f"{address_of(opened, host)}/v1  backend: {address}")
        listen(app, opened, grace_s=grace)
