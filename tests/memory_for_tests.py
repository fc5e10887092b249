"""Measure the memory a training really takes, beside what `mocae plan` says it takes.

python tests/memory_for_tests.py           # the table of docs/scale.md; Linux, one process a row
python tests/memory_for_tests.py --mezo    # gradients beside forward passes alone, the table of docs/exports.md

Compared are the plan's peak of training and the most resident memory of the process while it trains (VmHWM, begun anew
after the base model was loaded) less its resident memory before the model was loaded: the libraries themselves, some
0.6 GB of code, count on neither side. Rows are longer than `max_length`, the case that a plan is about.

"Measured" is with an allocator that gives freed memory back at once (MALLOC_MMAP_THRESHOLD_): what the tensors take.
The C library as it comes keeps much of what is freed, which is the column beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mocae.config import Recipe
    from mocae.models import LoadedBase

SIZES: dict[str, dict[str, int]] = {
    "39M": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 7, "num_attention_heads": 8},
    "95M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 12},
    "135M": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
}
_TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
_VOCABULARY = 16_000


@dataclass(frozen=True)
class Memory:
    """Bytes of one training.

    Attributes:
        n_parameters: of the base model.
        libraries: resident before the model was loaded.
        planned: what `mocae plan` says.
        measured: what was resident at most while training, less `libraries`.
    """

    n_parameters: int
    libraries: int
    planned: int
    measured: int

    @property
    def off(self) -> float:
        """The plan's error as a share of what was measured."""
        return self.planned / self.measured - 1


def measure(shape: dict[str, int], *settings: str, given_back: bool = True) -> Memory:
    """Return what one training takes, in a process of its own.

    Args:
        shape: of the base model.
        settings: as after `--set`.
        given_back: whether the allocator gives freed memory back at once.
    """
    command = [sys.executable, __file__, "--one", json.dumps(shape), *settings]
    allocator = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)} if given_back else {}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | allocator)
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _train_one(shape: dict[str, int], settings: list[str]) -> Memory:
    from mocae.config import parse_recipe
    from mocae.models import load_base
    from mocae.pipelines.plan import plan
    from recipes_for_tests import small_recipe

    full = {"model_type": "llama", "vocab_size": _VOCABULARY, "max_position_embeddings": 1024, **shape}
    base = {"model": None, "dtype": "fp32", "device": "cpu", "shape": full}
    recipe = parse_recipe(
        small_recipe(base=base), ["experts.max_length=256", "experts.optimizer.batch_size=4", *settings]
    )
    planned = plan(recipe)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shape, place in ((full | _TINY, "tiny"), (full, "base")):
            save = [sys.executable, __file__, "--save", json.dumps(shape), str(folder / place)]
            subprocess.run(save, check=True, capture_output=True)
        # One training before, so that what libraries load and keep at their first use is there.
        _train(recipe, load_base(folder / "tiny", dtype="fp32", device="cpu"), folder, from_layer=0)
        libraries = _resident("VmRSS")
        loaded = load_base(folder / "base", dtype=recipe.base.dtype, device="cpu")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        _train(recipe, loaded, folder, from_layer=planned.base.from_layer)
        measured = _resident("VmHWM") - libraries
    return Memory(planned.base.n_parameters, libraries, planned.training_memory_bytes, measured)


def _train(recipe: Recipe, base: LoadedBase, folder: Path, *, from_layer: int) -> None:
    from mocae.experts import TRAINERS, LoraSpec, Optimisation

    experts = recipe.experts
    rows = experts.optimizer.batch_size
    TRAINERS.get(experts.optimizer.method)(
        base,
        [{"prompt": f"Q: {i}", "completion": f" {i}" * experts.max_length} for i in range(2 * rows)],
        folder,
        lora=LoraSpec(r=experts.r, lora_alpha=float(experts.lora_alpha), from_layer=from_layer),
        optimisation=Optimisation(learning_rate=1e-3, epochs=1.0, batch_size=rows, max_length=experts.max_length),
        seed=0,
        label="measured",
        base_name="random",
    )


def _save(shape: dict[str, Any], folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tiny import tiny_tokenizer

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def _resident(what: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one")
    parser.add_argument("--save", nargs=2)
    parser.add_argument("--mezo", action="store_true")
    given, settings = parser.parse_known_args()
    if given.save:
        _save(json.loads(given.save[0]), Path(given.save[1]))
    elif given.one:
        print(json.dumps(asdict(_train_one(json.loads(given.one), settings))))
    elif given.mezo:
        print("| base model | weights, GB | adamw, GB | mezo, GB | mezo beyond the weights, share of adamw's |")
        print("|---|---:|---:|---:|---:|")
        for shape in SIZES.values():
            adamw, mezo = (measure(shape, f"experts.optimizer.method={method}") for method in ("adamw", "mezo"))
            weights = 4 * mezo.n_parameters
            gb = [f"{v / 1e9:.2f}" for v in (weights, adamw.measured, mezo.measured)]
            share = (mezo.measured - weights) / (adamw.measured - weights)
            print(f"| Llama {mezo.n_parameters / 1e6:.0f}M | {gb[0]} | {gb[1]} | {gb[2]} | {share:.0%} |", flush=True)
    else:
        print("| base model | rows x tokens | planned, GB | measured, GB | plan is off by | resident by default, GB |")
        print("|---|---|---:|---:|---:|---:|")
        for shape in SIZES.values():
            for rows, tokens in ((4, 256), (2, 128)):
                sizes = f"experts.max_length={tokens}", f"experts.optimizer.batch_size={rows}"
                m, kept = measure(shape, *sizes), measure(shape, *sizes, given_back=False).measured
                gb = [f"{v / 1e9:.2f}" for v in (m.planned, m.measured, kept)]
                name = f"Llama {m.n_parameters / 1e6:.0f}M"
                print(f"| {name} | {rows} x {tokens} | {gb[0]} | {gb[1]} | {m.off:+.0%} | {gb[2]} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
