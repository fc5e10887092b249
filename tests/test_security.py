"""Lines of SECURITY.md that the source itself must hold: nothing that is read is ever executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "src" / "mocae").rglob("*.py"))
EXECUTES = {"eval", "exec", "compile", "__import__", "breakpoint"}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
UNSAFE_CALLS = {
    *("torch.load", "torch.jit.load", "torch.hub.load", "os.system", "os.popen"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "pandas.read_pickle", "skops.io.get_untrusted_types"),
}
# The one loader is a `yaml.SafeLoader` of our own.
ALLOWED = {("config/yaml.py", "yaml.load")}


def unsafe(source: str, name: str = "a.py") -> Iterator[str]:
    """Yield what a file does that could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{name}:{node.lineno} imports {m}" for m in modules if m.split(".")[0] in UNSAFE_MODULES)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
        refused = called in UNSAFE_CALLS or (isinstance(node.func, ast.Name) and called in EXECUTES)
        refused |= called == "yaml.load" and (name, called) not in ALLOWED
        refused |= arguments.get("shell") == "True" or arguments.get("allow_pickle") == "True"
        refused |= arguments.get("trust_remote_code") == "True" or arguments.get("weights_only") == "False"
        refused |= (
            called.startswith("AutoModel")
            and called.endswith("from_pretrained")
            and (arguments.get("use_safetensors") != "True")
        )
        if refused:
            yield f"{name}:{node.lineno} {ast.unparse(node)[:60]}"


def test_nothing_that_is_read_is_executed() -> None:
    assert len(FILES) > 100
    package = ROOT / "src" / "mocae"
    found = [u for p in FILES for u in unsafe(p.read_text(encoding="utf-8"), p.relative_to(package).as_posix())]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(command, shell=True)",
        "load_base(name, trust_remote_code=True)",
        "AutoModelForCausalLM.from_pretrained(name)",
    ],
)
def test_what_could_execute_is_found(line: str) -> None:
    assert len(list(unsafe(line))) == 1


def test_every_test_that_security_md_names_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = {part for part in text.replace("`", " ").split() if part.startswith("test_")}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in sources} == set()
