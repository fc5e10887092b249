"""The README of an export: a model card with the commands that load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from mocae.models import BASE_MODELS

__all__ = ["export_card"]

_LIBRARY = {"peft": "peft", "merged": "transformers", "gguf": "gguf", "vllm": "vllm", "lorax": "lorax"}

_USE = {
    "peft": """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

folder = "path/to/this/folder"
base = {base}
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
model.generation_config = GenerationConfig.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```""",
    "merged": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```""",
    "gguf": """```bash
llama-server -m base.gguf {lora} --lora-init-without-apply --cache-ram 0 --port 8000
```

Each request carries the weight of every adapter; `scales.json` has some, in the order of the command above:

```json
{{"prompt": "...", "lora": [{{"id": 0, "scale": 0.7}}], "cache_prompt": false}}
```

`--cache-ram 0` and `cache_prompt` keep what was read with one set of weights from a request with another
(llama.cpp's issue 26207).

`mocae gateway . --backend http://127.0.0.1:8000/v1` adds the router's exact weights to every request.""",
    "vllm": """```bash
sh serve.sh --port 8000
mocae gateway . --backend http://127.0.0.1:8000/v1
```

`code_book.json` has the weights of every mixture; the gateway picks the nearest one for each prompt.""",
    "lorax": """Start the server with the base model {base}, put the folders in `adapters/` where it finds them, and
send `requests/<mixture>.json`. Weights are the square roots of the mixture's, and an expert with negative weight is its
`-minus` adapter: every expert has ranks of its own, so LoRAX's `linear` strategy is exact here.""",
}


def export_card(manifest: Mapping[str, Any]) -> str:
    """Return the README of an export, front matter first."""
    base, to, copy = manifest["base"]["model"], manifest["format"], manifest["base"].get("copy")
    named = json.dumps(base) if copy is None else f'f"{{folder}}/{copy}"' if to == "peft" else f"`{copy}/`"
    front = {
        **({} if copy or base in BASE_MODELS else {"base_model": base}),  # the Hub knows no name of ours
        "library_name": _LIBRARY[to],
        "pipeline_tag": "text-generation",
        "tags": ["mocae", "lora" if to != "merged" else "merge", "mixture-of-experts", "alignment"],
    }
    lora = " ".join(f"--lora {file}" for file in (manifest.get("adapters") or {}).values())
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {', '.join(manifest['experts'])} on {base}",
        "",
        f"Made with mocae from a bank of low-rank experts, in the form for {to}.",
        "",
        "## Use",
        "",
        _USE[to].format(base=named, lora=lora),
        "",
        f"Prompts are written in the format `{manifest['prompt_format']}` of mocae.",
        "",
        "## Made of",
        "",
        *_facts(manifest),
        "",
        "The licence of the base model applies to every use.",
        "",
    ]
    return "\n".join(lines)


def _facts(manifest: Mapping[str, Any]) -> list[str]:
    facts = [f"- base model fingerprint: `{manifest['base']['fingerprint']}`"]
    if manifest.get("weights"):
        facts.append("- weights: " + ", ".join(f"{name} {w:g}" for name, w in manifest["weights"].items()))
    for name, weights in enumerate(manifest.get("mixtures") or ()):
        facts.append(f"- mixture-{name:02d}: " + ", ".join(f"{expert} {w:.3f}" for expert, w in weights.items()))
    if "rank" in manifest:
        facts.append(f"- rank: {manifest['rank']}")
    if "relative_error" in manifest:
        facts.append(f"- relative error of the change: {manifest['relative_error']:.3g}")
    measured = manifest.get("measured")
    if measured:
        facts.append(
            f"- acceptable answers on {measured['n']} test prompts: exact routing {measured['exact']:.3f}, code book "
            f"{measured['code_book']:.3f}"
        )
    return facts + [f"- {note}" for note in manifest.get("notes") or ()]
