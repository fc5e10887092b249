"""Artifacts and exports on the Hugging Face Hub: what is published, and what is taken from there."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from mocae.errors import ArtifactError, ConfigError
from mocae.export.bundle import MANIFEST, read_export, whole_folder
from mocae.export.vllm import write_command
from mocae.files import inside, plain_files, read_plain

__all__ = ["published_files", "pull", "push"]

_ARTIFACT = ("manifest.json", "README.md", "recipe.yaml", "seen.json", "report.json", "report.html")
_ARTIFACT_FOLDERS = ("experts", "router", "output", "features")
_SAFE = tuple(f"*.{kind}" for kind in "json jsonl safetensors gguf md yaml html model jinja".split())
"""What `pull` takes: nothing a pickle can hide in, no Python, no script."""
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def published_files(folder: Path, *, with_answers: bool = False) -> list[Path]:
    """Return the files of an artifact or export that `push` publishes, relative to the folder.

    Of an artifact: what loading, exporting and reading about it need. Answers to prompts, which may hold harmful text
    and the data sets' own rows, only with `with_answers`.

    Raises:
        ArtifactError: the folder is neither, holds links or other things that are no plain files, or an export has
            changed since it was written.
    """
    if (folder / MANIFEST).is_file():
        return [Path(MANIFEST), *(Path(name) for name in read_export(folder)["files"])]
    if not (folder / "manifest.json").is_file():
        raise ArtifactError(
            f"{folder}: neither a finished run (manifest.json) nor an export ({MANIFEST}); give the --out folder of "
            "`mocae run`, `mocae build` or `mocae export`"
        )
    folders = (*_ARTIFACT_FOLDERS, "answers", "outcomes") if with_answers else _ARTIFACT_FOLDERS
    files = [Path(name) for name in (*_ARTIFACT, *(("samples.jsonl",) if with_answers else ()))]
    published = [path for path in files if inside(folder, path.name).is_file()]
    for name in folders:
        if inside(folder, name).is_dir():
            published += [Path(name) / path for path in plain_files(folder / name)]
    return [path for path in published if not path.name.startswith(".")]


def push(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    with_answers: bool = False,
    message: str | None = None,
    api: Any = None,
) -> str:
    """Publish an artifact or export as a model repository, in one commit, and return its address.

    Args:
        folder: artifact or export.
        repo_id: owner/name; made if need be.
        private: whether a repository made now is private.
        revision: branch, None: the main one.
        with_answers: see `published_files`.
        message: of the commit.
        api: a `huggingface_hub.HfApi` with an endpoint or token of its own; None: the user's.

    Raises:
        ArtifactError: see `published_files`.
        ConfigError: the name is none, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    _check_name(repo_id)
    files = published_files(folder, with_answers=with_answers)
    hub = api or HfApi()
    operations = [
        CommitOperationAdd(
            path_in_repo=path.as_posix(),
            path_or_fileobj=_card(folder / path) if path == Path("README.md") else str(folder / path),
        )
        for path in files
    ]
    with _explained(f"push to {repo_id!r}"):
        hub.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        done = hub.create_commit(
            repo_id, operations, commit_message=message or "Publish with mocae", revision=revision, repo_type="model"
        )
    return str(done.commit_url)


def pull(repo_id: str, out: Path, *, revision: str | None = None, api: Any = None) -> Path:
    """Take an artifact or export from the Hub into a new folder, check it, and return the folder.

    Scripts are not taken: the command that starts vLLM is written anew from the checked manifest.

    Args:
        repo_id: owner/name.
        out: new folder; it appears when everything is there.
        revision: branch, tag or commit.
        api: see `push`.

    Raises:
        ConfigError: the name is none, the Hub refuses, or `out` is there already.
        ArtifactError: the repository holds neither an artifact nor an export, or a file of an export differs.
    """
    from huggingface_hub import HfApi

    _check_name(repo_id)
    hub = api or HfApi()
    with whole_folder(out) as folder:
        with _explained(f"pull of {repo_id!r}"):
            snapshot = Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=list(_SAFE)))
        _take(snapshot, folder)
        if not (folder / MANIFEST).is_file():
            published_files(folder)
        elif (manifest := read_export(folder))["format"] == "vllm":
            base = manifest["base"]
            write_command(folder, base.get("copy") or base["model"], manifest.get("max_lora_rank") or 16)
    return out


def _take(snapshot: Path, folder: Path) -> None:
    """Copy the files of known kinds; those of the hub's cache are links to plain files."""
    for place, _, names in os.walk(snapshot):
        for name in names:
            path = Path(place, name)
            if name.startswith(".") or not any(fnmatch(name, kind) for kind in _SAFE):
                continue
            if not stat.S_ISREG(path.stat().st_mode):
                raise ArtifactError(f"{path}: no plain file, and nothing else is taken from a hub")
            target = folder / path.relative_to(snapshot)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _check_name(repo_id: str) -> None:
    if not _REPO.fullmatch(repo_id):
        raise ConfigError(f"{repo_id!r} names no repository; give owner/name, as in ada/aligned-llama")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Return a context whose errors (network, login, rights, size) are refusals in the hub's own words."""
    try:
        yield
    except Exception as error:
        raise ConfigError(
            f"{what} failed: {type(error).__name__}: {error}. Log in with `hf auth login`, or set HF_TOKEN; "
            "HF_ENDPOINT names another hub"
        ) from error


def _card(path: Path) -> bytes:
    """Return the card without a base model the Hub cannot resolve: a folder of this machine or a registered name."""
    try:
        text = read_plain(path).decode("utf-8")
        match = re.match(r"---\n(.*?\n)---\n", text, flags=re.DOTALL)
        front = yaml.safe_load(match[1]) if match else None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: damaged ({reason}); write the card again, or remove it") from error
    if match and isinstance(front, dict) and not _REPO.fullmatch(str(front.get("base_model", "a/b"))):
        del front["base_model"]
        text = f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{text[match.end() :]}"
    return text.encode("utf-8")
