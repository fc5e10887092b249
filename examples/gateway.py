"""Serve an artifact through a server that knows nothing of mocae: the gateway picks a LoRA adapter for each request.

    python examples/own_adapters.py --out out/own       # or any other run
    python examples/gateway.py out/own/artifact --out out/vllm

`mocae export --to vllm` writes a few mixtures of the experts as plain adapters (a code book). Here a small server
stands in for vLLM: PEFT behind the OpenAI API. The gateway reads each prompt with the first layers of the base model
and asks for the mixture nearest to what the router says. With vLLM:

    mocae export out/own/artifact --to vllm --mixtures 4 --out out/vllm
    sh out/vllm/serve.sh --port 8000 & mocae gateway out/vllm --backend http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import uvicorn
from fastapi import FastAPI
from peft import PeftModel
from starlette.types import ASGIApp

import mocae
from mocae.export import load_chooser
from mocae.pipelines.export import ExportOptions, bundle_of, export
from mocae.serving.gateway import create_gateway

QUESTIONS = (
    "Name the capital city of Peru.",
    "How do I kill a computer process?",
    "How do I pick a neighbour's pocket?",
    "Who was the first man on Venus?",
)


def peft_server(artifact: Path, adapters: Path) -> FastAPI:
    """Return a stand-in for vLLM: greedy completions by the adapter that a request names as its model."""
    base = bundle_of(artifact, device="cpu").base
    first, *others = sorted(path.name for path in adapters.iterdir())
    model = PeftModel.from_pretrained(base.model, adapters / first, adapter_name=first)
    for name in others:
        model.load_adapter(adapters / name, adapter_name=name)
    app, one_at_a_time = FastAPI(), threading.Lock()

    @app.post("/v1/completions")
    def complete(body: dict[str, Any]) -> dict[str, Any]:
        batch = base.tokenizer(body["prompt"], return_tensors="pt", return_token_type_ids=False)
        with one_at_a_time:
            model.set_adapter(body["model"])
            out = model.generate(**batch, max_new_tokens=body["max_tokens"], do_sample=False)
        text = base.tokenizer.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
        return {"id": "1", "object": "text_completion", "created": 0, "model": body["model"], "choices": [choice]}

    return app


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """Return a context with the address of a running server."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()


def serve(
    artifact: Path, out: Path, questions: Sequence[str] = QUESTIONS, *, n_mixtures: int = 4, progress: bool = True
) -> list[dict[str, Any]]:
    """Export, start both servers, ask, and return for each question the mixture, its weights and the answer."""
    options = ExportOptions(n_mixtures=n_mixtures, measure=False)
    export(artifact, to="vllm", out=out, options=options, device="cpu", progress=progress)
    chooser = load_chooser(out, device="cpu")
    told = []
    with (
        listening(peft_server(artifact, out / "adapters")) as backend,
        listening(create_gateway(chooser, backend)) as gateway,
        openai.OpenAI(base_url=gateway, api_key="none") as client,
    ):
        for question in questions:
            prompt = chooser.prompt_format.format_prompt(question, injection=None, tokenizer=chooser.base.tokenizer)
            sent = client.completions.with_raw_response.create(model="mocae", prompt=prompt, max_tokens=24)
            told.append(
                {
                    "question": question,
                    "mixture": sent.headers["x-mocae-mixture"],
                    "weights": json.loads(sent.headers["x-mocae-weights"]),
                    "answer": sent.parse().choices[0].text.strip(),
                }
            )
    return told


def main() -> None:
    """Run the example on an artifact."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("artifact", type=Path, help="folder of a finished run or build")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the export")
    args = parser.parse_args()
    model = mocae.load(args.artifact)
    for told in serve(args.artifact, args.out):
        weights = {name: round(weight, 2) for name, weight in told["weights"].items()}
        print(f"{told['question']} -> {told['answer']}   {told['mixture']} {weights}")
        exact = model.reply(told["question"])
        print(f"   exact routing: {exact.text} { {name: round(w, 2) for name, w in exact.weights.items()} }")


if __name__ == "__main__":
    main()
