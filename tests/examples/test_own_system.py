"""The example of a system of one's own: an installed package, and nothing in mocae knows of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_system"
STEPS = """
import sys
from pathlib import Path
from mocae.cli.app import main
from mocae.pipelines.ablation.ablate import ablate
from mocae.pipelines.artifact import load
from mocae.pipelines.export import export
from mocae.pipelines.run import run
from mocae.serving.lanes import Lanes
from mocae.serving.request import Request
from mocae.serving.conversation import Turn
from mocae.serving.served import Served
from mocae.config import dump_recipe
from run_for_tests import tiny_base, tiny_recipe

root = Path(sys.argv[1])
variant = {"name": "one neighbour", "policy": "nearest", "options": {"n": 1}}
recipe = tiny_recipe(tiny_base(root / "base"), systems=["base", "nearest", variant, "alignx"])
run(recipe, out=root / "out", progress=False)
model = load(root / "out", system="nearest", device="cpu")
reply = model.reply("Repeat the word river.")
served = Served(model.artifact)
tokens = served.chat_tokens([Turn("user", "Repeat the word river.")], model="nearest")
with Lanes(served) as lanes:
    request = Request(tokens, served.policy("nearest"), served.max_new_tokens, strip=True)
    *_, answer = lanes.stream(request)
assert answer.text == reply.text
assert dict(answer.weights) == reply.weights
export(root / "out", to="gguf", system="nearest", out=root / "gguf", progress=False)
(root / "recipe.yaml").write_text(dump_recipe(recipe))
ablate(root / "recipe.yaml", out=root / "ablation", seeds=1, progress=False)
print(reply.weights)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables under which the example is installed."""
    site = tmp_path_factory.mktemp("site")
    pytest.importorskip("setuptools")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(_copied(site))], check=True)
    paths = [str(site), str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _copied(site: Path) -> Path:
    """Return a copy of the example: building leaves files beside the source."""
    copy = site.parent / "own_system"
    copy.mkdir(exist_ok=True)
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_a_system_of_ones_own_goes_everywhere(environment: dict[str, str], tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert len((EXAMPLE / "own_system.py").read_text(encoding="utf-8").splitlines()) <= 60
    mocae = (sys.executable, "-m", "mocae")
    assert "nearest" in run(*mocae, "ls", "systems")
    run(sys.executable, "-c", STEPS, str(tmp_path))
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["systems"]["nearest"]["about"] == (
        "The expert that was right most often on the calibration prompts that are most alike"
    )
    assert "nearest" in report["routing"]
    assert "nearest" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    summary = json.loads((tmp_path / "ablation" / "ablation.json").read_text(encoding="utf-8"))
    [part] = [part for part in summary["settings"][""]["parts"] if part["system"] == "one neighbour"]
    assert part["changed"] == {"n": [5, 1]}
    assert run(*mocae, "chat", str(tmp_path / "out"), "--system", "nearest", "--prompt", "Repeat the word river.")
    assert json.loads((tmp_path / "gguf" / "export.json").read_text(encoding="utf-8"))["system"] == "nearest"
