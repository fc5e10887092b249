"""Published data sets from a server on this machine: fetched, checked, converted, and read by their sources."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")

from mocae.cli import main
from mocae.config import load_recipe, shipped_recipes
from mocae.data import published, read_source
from mocae.data.published import LOCK, DataSet, check_data, get_data, published_sets
from mocae.errors import ArtifactError, ConfigError, DataError
from mocae.pipelines.check import validate


class Server:
    """What is published, by path, and what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A hub and a GitHub on 127.0.0.1."""
    seen = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.asked.append(self.path)
            body = seen.files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{httpd.server_port}/hub")
    monkeypatch.setattr(published, "_GITHUB", f"http://127.0.0.1:{httpd.server_port}/git")
    yield seen
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _beavertails() -> bytes:
    rows = [
        {
            "prompt": prompt,
            "response": f"{word} {prompt}",
            "category": {"theft": word == "bad"},
            "is_safe": word != "bad",
        }
        for prompt, words in {"first": ("bad", "good", "fine"), "second": ("good",), "third": ("good", "bad")}.items()
        for word in words
    ]
    return gzip.compress(_lines(rows))


HUB = "/hub/datasets/PKU-Alignment"
QUESTION = {"question": "q", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}}
PUBLISHED = {
    "/git/tatsu-lab/stanford_alpaca/main/alpaca_data.json": json.dumps(
        [{"instruction": "Name a colour", "input": "", "output": "Blue"}]
    ).encode(),
    "/git/sylinrl/TruthfulQA/main/TruthfulQA.csv": (
        b"Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\r\nx,y,q?,a,a; b,c,d\r\n"
    ),
    "/git/sylinrl/TruthfulQA/main/data/mc_task.json": json.dumps([QUESTION]).encode(),
    "/git/yinzhangyue/SelfAware/main/data/SelfAware.json": json.dumps(
        {"example": [{"question": "q?", "answer": ["a"], "answerable": True}]}
    ).encode(),
    f"{HUB}/BeaverTails/resolve/8401fe609d288129cc684a9b3be6a93e41cfe678/round0/30k/test.jsonl.gz": _beavertails(),
    f"{HUB}/BeaverTails/resolve/8401fe609d288129cc684a9b3be6a93e41cfe678/round0/30k/train.jsonl.gz": _beavertails(),
    f"{HUB}/BeaverTails-Evaluation/resolve/main/test.jsonl": _lines(
        [{"prompt": "p", "category": "theft", "category_id": 1}]
    ),
}
SOURCES = {
    "alpaca/alpaca_data.json.xz": "alpaca",
    "beavertails/labelled.jsonl.xz": "beavertails",
    "beavertails/pairs_train.jsonl.xz": "beavertails-pairs",
    "beavertails/evaluation_prompts.json.xz": "beavertails-prompts",
    "truthfulqa/TruthfulQA.csv": "truthfulqa",
    "truthfulqa/mc_task.json.xz": "truthfulqa-mc",
    "selfaware/SelfAware.json.xz": "selfaware",
}


def _run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _some(*names: str) -> dict[str, DataSet]:
    return {name: published_sets()[name] for name in names}


def test_what_is_published_is_read_by_the_sources_of_the_recipes(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files = dict(PUBLISHED)
    names = ("alpaca", "beavertails", "truthfulqa", "selfaware")
    assert _run("get", *names, "--out", str(tmp_path)) == 0
    told = capsys.readouterr()
    assert "beavertails: licence CC BY-NC 4.0. Harmful text." in told.err
    assert f"{tmp_path / 'alpaca/alpaca_data.json.xz'}: there, as fetched" in told.out
    read = {to: read_source(source, tmp_path / to, axis="a").examples for to, source in SOURCES.items()}
    pairs = {(row.prompt, row.response, row.facts["unsafe"]) for row in read["beavertails/pairs_train.jsonl.xz"]}
    assert pairs == {("first", "good first", "bad first"), ("third", "good third", "bad third")}
    assert len(read["beavertails/labelled.jsonl.xz"]) == 4, "safe responses alone are read to train on"
    lock = json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))
    for to, entry in lock.items():
        path = next(p for p in PUBLISHED if entry["url"].endswith(p))
        assert entry["published_sha256"] == hashlib.sha256(PUBLISHED[path]).hexdigest()
        assert entry["sha256"] == hashlib.sha256((tmp_path / to).read_bytes()).hexdigest()
    asked = len(server.asked)
    assert _run("get", *names, "--out", str(tmp_path)) == 0
    assert len(server.asked) == asked, "what is there is not fetched again"


def test_every_file_that_the_recipes_of_published_data_name_is_in_the_table() -> None:
    targets = {file.to for entry in published_sets().values() for file in entry.files}
    for name in ("real-small", "smollm2-135m"):
        recipe = load_recipe(shipped_recipes()[name])
        paths = {str(s.path) for axis in recipe.axes for s in (*axis.train, *axis.calibration, *axis.test)}
        paths |= {str(judge.options["labelled"]) for judge in recipe.judges if "labelled" in judge.options}
        assert paths <= targets


def test_a_recipe_whose_files_are_missing_names_the_command(tmp_path: Path) -> None:
    recipe = load_recipe(shipped_recipes()["real-small"], [f"data_root={tmp_path}", "base.model=pocket"])
    with pytest.raises(ConfigError) as told:
        validate(recipe)
    assert "xstest_prompts.csv'; paths start from data_root" in str(told.value)
    for name in ("alpaca", "beavertails", "truthfulqa", "xstest"):
        assert f"`mocae data get {name} --out DIR` fetches it" in str(told.value)


def test_without_a_network_each_file_is_told_with_its_place_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(published, "_GITHUB", "http://127.0.0.1:9")
    assert _run("get", "alpaca", "truthfulqa", "--out", str(tmp_path)) == 1
    told = capsys.readouterr().err
    for path in ("tatsu-lab/stanford_alpaca/main/alpaca_data.json", "sylinrl/TruthfulQA/main/TruthfulQA.csv"):
        place = tmp_path / "published" / path.replace("/main", "")
        assert f"fetch http://127.0.0.1:9/{path} by other means and put it at {place}" in told
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(PUBLISHED[f"/git/{path}"])
    assert _run("get", "alpaca", "--out", str(tmp_path)) == 0
    assert _run("check", "alpaca", "--out", str(tmp_path)) == 0
    capsys.readouterr()
    assert _run("check", "alpaca", "truthfulqa", "--out", str(tmp_path), "--json") == 1
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["fetched", "missing", "missing"]


def test_a_hash_that_is_known_is_checked_and_the_file_is_not_used(server: Server, tmp_path: Path) -> None:
    entry = published_sets()["xstest"].files[0]
    server.files = {f"/git/paul-rottger/xstest/{entry.revision}/xstest_prompts.csv": b"id,prompt,type,label\n"}
    with pytest.raises(DataError, match=rf"SHA-256 is [0-9a-f]{{64}}; expected {entry.sha256}, the published one"):
        get_data(_some("xstest"), tmp_path)
    assert not (tmp_path / entry.to).exists()


def test_a_file_that_changed_upstream_since_it_was_locked_is_told(server: Server, tmp_path: Path) -> None:
    server.files = dict(PUBLISHED)
    get_data(_some("alpaca"), tmp_path)
    written, fetched = tmp_path / "alpaca/alpaca_data.json.xz", tmp_path / "published/tatsu-lab/stanford_alpaca"
    written.unlink()
    (fetched / "alpaca_data.json").unlink()
    server.files["/git/tatsu-lab/stanford_alpaca/main/alpaca_data.json"] += b" "
    with pytest.raises(DataError, match=rf"that of an earlier time, in {LOCK}; remove the file and fetch it again, or"):
        get_data(_some("alpaca"), tmp_path)


def test_files_of_ones_own_stay_and_changed_ones_are_told(server: Server, tmp_path: Path) -> None:
    server.files = dict(PUBLISHED)
    own = tmp_path / "truthfulqa/TruthfulQA.csv"
    own.parent.mkdir()
    own.write_text("mine", encoding="utf-8")
    states = {found.file.to: found.state for found in get_data(_some("truthfulqa"), tmp_path)}
    assert states == {"truthfulqa/TruthfulQA.csv": "own", "truthfulqa/mc_task.json.xz": "fetched"}
    assert own.read_text(encoding="utf-8") == "mine"
    (tmp_path / "truthfulqa/mc_task.json.xz").write_bytes(lzma.compress(b"[]"))
    assert [found.state for found in check_data(_some("truthfulqa"), tmp_path)] == ["own", "changed"]
    (tmp_path / LOCK).write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="damaged; remove it"):
        check_data(_some("truthfulqa"), tmp_path)


def test_a_download_that_breaks_off_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files = {"/git/tatsu-lab/stanford_alpaca/main/alpaca_data.json": b"[]"}

    class Short(bytes):
        def __len__(self) -> int:
            return 10

    server.files = {path: Short(body) for path, body in server.files.items()}
    with pytest.raises(DataError, match="no answer"):
        get_data(_some("alpaca"), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_unknown_name_is_told_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("get", "alpacca", "--out", str(tmp_path)) == 2
    assert "unknown data set 'alpacca'" in capsys.readouterr().err
