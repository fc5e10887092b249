"""`mocae` with the judge of the tests, for processes of their own; then the same with the base model sharded.

Beside each folder a file `.facts.json` says what really ran: some settings of launchers fall back in silence.
"""

import json
import sys
from pathlib import Path
from typing import Any

import accelerate
from torch.distributed.tensor import DTensor

import run_for_tests  # noqa: F401  # registers the judge
from mocae.cli.app import main
from mocae.experts.finetune import _Trainer

facts: dict[str, Any] = {}
train = _Trainer.train


def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
    done = train(self, *args, **kwargs)
    frozen = [p for p in self.model.parameters() if not p.requires_grad]
    state = accelerate.PartialState()
    facts.update(
        processes=state.num_processes,
        distributed_type=state.distributed_type.value,
        backend=state.backend,
        wrapped=type(self.model_wrapped).__name__,
        rows_at_once=self.args.per_device_train_batch_size,
        accumulation=self.args.gradient_accumulation_steps,
        sharded=all(isinstance(p, DTensor) for p in frozen),
        held=sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in frozen)
        / sum(p.numel() for p in frozen),
    )
    return done


def run(words: list[str]) -> None:
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise
    if accelerate.PartialState().is_main_process:
        Path(words[words.index("--out") + 1] + ".facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    _Trainer.train = noting
    words = sys.argv[1:]
    run(words)
    words[words.index("--out") + 1] += "-sharded"
    run([*words, "--set", "base.shard=true"])
