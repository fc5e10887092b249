"""A small suite of tasks, and a server that answers them and compares answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from endpoint_server import EndpointServer
from mocae.judges.endpoint import Endpoint
from mocae.pipelines.suite import Suite, load_suite
from mocae.pipelines.targets import EndpointTarget

N = 24
OWN_SUITE = """
name: own
version: 1
description: a table
axes:
  - name: helpfulness
    test:
      source: table
      path: rows.jsonl
      options: {probe: task, columns: {prompt: prompt}, facts: {reference: reference}}
judges:
  - judge: openai
    options:
      {prompt: win-rate, model: judge, base_url: URL, concurrency: 2, backoff_s: 0.001, max_retries: 1, timeout_s: SECS}
generation: {max_new_tokens: 8}
"""


def own_suite(folder: Path, url: str, rows: list[dict[str, Any]] | None = None, timeout_s: float = 10.0) -> Suite:
    given = rows or [{"prompt": f"Say {i}.", "reference": f"reference {i}"} for i in range(N)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    (folder / "own.yaml").write_text(OWN_SUITE.replace("URL", url).replace("SECS", str(timeout_s)), encoding="utf-8")
    return load_suite(str(folder / "own.yaml"), [f"data_root={folder}"])


def speak(text: str, _: int) -> str:
    """Answer prompts, and judge in favour of what is not the reference."""
    found = re.findall(r"<answer_.>\n(.*)\n</answer_.>", text)
    if found:
        return f"Verdict: {'B' if found[0].startswith('reference') else 'A'}"
    return text.removeprefix("Say ")


def target(server: EndpointServer) -> EndpointTarget:
    return EndpointTarget(Endpoint("model", base_url=server.base_url, max_retries=1, backoff_s=0.001, concurrency=2))
