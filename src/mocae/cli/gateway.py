"""`mocae gateway`: route requests in front of another server."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from mocae.cli import options as opt

__all__ = ["gateway"]


def gateway(
    folder: Annotated[Path, Argument(metavar="DIR", help="An export: --to vllm or --to gguf.")],
    backend: Annotated[str, Option(metavar="URL", help="Server with the adapters, as http://127.0.0.1:8000/v1.")],
    host: opt.Address = "127.0.0.1",
    port: opt.Port = 8080,
    api_keys: opt.ApiKeys = None,
    no_keys: opt.NoKeys = False,
    allow_host: opt.AllowHost = None,
    allow_origin: opt.AllowOrigin = None,
    queue_size: Annotated[int, Option(min=1, help="Requests that may wait for the router; then 429.")] = 256,
    max_body: opt.MaxBody = 8 << 20,
    timeout: Annotated[float, Option(metavar="S", min=0.1, help="Longest silence of the backend.")] = 600,
    wait: Annotated[float, Option(metavar="S", min=0, help="How long the backend may take to start.")] = 600,
    canary: Annotated[bool, Option(help="First ask the backend for proof that the experts act there.")] = True,
    grace: opt.Grace = 20,
    base_model: opt.BaseModel = None,
    device: Annotated[str | None, Option(help="Where the router's layers run; default: auto.")] = None,
) -> None:
    """Stand in front of an OpenAI-compatible server and choose the mixture of experts for every request.

    The router reads the prompt with the first layers of the base model. In front of vLLM it picks the nearest mixture
    of the code book; in front of llama.cpp it sends the exact weights. A request may
    carry the words of steering: `at_least`, `at_most`, `prefer`, `steer`, or `weights` in place of routing.

    [bold]mocae export out/pocket --to vllm --out out/vllm[/bold]

    [bold]sh out/vllm/serve.sh --port 8000 & mocae gateway out/vllm --backend http://127.0.0.1:8000/v1[/bold]

    Before it listens it asks the backend one prompt with each expert or mixture, and refuses to start where two answers
    are alike: then the experts do not act there.

    A client's `Authorization` goes to the backend, unless the gateway has keys of its own. A key for the backend is
    read from MOCAE_BACKEND_KEY.
    """
    from mocae.export import load_chooser
    from mocae.serving.gateway import backend_address, create_gateway, prove_backend
    from mocae.serving.listening import access_of, address_of, listen, open_socket

    address, key = backend_address(backend), os.environ.get("MOCAE_BACKEND_KEY") or None
    access = access_of(
        host, keys=api_keys, no_keys=no_keys, hosts=allow_host or (), origins=allow_origin or (), body_bytes=max_body
    )
    with open_socket(host, port) as opened:
        chooser = load_chooser(folder, base_model=base_model, device=device)
        if canary:
            prove_backend(chooser, address, key=key, wait_s=wait, on_wait=partial(echo, err=True))
        app = create_gateway(chooser, address, access=access, backend_key=key, queue_size=queue_size, timeout_s=timeout)
        echo(f"{address_of(opened, host)}/v1  backend: {address}")
        listen(app, opened, grace_s=grace)
