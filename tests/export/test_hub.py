"""Push and pull through a hub that is a folder."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mocae.errors import ArtifactError, ConfigError
from mocae.export import Bundle, export_peft, pull, push, read_export, whole_folder, write_manifest
from mocae.export.card import export_card


@dataclass
class FolderHub:
    """Speaks as `huggingface_hub.HfApi` does and keeps repositories as folders."""

    root: Path
    made: list[dict[str, Any]] = field(default_factory=list)

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.made.append({"repo_id": repo_id, **options})

    def create_commit(self, repo_id: str, operations: list[Any], **_: Any) -> Any:
        for operation in operations:
            path = self.root / repo_id / operation.path_in_repo
            path.parent.mkdir(parents=True, exist_ok=True)
            with operation.as_file() as content:
                assert isinstance(content, io.IOBase)
                path.write_bytes(content.read())
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        from fnmatch import fnmatch

        copy = self.root / "cache"
        for path in (self.root / repo_id).rglob("*"):
            name = path.relative_to(self.root / repo_id)
            if path.is_file() and any(fnmatch(name.as_posix(), pattern) for pattern in allow_patterns):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy / name)
        return str(copy)


@pytest.fixture
def exported(bundle: Bundle, tmp_path: Path) -> Path:
    folder = tmp_path / "peft"
    folder.mkdir()
    details = export_peft(bundle, folder, weights={"all": 1.0})
    manifest = write_manifest(folder, bundle, to="peft", details=details)
    (folder / "README.md").write_text(export_card(manifest), encoding="utf-8")
    write_manifest(folder, bundle, to="peft", details=details)
    return folder


def test_an_export_comes_back_as_it_went(exported: Path, tmp_path: Path) -> None:
    hub = FolderHub(tmp_path / "hub")
    assert push(exported, "ada/one", api=hub) == "https://hub/ada/one/commit/1"
    assert hub.made == [{"repo_id": "ada/one", "repo_type": "model", "private": True, "exist_ok": True}]
    names = read_export(exported)["files"].keys()
    for name in names - {"README.md"}:
        assert (tmp_path / "hub/ada/one" / name).read_bytes() == (exported / name).read_bytes()
    card = (tmp_path / "hub/ada/one/README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: peft\n")  # base_model is a folder here, which no hub can resolve
    assert "PeftModel.from_pretrained" in card


def test_pulled_files_are_checked(exported: Path, tmp_path: Path) -> None:
    hub = FolderHub(tmp_path / "hub")
    shutil.copytree(exported, tmp_path / "hub/ada/one")
    (tmp_path / "hub/ada/one/adapter.bin").write_bytes(b"a pickle")
    out = pull("ada/one", tmp_path / "out", api=hub)
    assert read_export(out)["format"] == "peft"
    assert not list(out.rglob("*.bin"))
    (tmp_path / "hub/ada/one/adapter_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"adapter_config\.json has changed"):
        pull("ada/one", tmp_path / "again", api=hub)
    assert not (tmp_path / "again").exists()


def test_an_artifact_goes_without_answers_unless_asked(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    public = ("manifest.json", "README.md", "experts/a/adapter_config.json", "output/alignx/output.json")
    for name in (*public, "samples.jsonl", "outcomes/o.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    hub = FolderHub(tmp_path / "hub")
    push(folder, "ada/run", api=hub)
    found = {p.relative_to(hub.root).as_posix() for p in hub.root.rglob("*") if p.is_file()}
    assert found == {f"ada/run/{name}" for name in public}
    push(folder, "ada/all", api=hub, with_answers=True, private=False)
    assert (hub.root / "ada/all/samples.jsonl").is_file()
    assert (hub.root / "ada/all/outcomes/o.jsonl").is_file()
    assert hub.made[-1]["private"] is False


def test_what_is_wrong_is_told(exported: Path, tmp_path: Path) -> None:
    class Refusing(FolderHub):
        def create_repo(self, repo_id: str, **options: Any) -> None:
            raise PermissionError("401: no token")

    with pytest.raises(ConfigError, match=r"push to 'ada/one' failed: PermissionError: 401.*hf auth login"):
        push(exported, "ada/one", api=Refusing(tmp_path))
    with pytest.raises(ConfigError, match="'one' names no repository; give owner/name"):
        push(exported, "one", api=FolderHub(tmp_path))
    with pytest.raises(ArtifactError, match="neither a finished run"):
        push(tmp_path, "ada/one", api=FolderHub(tmp_path))


def test_the_hubs_own_client_takes_the_commit(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls fit the real `HfApi`; only what would leave the machine is replaced."""
    from huggingface_hub import HfApi

    sent: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, *, repo_type, private, exist_ok: None)

    def create_commit(self: Any, repo_id: str, operations: Any, *, commit_message: str, **_: Any) -> Any:
        sent.append((commit_message, [operation.path_in_repo for operation in operations]))
        return SimpleNamespace(commit_url="https://hub/1")

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    push(exported, "ada/one")
    assert sent == [("Publish with mocae", sorted(sent[0][1], key=lambda name: name != "export.json"))]
    assert "adapter_model.safetensors" in sent[0][1]


def test_an_export_can_be_read_by_others(bundle: Bundle, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with whole_folder(tmp_path / "out") as folder:
            export_peft(bundle, folder, weights={"all": 1.0})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert set(modes) > {"adapter_config.json", "adapter_model.safetensors"}
    assert set(modes.values()) == {0o644}


@pytest.mark.parametrize("name", ["experts/a/link.json", "report.json", "router"])
def test_a_link_is_not_followed_out_of_what_is_pushed(tmp_path: Path, name: str) -> None:
    folder, secret = tmp_path / "artifact", tmp_path / "secret"
    secret.mkdir()
    (secret / "key.json").write_text("{}")
    (folder / "experts" / "a").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / name).symlink_to(secret if name == "router" else secret / "key.json")
    with pytest.raises(ArtifactError, match=r"a link"):
        push(folder, "ada/run", api=FolderHub(tmp_path / "hub"))
    assert not (tmp_path / "hub" / "ada").exists()


def test_no_script_is_pulled_and_the_command_is_written_anew(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "ada" / "one"
    folder.mkdir(parents=True)
    (folder / "code_book.json").write_text('{"experts": ["all"], "mixtures": {"mixture-00": [1.0]}}')
    manifest = write_manifest(folder, bundle, to="vllm", details={"max_lora_rank": 8})
    (folder / "serve.sh").write_text("echo harm")
    out = pull("ada/one", tmp_path / "out", api=FolderHub(tmp_path / "hub"))
    command = (out / "serve.sh").read_text(encoding="utf-8")
    assert "harm" not in command
    assert f"base={manifest['base']['model']}" in command
    assert "--max-lora-rank 8" in command
    assert '"path": "adapters/mixture-00"' in command


def test_what_is_no_plain_file_is_not_pulled(exported: Path, tmp_path: Path) -> None:
    class Linking(FolderHub):
        def snapshot_download(self, *_: object, **__: object) -> str:
            return str(self.root)

    os.symlink("/dev/zero", exported / "zeros.json")
    with pytest.raises(ArtifactError, match=r"zeros\.json: no plain file"):
        pull("ada/one", tmp_path / "out", api=Linking(exported))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("files", {"../a": "0" * 64}),
        ("files", {"a": 7}),
        ("experts", "all"),
        ("router", {"options": {"top_k": "2"}}),
        ("base", {"model": "--trust-remote-code", "revision": None, "fingerprint": "", "dtype": ""}),
        ("max_lora_rank", "8; harm"),
    ],
)
def test_an_export_whose_record_is_of_another_shape_is_refused(exported: Path, key: str, value: object) -> None:
    path = exported / "export.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: value}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"export\.json: damaged \({key}.*; export again"):
        read_export(exported)


@pytest.mark.parametrize(
    "card", [b"\xcb", b"---\na: [\n---\n", b"---\na: &x [*y]\n---\n", b"---\na: 2020-99-99\n---\n"]
)
def test_a_card_that_cannot_be_read_is_told(exported: Path, tmp_path: Path, bundle: Bundle, card: bytes) -> None:
    (exported / "README.md").write_bytes(card)
    write_manifest(exported, bundle, to="peft", details={})
    with pytest.raises(ArtifactError, match=r"README\.md: damaged \(.*; write the card again"):
        push(exported, "ada/one", api=FolderHub(tmp_path / "hub"))
