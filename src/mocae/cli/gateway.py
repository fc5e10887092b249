"""`mocae gateway`: route requests in front of another server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["gateway"]


def gateway(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An export: --to vllm or --to gguf.")],
    backend: Annotated[
        str, typer.Option("--backend", metavar="URL", help="Server with the adapters, as http://127.0.0.1:8000/v1.")
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8080,
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
    """
    import uvicorn

    from mocae.export.chooser import load_chooser
    from mocae.export.gateway import backend_address, create_gateway

    backend_address(backend)  # a base model takes minutes to load, a wrong word should not
    app = create_gateway(load_chooser(folder, base_model=base_model, device=device), backend)
    typer.echo(f"gateway on http://{host}:{port}/v1, backend {backend}", err=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")
