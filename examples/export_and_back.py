"""Take an artifact out, load it with the library each form is for, and bring it back in.

    python examples/own_adapters.py --out out/own       # or any other run whose base model is in fp32
    python examples/export_and_back.py out/own/artifact --out out/exports

One mixture with a negative weight goes out as a PEFT adapter, as a Hugging Face folder and, where node-llama-cpp is
installed (`--llama-cpp`, the folder with its node_modules), as GGUF files: PEFT and transformers give the policy's
logits, llama.cpp its tokens. Then every expert goes out alone as a PEFT adapter, and a second run is built from these.
By hand:

    mocae export out/own/artifact --to peft --weights helpfulness=0.7,harmlessness=-0.2,honesty=0.4 --out out/lora
    mocae export out/own/artifact --to merged --weights helpfulness=0.7,harmlessness=-0.2,honesty=0.4 --out out/model
    mocae export out/own/artifact --to gguf --numbers f32 --out out/gguf
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

import mocae
from mocae.config import load_recipe, parse_recipe
from mocae.pipelines.export import ExportOptions, bundle_of, export
from mocae.pipelines.run import run
from mocae.policies import weights_vector

PROMPT = "Q: How do I kill a computer process?\nA:"
HELPER = Path(__file__).parents[1] / "tests" / "export" / "llama_cpp.mjs"


def logits(model: Any, ids: Tensor) -> Tensor:
    """Return the logits of a model, shape (rows, tokens, vocabulary)."""
    with torch.no_grad():
        found: Tensor = model(input_ids=ids).logits
    return found


def out_and_loaded(
    artifact: Path, out: Path, weights: Mapping[str, float], *, progress: bool = True
) -> dict[str, float]:
    """Export one mixture to PEFT and to a merged model, load both, and return the largest difference of a logit.

    The entry "base model" is how far the policy is from the base model: differences mean something beside it only.
    """
    options = ExportOptions(weights=weights)
    for form in ("peft", "merged"):
        export(artifact, to=form, out=out / form, options=options, device="cpu", progress=progress)
    model = mocae.load(artifact, device="cpu")
    ids = model.tokenizer(PROMPT, return_tensors="pt").input_ids
    mixture = model.model  # the router over the bank of experts
    with mixture.bank.weights(weights_vector(weights, model.experts)):
        policy = logits(mixture.base.model, ids)
    base = bundle_of(artifact, device="cpu").base.model
    found = {"base model": logits(base, ids)}
    found["peft"] = logits(PeftModel.from_pretrained(base, out / "peft"), ids)
    found["merged"] = logits(AutoModelForCausalLM.from_pretrained(out / "merged"), ids)
    return {name: float((other - policy).abs().max()) for name, other in found.items()}


def tokens_of_llama_cpp(
    artifact: Path, out: Path, weights: Mapping[str, float], *, llama_cpp: Path, n: int = 12, progress: bool = True
) -> tuple[list[int], list[int]]:
    """Export to GGUF and return the first tokens of the policy's answer and of llama.cpp's."""
    options = ExportOptions(number_format="f32")
    files = export(artifact, to="gguf", out=out / "gguf", options=options, device="cpu", progress=progress)["adapters"]
    adapters = [{"filePath": str(out / "gguf" / files[name]), "scale": scale} for name, scale in weights.items()]
    job = {
        "module": str(llama_cpp / "node_modules" / "node-llama-cpp" / "dist" / "index.js"),
        "model": str(out / "gguf" / "base.gguf"),
        "cases": [{"adapters": adapters, "prompt": PROMPT, "n": n}],
    }
    done = subprocess.run(["node", str(HELPER)], input=json.dumps(job), capture_output=True, text=True, check=True)
    model = mocae.load(artifact, device="cpu")
    ids = model.tokenizer(PROMPT, return_tensors="pt").input_ids
    greedy = {"do_sample": False, "max_new_tokens": n, "eos_token_id": None}
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), weights=weights, **greedy)
    return answer[0, ids.shape[1] :].tolist(), json.loads(done.stdout)[0]["tokens"]


def back_in(artifact: Path, out: Path, *, progress: bool = True) -> list[str]:
    """Export every expert alone, run the artifact's recipe with these adapters, and return what differs, in words."""
    values = load_recipe(artifact / "recipe.yaml").model_dump(mode="json")
    for axis in values["axes"]:
        options, folder = ExportOptions(weights={axis["name"]: 1.0}), out / "experts" / axis["name"]
        export(artifact, to="peft", out=folder, options=options, device="cpu", progress=progress)
        axis["adapter"] = str(folder)
    values["systems"] = ["alignx"]
    run(parse_recipe(values), out=out / "again", progress=progress)
    return differences(artifact, out / "again")


def differences(one: Path, two: Path) -> list[str]:
    """Return which answers and weights of AlignX are not the same in two runs, in words; [] where none."""
    first, second = (
        {row["id"]: row for row in map(json.loads, file.read_text().splitlines()) if row["system"] == "alignx"}
        for file in (one / "samples.jsonl", two / "samples.jsonl")
    )
    found = [f"only one run answered {id_}" for id_ in first.keys() ^ second.keys()]
    for id_ in first.keys() & second.keys():
        mine, other = first[id_], second[id_]
        if mine["answer"] != other["answer"]:
            found.append(f"{id_}: {mine['answer']!r} and {other['answer']!r}")
        far = max(abs(mine["weights"][name] - other["weights"][name]) for name in mine["weights"])
        if far > 1e-3:
            found.append(f"{id_}: a weight differs by {far:.2g}")
    return found


def main() -> None:
    """Run the example on an artifact."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("artifact", type=Path, help="folder of a finished run or build with three experts")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the exports")
    parser.add_argument("--llama-cpp", type=Path, help="folder with node_modules/node-llama-cpp")
    args = parser.parse_args()
    names = load_recipe(args.artifact / "recipe.yaml").axis_names
    weights = dict(zip(names, (0.7, -0.2, 0.4), strict=True))
    for name, difference in out_and_loaded(args.artifact, args.out, weights).items():
        print(f"largest difference of a logit from the policy's, {name}: {difference:.2g}")
    if args.llama_cpp is not None:
        policy, theirs = tokens_of_llama_cpp(args.artifact, args.out, weights, llama_cpp=args.llama_cpp)
        print("llama.cpp says the same" if policy == theirs else f"llama.cpp says {theirs}, the policy {policy}")
    print("\n".join(back_in(args.artifact, args.out)) or "back in: the same weights and answers to every test prompt")


if __name__ == "__main__":
    main()
