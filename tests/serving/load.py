"""Load a server with many clients and tell what it did, as JSON.

    python tests/serving/load.py out/pocket

starts `mocae serve` on the run and measures it in rounds: first one client asks one request at a time (`--alone`), then
`--clients` clients ask at once, each the next request when its last was answered. In the end the memory of the server
is told after every 2,000 requests (`--memory`). Models, steering and streaming vary from request to request. Clients
speak HTTP over kept-alive connections in a process of their own, with as little work of their own as can be.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_BETWEEN_MEMORY = 2000


def bodies(run: Path, url: str) -> Iterator[dict[str, Any]]:
    """Yield requests without end: every prompt of the run, the run's own policy half of the time."""
    lines = (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = list(dict.fromkeys(json.loads(line)["prompt"] for line in lines))
    with urllib.request.urlopen(f"{url}/v1/models") as response:
        models = json.load(response)["data"]
    own, *others = (model["id"] for model in models)
    names = [own, *(name for other in others[:4] for name in (own, other))]
    for i in itertools.count():
        body: dict[str, Any] = {
            "model": names[i % len(names)],
            "messages": [{"role": "user", "content": prompts[i % len(prompts)]}],
        }
        if i % 5 == 1:
            body["steer"] = {models[0]["experts"][-1]: 1.5}
        if i % 4 == 2:
            body["stream"] = True
        yield body


class Connection:
    """One kept-alive connection."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._where = (where.hostname, where.port)
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


async def load(url: str, asked: Sequence[dict[str, Any]], clients: int) -> dict[str, Any]:
    """Ask all requests with so many clients; return figures and the answers in order."""
    todo = iter(enumerate(asked))
    latency_s: list[float] = []
    answers: dict[int, str] = {}
    errors: list[str] = []

    async def client() -> None:
        connection = Connection(url)
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
                connection = Connection(url)
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


def measure(url: str, run: Path, *, clients: int, requests: int, alone: int, rounds: int) -> dict[str, Any]:
    """Return the figures of all rounds, one request at a time and many in turn."""
    asked = list(itertools.islice(bodies(run, url), max(requests, alone)))
    asyncio.run(load(url, asked[:50], clients))  # the first requests of a server are slower
    found = []
    differ = compared = 0
    for _ in range(rounds):
        one = asyncio.run(load(url, asked[:alone], 1))
        many = asyncio.run(load(url, asked[:requests], clients))
        pairs = list(zip(one.pop("answers"), many.pop("answers"), strict=False))
        differ, compared = differ + sum(a != b for a, b in pairs), compared + len(pairs)
        ratio = many["requests_per_second"] / one["requests_per_second"]
        found.append({"alone": one, "many": many, "throughput_ratio": ratio})
    ratios = sorted(one["throughput_ratio"] for one in found)
    return {
        "rounds": found,
        "throughput_ratio": statistics.median(ratios),
        "throughput_ratio_range": [ratios[0], ratios[-1]],
        "answers_that_differ": differ,
        "answers_compared": compared,
    }


def memory(url: str, run: Path, pid: int, *, clients: int, requests: int) -> list[dict[str, float]]:
    """Return the memory of the server's process after every 2,000 requests."""
    asked = list(itertools.islice(bodies(run, url), requests))
    found = [{"requests": 0, "rss_mib": rss_mib(pid)}]
    for begin in range(0, requests, _BETWEEN_MEMORY):
        part = asyncio.run(load(url, asked[begin : begin + _BETWEEN_MEMORY], clients))
        found.append({"requests": begin + part["requests"], "rss_mib": rss_mib(pid), "errors": part["errors"]})
    return found


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


@contextmanager
def server(run: Path, threads: int) -> Iterator[tuple[str, int]]:
    """Return a context with a server of the run; its value is address and process."""
    command = [sys.executable, "-m", "mocae", "serve", str(run), "--port", "0", "--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if "/v1" not in line:
            raise SystemExit(f"the server did not start; try: {' '.join(command)}")
        yield line.split("/v1")[0], process.pid
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder a run has written")
    parser.add_argument("--url", help="a server that is running, in place of one that is started here")
    parser.add_argument("--pid", type=int, help="its process, whose memory is told")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=10_000, help="requests while memory is watched")
    parser.add_argument("--threads", type=int, default=1, help="of the model")
    options = parser.parse_args()

    def all_of(url: str, pid: int | None) -> dict[str, Any]:
        watched = memory(url, options.run, pid, clients=options.clients, requests=options.memory) if pid else None
        found = measure(
            url,
            options.run,
            clients=options.clients,
            requests=options.requests,
            alone=options.alone,
            rounds=options.rounds,
        )
        return found | {"memory": watched}

    if options.url:
        result = all_of(options.url, options.pid)
    else:
        with server(options.run, options.threads) as (url, pid):
            result = all_of(url, pid)
    print(json.dumps(result, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
