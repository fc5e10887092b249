from __future__ import annotations

import subprocess
import sys

import pytest

from mocae import progress
from mocae.progress import Job, bar, say, track, visible


def test_what_is_shown_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with visible(True):
        say("one line")
        with bar(3, "training") as shown:
            shown.advance(2)
            shown.note("loss 0.5")
            shown.advance()
        assert list(track(["a", "b"], "reading")) == ["a", "b"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "one line" in captured.err
    assert "training" in captured.err
    assert "3/3" in captured.err
    assert "loss 0.5" in captured.err
    assert "2/2" in captured.err


def work(text: str, *, fails: bool) -> None:
    say(text)
    with bar(2, text) as shown:
        shown.advance()
        if fails:
            raise ValueError("broken")
    assert list(track([1], text)) == [1]


def test_nothing_is_shown_when_off_and_the_switch_goes_back(capsys: pytest.CaptureFixture[str]) -> None:
    with visible(True):
        with visible(False):
            work("hidden", fails=False)
        with pytest.raises(ValueError, match="broken"), visible(False):
            work("hidden", fails=True)
        say("shown again")
    captured = capsys.readouterr()
    assert "hidden" not in captured.err
    assert "shown again" in captured.err


def test_text_is_shown_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    text = "targets [q_proj] in [/base], " + "a line longer than a terminal is wide, " * 4
    with visible(True):
        say(text)
        with bar(1, "expert [red]") as shown:
            shown.note("[/bold]")
    error = capsys.readouterr().err
    assert f"{text}\n" in error
    assert "expert [red]" in error
    assert "[/bold]" in error


def test_a_bar_ends_with_an_error_and_when_it_is_left_early(capsys: pytest.CaptureFixture[str]) -> None:
    with visible(True):
        with pytest.raises(ValueError, match="broken"):
            work("fails", fails=True)
        work("after", fails=False)
        for _ in track([1, 2], "left early"):
            break
        work("after that", fails=False)
    error = capsys.readouterr().err
    for text in ("fails", "after", "left early", "after that"):
        assert text in error


@pytest.mark.parametrize(("value", "shown"), [("0", False), ("1", True)])
def test_an_environment_variable_sets_the_switch(value: str, shown: bool) -> None:
    script = "from mocae.progress import say; say('a line')"
    environment = {"MOCAE_PROGRESS": value, "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert ("a line" in done.stderr) is shown


def test_a_job_says_how_far_the_whole_is_and_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 2.4, 2.4, 1.0, 31.0, 31.0, 40.0, 340.0, 340.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with visible(True):
        made: list[str] = []
        job = Job({"found": 10.0, "expert": 30.0, "joint": 60.0}, lambda: len(made))
        for name in ("found", "expert", "joint"):
            with job.part(name):
                made += [] if name == "found" else [name]
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines == [
        "whole run: 1 of 3 parts, 10%, 2 s gone (found done)",
        "whole run: 2 of 3 parts, 40%, 31 s gone, about 60 s left (expert done)",
        "whole run: 3 of 3 parts, 100%, 6 min gone (joint done)",
    ]


def test_a_part_that_fails_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job({"expert": 1.0}, lambda: 0)
    with visible(True), pytest.raises(ValueError, match="broken"), job.part("expert"):
        raise ValueError("broken")
    assert "done" not in capsys.readouterr().err
