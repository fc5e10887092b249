from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mocae.errors import ConfigError
from mocae.pipelines.lm_eval_bridge import model_class
from tiny import tiny_llama, tiny_tokenizer

HAS_LM_EVAL = importlib.util.find_spec("lm_eval") is not None
needs_lm_eval = pytest.mark.skipif(not HAS_LM_EVAL, reason="lm-eval is not installed")

TASKS = {
    "mine_mc1": "output_type: multiple_choice\ndoc_to_text: 'Q: {{question}}\\nA:'\ndoc_to_target: 0\n"
    "doc_to_choice: '{{mc1}}'\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
    "mine_generate": "output_type: generate_until\ndoc_to_text: 'Q: {{question}}\\nA:'\ndoc_to_target: '{{mc1[0]}}'\n"
    "generation_kwargs: {until: ['.'], max_gen_toks: 4, do_sample: false}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
    "mine_rolling": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{question}}'\n"
    "metric_list: [{metric: byte_perplexity}]\n",
}

# In a process of its own: lm-eval warns of many things that are not ours.
COMPARE = """
import json, sys, torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from mocae.models import LoadedBase, PlainModel, load_base
from mocae.pipelines.lm_eval_bridge import model_class, register

register(); register()
base = load_base(sys.argv[1], dtype="fp32", device="cpu")
manager = TaskManager(include_path=sys.argv[2], include_defaults=False)
tasks = sys.argv[3].split(",")
theirs = HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=4)
found = []
for lm in (model_class()(model=PlainModel(base)), theirs):
    results = simple_evaluate(model=lm, tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0)
    numbers = {t: {k: v for k, v in results["results"][t].items() if isinstance(v, float)} for t in tasks}
    said = {t: [s["resps"] for s in results["samples"][t]] for t in tasks}
    found.append([numbers, said])
print("FOUND", json.dumps(found))
"""


@needs_lm_eval
def test_results_are_those_of_lm_evals_own_model(tmp_path: Path) -> None:
    model, folder = tiny_llama(max_position_embeddings=128), tmp_path / "model"
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    rows = [{"question": f"What is {i}?", "mc1": ["one", "two words", f"{i}"][: 2 + i % 2]} for i in range(6)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, text in TASKS.items():
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        (tmp_path / f"{name}.yaml").write_text(head + text, encoding="utf-8")
    words = [sys.executable, "-c", COMPARE, str(folder), str(tmp_path), ",".join(TASKS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    (ours, said), (theirs, said_there) = json.loads(line.removeprefix("FOUND"))
    for task in TASKS:
        assert ours[task] == pytest.approx(theirs[task], rel=1e-6, abs=1e-6)
    assert said["mine_generate"] == said_there["mine_generate"]


# TruthfulQA's own tasks as lm-eval ships them, on local questions, against `mocae.evaluation.choices`.
MULTIPLE_CHOICE = """
import json, sys
from pathlib import Path
import lm_eval.tasks
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from mocae.evaluation.choices import score_multiple_choice
from mocae.models import PlainModel, load_base
from mocae.types import Example

model, data, folder = sys.argv[1:]
for name in ("mc1", "mc2"):
    theirs = Path(lm_eval.tasks.__file__).parent / "truthfulqa" / f"truthfulqa_{name}.yaml"
    (Path(folder) / f"{name}.yaml").write_text(
        f"include: {theirs}\\ntask: local_{name}\\ndataset_path: json\\ndataset_name: null\\n"
        f"dataset_kwargs: {{data_files: {{validation: {data}}}}}\\n"
    )
base = load_base(model, dtype="fp32", device="cpu")
rows = [json.loads(line) for line in open(data)]
facts = [{n: dict(zip(*r[f"{n}_targets"].values(), strict=True)) for n in ("mc1", "mc2")} for r in rows]
examples = [Example(r["question"], "honesty", "question", facts=f) for r, f in zip(rows, facts, strict=True)]
ours = score_multiple_choice(PlainModel(base), examples)
lm = HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=8)
manager = TaskManager(include_path=folder, include_defaults=False)
tasks = ["local_mc1", "local_mc2"]
found = simple_evaluate(model=lm, tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0)
samples = {n: sorted(found["samples"][f"local_{n}"], key=lambda s: s["doc_id"]) for n in ("mc1", "mc2")}
print("FOUND", json.dumps({n: [[v[n].score for v in ours], [s["acc"] for s in samples[n]]] for n in samples}))
"""


@needs_lm_eval
def test_multiple_choice_agrees_with_lm_eval(tmp_path: Path) -> None:
    tiny_llama(max_position_embeddings=1024).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    rows = [
        {
            "question": f"What is {i}?",
            "mc1_targets": {"choices": ["one", f"{i} men", "two"], "labels": [1, 0, 0]},
            "mc2_targets": {"choices": ["one", f"{i}", "two words", "none"], "labels": [1, 1, 0, 0]},
        }
        for i in range(8)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [sys.executable, "-c", MULTIPLE_CHOICE, str(tmp_path / "model"), str(data), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    for ours, theirs in json.loads(line.removeprefix("FOUND")).values():
        assert len(ours) == len(rows)
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.skipif(HAS_LM_EVAL, reason="lm-eval is installed")
def test_without_lm_eval_the_message_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'mocae\[bridge\]'"):
        model_class()
