"""`mocae serve`: a finished run behind the OpenAI API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option, echo

from mocae.cli import options as opt

if TYPE_CHECKING:
    from mocae.serving.served import Served

__all__ = ["opened_run", "serve"]


def serve(
    artifact: opt.Artifact,
    system: Annotated[
        str | None, Option(metavar="NAME", help="The system that is listed first; else the best router.")
    ] = None,
    host: opt.Address = "127.0.0.1",
    port: opt.Port = 8000,
    api_keys: opt.ApiKeys = None,
    no_keys: opt.NoKeys = False,
    allow_host: opt.AllowHost = None,
    allow_origin: opt.AllowOrigin = None,
    batch_size: Annotated[int, Option(min=1, help="Answers written at once.")] = 32,
    queue_size: Annotated[int, Option(min=0, help="Requests that may wait; then 429.")] = 256,
    prefix_cache: Annotated[
        int, Option(metavar="MIB", min=0, help="Memory for how prompts began, to read others faster; 0: none.")
    ] = 256,
    merged_cache: Annotated[
        int,
        Option(
            metavar="MIB",
            min=0,
            help="Memory for mixtures merged into the base weights: faster where one mixture answers alone; 0: none.",
        ),
    ] = 0,
    max_tokens: Annotated[int | None, Option(min=1, help="Longest answer of a request; else the context.")] = None,
    max_body: opt.MaxBody = 1 << 20,
    timeout: Annotated[float, Option(metavar="S", min=0.1, help="Longest time of a request.")] = 120,
    stall: Annotated[float, Option(metavar="S", min=0.1, help="Drop a client that reads nothing for so long.")] = 30,
    grace: opt.Grace = 20,
    device: opt.Device = None,
    base_model: opt.BaseFolder = None,
    threads: opt.Threads = None,
    log_requests: Annotated[bool, Option("--log-requests", help="One line a request on stderr.")] = False,
) -> None:
    """Serve a finished run to any OpenAI client: every system of the run and every expert is a model name.

    [bold]mocae serve out/pocket[/bold]

    [bold]curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{"model": "alignx",
    "messages": [{"role": "user", "content": "What is 11 plus 5?"}], "at_least": {"honesty": 0.5}}'[/bold]

    Systems that are no policy over the experts (TrinityX, joint tuning, merges) are loaded when they are first asked
    for. More fields than OpenAI's in a request: at_least and at_most {expert: share}, prefer {expert: number}, steer
    {expert: factor}, weights {expert: number}, policy. The response tells the routing weights:
    choices[0].routing.weights. /v1/models lists the names, /metrics is for Prometheus. Requests are answered together,
    each with its own weights. Ctrl-C stops; answers being written get --grace seconds.
    """
    from mocae.serving.app import Settings, build_app
    from mocae.serving.connection import Patience
    from mocae.serving.engine import Limits
    from mocae.serving.listening import access_of, address_of, listen, open_socket

    access = access_of(
        host, keys=api_keys, no_keys=no_keys, hosts=allow_host or (), origins=allow_origin or (), body_bytes=max_body
    )
    limits = Limits(batch_size, queue_size, prefix_bytes=prefix_cache << 20, merged_bytes=merged_cache << 20)
    with open_socket(host, port) as opened:
        served = opened_run(artifact, system=system, device=device, base_model=base_model, threads=threads)
        echo(f"{address_of(opened, host)}/v1  models: {', '.join(served.models)}")
        listen(
            build_app(served, Settings(access, limits, max_tokens, timeout)),
            opened,
            grace_s=grace,
            patience=Patience(stall_s=stall, connections=max(1024, 2 * (batch_size + queue_size))),
            log_level="info" if log_requests else "warning",
        )


def opened_run(
    artifact: Path, *, system: str | None, device: str | None, base_model: str | None, threads: int | None
) -> Served:
    """Return the systems of a finished run, the one named first.

    Raises:
        ArtifactError: the folder is no finished run, or is damaged.
        ConfigError: no such system.
        ModelMismatchError: the base model is not the one the experts were trained on.
    """
    import torch

    import mocae
    from mocae.pipelines.artifact import load
    from mocae.serving.served import Served

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load(artifact, system=system, device=device, base_model=base_model)
    return Served(loaded.artifact, version=mocae.__version__, first=system)
