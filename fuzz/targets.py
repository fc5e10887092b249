"""What is fuzzed: functions of bytes that may raise nothing but the package's own errors.

Each takes any bytes and gives them to a parser as it would meet them. `fuzz/run.py` drives them with atheris,
`tests/fuzz/test_targets.py` with Hypothesis and with the seeds under `fuzz/corpus/`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from mocae.bank import load_peft
from mocae.cli.options import numbers, words
from mocae.config import dump_recipe, load_recipe, parse_recipe
from mocae.config.yaml import read_yaml
from mocae.data import read_source
from mocae.errors import ConfigError, MocaeError
from mocae.evaluation import AnswerLog, read_samples
from mocae.export.bundle import read_export
from mocae.judges.endpoint.parsers import PARSERS
from mocae.pipelines.manifest import read_manifest
from mocae.stages.store import refuse_changed

_MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
_FOLDER = Path(tempfile.mkdtemp(prefix="mocae-fuzz-", dir=_MEMORY))


def recipes(data: bytes) -> None:
    """A recipe file; a first line "#set key=value" is a `--set` on top. What is accepted survives being written."""
    path = _FOLDER / "recipe.yaml"
    path.write_bytes(data)
    first = data.partition(b"\n")[0]
    settings = [first[5:].decode("utf-8", "replace")] if first.startswith(b"#set ") else []
    with contextlib.suppress(MocaeError):
        recipe = load_recipe(path, settings)
        again = parse_recipe(read_yaml(dump_recipe(recipe), "dumped"))
        assert again == recipe, "a recipe changed by being written and read"


_COLUMNS: dict[str, object] = {
    "probe": "task",
    "columns": {"prompt": "prompt", "response": "response"},
    "facts": {"reference": "response"},
}
_SOURCES: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("table", ".jsonl", _COLUMNS),
    ("table", ".csv", _COLUMNS),
    ("table", ".json", _COLUMNS),
    ("alpaca", ".json", {}),
    ("beavertails", ".jsonl", {}),
    ("beavertails-pairs", ".jsonl", {}),
    ("beavertails-prompts", ".json", {}),
    ("truthfulqa", ".csv", {}),
    ("truthfulqa-mc", ".json", {}),
    ("xstest", ".csv", {}),
    ("selfaware", ".json", {}),
    ("honeset", ".json", {}),
    ("table", ".jsonl.gz", _COLUMNS),
    ("table", ".csv.xz", _COLUMNS),
)


def readers(data: bytes) -> None:
    """A data file; the first byte says which reader meets it, and what it does with bad rows."""
    if not data:
        return
    name, ending, options = _SOURCES[(data[0] // 2) % len(_SOURCES)]
    path = _FOLDER / f"rows{ending}"
    path.write_bytes(data[1:])
    with contextlib.suppress(MocaeError):
        read = read_source(name, path, axis="a", on_bad_row="skip" if data[0] % 2 else "error", options=options)
        assert read.examples, "a source gave no row and no error"
        for example in read.examples:
            assert example.prompt.strip(), "an empty prompt came through"
            example.prompt.encode("utf-8")


def weights(data: bytes) -> None:
    """`--steer` and `--weights` as the command line takes them: items with line ends between."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(ConfigError):
        for value in (numbers(text.split("\n"), "--steer") or {}).values():
            assert abs(value) < float("inf"), "a number that is not finite"
    with contextlib.suppress(ConfigError):
        assert all(words(text, "--systems") or ["x"]), "an empty word"


def replies(data: bytes) -> None:
    """A judge's reply: every parser gives a score in [0, 1], or nothing."""
    text = data.decode("utf-8", "surrogateescape")
    for name, parse in PARSERS.items():
        parsed = parse(text)
        assert parsed is None or 0 <= parsed.score <= 1, f"{name}: a score outside [0, 1]"


_ARTIFACT: tuple[tuple[str, Callable[[Path], object]], ...] = (
    ("manifest.json", read_manifest),
    ("stage.json", refuse_changed),
    ("adapter_config.json", load_peft),
    ("adapter_model.safetensors", load_peft),
    ("export.json", read_export),
    ("samples.jsonl", lambda folder: list(read_samples(folder / "samples.jsonl"))),
    ("answers.jsonl", AnswerLog),
    ("verdicts.jsonl", AnswerLog),
)


def artifacts(data: bytes) -> None:
    """A file of an artifact, an export or a log that was tampered with; the first byte says which."""
    if not data:
        return
    name, read = _ARTIFACT[data[0] % len(_ARTIFACT)]
    seeds = Path(__file__).parent / "corpus" / "artifacts"
    folder = _FOLDER / "artifact" / name.partition(".")[0]
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for other in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / other).write_bytes((seeds / other).read_bytes()[1:])
    (folder / name).write_bytes(data[1:])
    with contextlib.suppress(MocaeError):
        read(folder)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "recipes": recipes,
    "readers": readers,
    "weights": weights,
    "replies": replies,
    "artifacts": artifacts,
}
