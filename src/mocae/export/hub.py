"""Artifacts and exports on the Hugging Face Hub: what is published, and what is taken from there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mocae.errors import ArtifactError, ConfigError
from mocae.export.bundle import MANIFEST, read_export, whole_folder

__all__ = ["published_files", "pull", "push"]

_ARTIFACT = ("manifest.json", "README.md", "recipe.yaml", "seen.json", "report.json", "report.html")
_ARTIFACT_FOLDERS = ("experts", "router", "output", "features")
_SAFE = (
    "*.json",
    "*.jsonl",
    "*.safetensors",
    "*.gguf",
    "*.md",
    "*.yaml",
    "*.html",
    "*.model",
    "*.jinja",
)
"""What `pull` takes: nothing a pickle can hide in, no Python, no script."""
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def published_files(folder: Path, *, with_answers: bool = False) -> list[Path]:
    """Return the files of an artifact or export that `push` publishes, relative to the folder.

    Of an artifact: what loading, exporting and reading about it need. Answers to prompts, which may hold harmful text
    and the data sets' own rows, only with `with_answers`.

    Raises:
        ArtifactError: the folder is neither, or an export has changed since it was written.
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
    found = [path for path in files if (folder / path).is_file()]
    for name in folders:
        found += sorted(p.relative_to(folder) for p in (folder / name).rglob("*") if p.is_file())
    return [path for path in found if not path.name.startswith(".")]


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
    try:
        hub.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        done = hub.create_commit(
            repo_id, operations, commit_message=message or "Publish with mocae", revision=revision, repo_type="model"
        )
    except Exception as error:  # network, login, rights, size: the hub's own words say which
        raise _refused(f"push to {repo_id!r}", error) from error
    return str(done.commit_url)


def pull(repo_id: str, out: Path, *, revision: str | None = None, api: Any = None) -> Path:
    """Take an artifact or export from the Hub into a new folder, check it, and return the folder.

    Args:
        repo_id: owner/name.
        out: new folder; it appears when everything is there.
        revision: branch, tag or commit.
        api: see `push`.

    Raises:
        ConfigError: the name is none, the Hub refuses, or `out` is there already.
        ArtifactError: the repository holds neither an artifact nor an export, or a file of an export differs.
    """
    import shutil

    from huggingface_hub import HfApi

    _check_name(repo_id)
    hub = api or HfApi()
    with whole_folder(out) as folder:
        try:
            snapshot = Path(hub.snapshot_download(repo_id, revision=revision, allow_patterns=list(_SAFE)))
        except Exception as error:
            raise _refused(f"pull of {repo_id!r}", error) from error
        shutil.copytree(snapshot, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        if (folder / MANIFEST).is_file():
            read_export(folder)
        else:
            published_files(folder)
    return out


def _check_name(repo_id: str) -> None:
    if not _REPO.fullmatch(repo_id):
        raise ConfigError(f"{repo_id!r} names no repository; give owner/name, as in ada/aligned-llama")


def _refused(what: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{what} failed: {type(error).__name__}: {error}. Log in with `hf auth login`, or set HF_TOKEN; HF_ENDPOINT "
        "names another hub"
    )


def _card(path: Path) -> bytes:
    """Return the card without a base model the Hub cannot resolve: a folder of this machine or a registered name."""
    text = path.read_text(encoding="utf-8")
    match = re.match(r"---\n(.*?\n)---\n", text, flags=re.DOTALL)
    front = yaml.safe_load(match[1]) if match else None
    if match and isinstance(front, dict) and not _REPO.fullmatch(str(front.get("base_model", "a/b"))):
        del front["base_model"]
        text = f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{text[match.end() :]}"
    return text.encode("utf-8")
