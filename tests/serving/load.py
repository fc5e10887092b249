"""Load a running server with many clients and tell what it did.

    mocae serve out/pocket --port 8000 --threads 1
    python tests/serving/load.py --artifact out/pocket --port 8000 --clients 32 --requests 2000 --alone 200

First one client asks one request at a time (`--alone`), then `--clients` clients ask at once, each the next request
when its last was answered. Models, steering and streaming vary from request to request. Clients speak HTTP over
kept-alive connections in a process of their own, with as little work of their own as can be.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MODELS = ("alignx", "alignx", "alignx", "linear", "uniform", "base")


def bodies(artifact: Path) -> Iterator[dict[str, Any]]:
    """Yield requests without end: every prompt of the run, with one model after another."""
    lines = (artifact / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = list(dict.fromkeys(json.loads(line)["prompt"] for line in lines))
    for i in itertools.count():
        body: dict[str, Any] = {
            "model": MODELS[i % len(MODELS)],
            "messages": [{"role": "user", "content": prompts[i % len(prompts)]}],
        }
        if i % 5 == 1:
            body["steer"] = {"honesty": 1.5}
        if i % 3 == 2:
            body["stream"] = True
        yield body


class Connection:
    """One kept-alive connection."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and body of the response."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._where)
        reader, writer = self._streams
        data = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "content-length" in headers:
            return int(status_line.split()[1]), await reader.readexactly(int(headers["content-length"]))
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        return int(status_line.split()[1]), b"".join(parts)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


def text_of(body: bytes, *, streamed: bool) -> str:
    """Return the answer in a response."""
    if not streamed:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    *events, end = [line.removeprefix("data: ") for line in body.decode().splitlines() if line]
    assert end == "[DONE]", end
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


async def load(host: str, port: int, asked: Sequence[dict[str, Any]], clients: int) -> dict[str, Any]:
    """Ask all requests with so many clients; return figures and the answers in order."""
    todo = iter(enumerate(asked))
    latency_s: list[float] = []
    answers: dict[int, str] = {}
    errors: list[str] = []

    async def client() -> None:
        connection = Connection(host, port)
        for i, body in todo:
            began = time.perf_counter()
            try:
                status, response = await connection.post(body)
                if status == 200:
                    answers[i] = text_of(response, streamed=bool(body.get("stream")))
                else:
                    errors.append(f"{status}: {response[:200]!r}")
            except Exception as error:
                errors.append(repr(error))
                connection = Connection(host, port)
            latency_s.append(time.perf_counter() - began)
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    cuts = statistics.quantiles(latency_s, n=100)
    return {
        "clients": clients,
        "requests": len(asked),
        "errors": len(errors),
        "first_errors": errors[:3],
        "requests_per_second": len(asked) / seconds,
        "p50_s": cuts[49],
        "p95_s": cuts[94],
        "p99_s": cuts[98],
        "answers": [answers.get(i) for i in range(len(asked))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=200)
    parser.add_argument("--pid", type=int, help="process of the server, whose memory is told")
    options = parser.parse_args()
    asked = list(itertools.islice(bodies(options.artifact), max(options.requests, options.alone)))
    where = (options.host, options.port)
    alone = asyncio.run(load(*where, asked[: options.alone], 1))
    many = asyncio.run(load(*where, asked[: options.requests], options.clients))
    pairs = list(zip(alone.pop("answers"), many.pop("answers"), strict=False))
    result = {
        "alone": alone,
        "many": many,
        "throughput_ratio": many["requests_per_second"] / alone["requests_per_second"],
        "answers_that_differ": sum(one != other for one, other in pairs),
        "answers_compared": len(pairs),
    }
    if options.pid:
        result["server_rss_mib"] = rss_mib(options.pid)
    print(json.dumps(result, indent=1))  # noqa: T201


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


if __name__ == "__main__":
    main()
