"""What a command refuses by the manifest alone: the base model, minutes on a large one, is never loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mocae.cli import main
from mocae.export import chooser
from mocae.pipelines import artifact, export  # before one is patched, so that the other does not import the patch
from run_for_tests import AXES


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs `mocae` with words, wants exit code 2 and no base model, and gives the message."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the base model was loaded")

    for module, name in ((artifact, "base_of"), (export, "base_of"), (chooser, "load_recorded")):
        monkeypatch.setattr(module, name, loaded)

    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        assert caught.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steer", "foo=1"), "unknown expert 'foo'. Known: "),
        (("--system", "nope"), "unknown system of this run 'nope'. Known: 'alignx', 'base', 'expert:"),
        (("--system", "oracle"), "system 'oracle' is an upper bound and cannot be used: "),
        (("--system", "static"), "unknown system of this run 'static'. Known: "),
        (("--prompt", " "), "--prompt is empty; give the text to answer"),
    ],
)
def test_chat(copy: Path, refused: Callable[..., str], words: tuple[str, ...], message: str) -> None:
    told = refused("chat", copy, *words)
    assert told.startswith(f"error: {message}")
    assert "'oracle'," not in told.partition("Known")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("peft",), "--to peft needs --weights, one number an expert"),
        (("merged",), "--to merged needs --weights, one number an expert"),
        (("peft", "--weights", "foo=1"), "unknown expert 'foo'. Known: "),
        (("gguf", "--weights", f"{AXES[0]}=0"), "--weights {"),
        (("lorax", "--rank", "4"), "--to lorax takes no --rank; it belongs to --to peft, --to vllm"),
        (("merged", "--rank", "4"), "--to merged takes no --rank; "),
        (("gguf", "--rank", "4"), "--to gguf takes no --rank; "),
        (("peft", "--mixtures", "2"), "--to peft takes no --mixtures; it belongs to --to vllm"),
        (("peft", "--numbers", "f32"), "--to peft takes no --numbers; it belongs to --to gguf"),
        (("vllm", "--weights", "a=1"), "--to vllm takes no --weights; it belongs to --to peft, --to merged, "),
        (("lorax", "--no-measure"), "--to lorax takes no --measure or --no-measure; it belongs to --to vllm"),
        (("lorax", "--seed", "1"), "--to lorax takes no --seed; it belongs to --to vllm"),
    ],
)
def test_export(copy: Path, refused: Callable[..., str], words: tuple[str, ...], message: str) -> None:
    told = refused("export", copy, "--out", copy.parent / "export", "--to", *words)
    assert told.startswith(f"error: {message}")
    assert not (copy.parent / "export").exists()


def test_gateway(copy: Path, refused: Callable[..., str]) -> None:
    assert refused("gateway", copy, "--backend", "foo").startswith("error: --backend 'foo': not an address; ")
