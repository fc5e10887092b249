"""Published data sets: fetched from where they are published, checked, and written where the recipes read them.

Published files stay in `published/` below the data root, where one that was fetched by other means can be put as well.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mocae.data.readers import read_rows
from mocae.errors import ArtifactError, DataError
from mocae.files import digest, read_json, write_whole
from mocae.progress import say

__all__ = ["LOCK", "DataSet", "Found", "PublishedFile", "check_data", "get_data", "how_to_fetch", "published_sets"]

LOCK = "mocae-data.lock.json"
"""File below the data root with the hashes of what was fetched and written."""
_GITHUB, _HUB = "https://raw.githubusercontent.com", "https://huggingface.co"


class PublishedFile(BaseModel):
    """One published file, and what is written of it; see the head of `published.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hub: str | None = None
    github: str | None = None
    revision: str
    path: str | tuple[str, ...]
    sha256: str | None = None
    to: str
    make: Literal["same", "pairs"] = "same"

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is published, most likely first."""
        hub = f"{os.environ.get('HF_ENDPOINT', _HUB)}/datasets/{self.hub}/resolve"
        start = f"{_GITHUB}/{self.github}" if self.github else hub
        return tuple(f"{start}/{self.revision}/{path}" for path in self._paths)

    @property
    def places(self) -> tuple[str, ...]:
        """Paths below the data root of the published file, one for each of `urls`."""
        return tuple(f"published/{self.github or self.hub}/{path}" for path in self._paths)

    @property
    def _paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path


class DataSet(BaseModel):
    """A data set: its licence, what a user must know, its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    licence: str
    note: str = ""
    files: tuple[PublishedFile, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Found:
    """What lies where a recipe reads a file.

    Attributes:
        file: as published.
        state: "fetched" (there as it was written), "own" (there, and not of this command), "changed" (since it was
            written) or "missing".
    """

    file: PublishedFile
    state: Literal["fetched", "own", "changed", "missing"]


@cache
def published_sets() -> Mapping[str, DataSet]:
    """Return the data sets by name."""
    text = (resources.files("mocae.data") / "published.yaml").read_text(encoding="utf-8")
    return {name: DataSet.model_validate(entry) for name, entry in yaml.safe_load(text).items()}


def how_to_fetch(path: Path) -> str:
    """Return the end of a message on a missing file: the command that fetches it, "" where it is none of these.

    >>> how_to_fetch(Path("xstest/xstest_prompts.csv"))
    '; `mocae data get xstest --out DIR` fetches it'
    """
    names = (name for name, entry in published_sets().items() if path.as_posix() in {file.to for file in entry.files})
    return next((f"; `mocae data get {name} --out DIR` fetches it" for name in names), "")


class _Written(BaseModel):
    """What the lock file has of a file: where it came from, its hash as published and as written."""

    url: str
    published_sha256: str
    sha256: str


def check_data(sets: Mapping[str, DataSet], root: Path) -> list[Found]:
    """Return what lies where recipes read the files of data sets.

    Raises:
        ArtifactError: the lock file is damaged.
    """
    written = _read_lock(root)

    def state(file: PublishedFile) -> Literal["fetched", "own", "changed", "missing"]:
        path = root / file.to
        if not path.is_file():
            return "missing"
        if file.to not in written:
            return "own"
        return "fetched" if digest(path) == written[file.to].sha256 else "changed"

    return [Found(file, state(file)) for entry in sets.values() for file in entry.files]


def get_data(sets: Mapping[str, DataSet], root: Path) -> list[Found]:
    """Return what lies below the data root once every missing file was fetched, checked and written there.

    A file that is there is left alone, whoever wrote it. The same call goes on with what an earlier one fetched.

    Raises:
        DataError: files cannot be had (each with its address and the place to put it), a hash is another than the
            published or an earlier one, or rows are not as published.
        ArtifactError: the lock file is damaged, or the folder cannot be written.
    """
    lock, lacking = _read_lock(root), list[str]()
    for found in check_data(sets, root):
        if found.state != "missing":
            continue
        file = found.file
        try:
            place, url = _published(file, root)
        except ConnectionError as error:
            lacking.append(f"{file.to}: {error}")
            continue
        sha256 = _checked(file, place, lock.get(file.to))
        (root / file.to).parent.mkdir(parents=True, exist_ok=True)
        path = write_whole(root / file.to, _made(file, place))
        lock[file.to] = _Written(url=url, published_sha256=sha256, sha256=digest(path))
        write_whole(root / LOCK, json.dumps({k: v.model_dump() for k, v in lock.items()}, indent=1) + "\n")
        say(f"{path}: SHA-256 of the published file {sha256}, {'as known' if file.sha256 else f'kept in {LOCK}'}")
    if lacking:
        raise DataError("\n".join([*lacking, "with these files in place the same command goes on"]))
    return check_data(sets, root)


def _read_lock(root: Path) -> dict[str, _Written]:
    path = root / LOCK
    try:
        return (
            {name: _Written.model_validate(entry) for name, entry in read_json(path).items()} if path.exists() else {}
        )
    except (ValidationError, AttributeError) as error:
        raise ArtifactError(f"{path}: damaged; remove it, and what lies there counts as your own") from error


def _published(file: PublishedFile, root: Path) -> tuple[Path, str]:
    """Return where the published file lies, and its address; it is fetched unless it is there.

    Raises:
        ConnectionError: it cannot be had; the message says what to do.
    """
    why = ""
    for url, name in zip(file.urls, file.places, strict=True):
        if (root / name).is_file():
            return root / name, url
    for url, name in zip(file.urls, file.places, strict=True):
        say(f"fetching {url}")
        why = _fetch(url, root / name)
        if not why:
            return root / name, url
    raise ConnectionError(f"{why}; fetch {file.urls[0]} by other means and put it at {root / file.places[0]}")


def _fetch(url: str, place: Path) -> str:
    """Return "" once the file is there whole, else why it is not."""
    import httpx

    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.partial")
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=30) as response, partial.open("wb") as out:
            if response.status_code != httpx.codes.OK:
                return f"the server says {response.status_code} {response.reason_phrase}"
            for block in response.iter_bytes():
                out.write(block)
        partial.replace(place)
    except httpx.HTTPError as error:
        return f"no answer ({type(error).__name__}: {error})"
    finally:
        partial.unlink(missing_ok=True)
    return ""


def _checked(file: PublishedFile, place: Path, before: _Written | None) -> str:
    """Return the SHA-256 of the published file.

    Raises:
        DataError: it is not the one that is known, or not the one of an earlier time.
    """
    sha256, expected = digest(place), file.sha256 or (before and before.published_sha256)
    if expected and sha256 != expected:
        whence = "the published one" if file.sha256 else f"that of an earlier time, in {LOCK}"
        raise DataError(
            f"{place}: SHA-256 is {sha256}; expected {expected}, {whence}; remove the file and fetch it again"
            + ("" if file.sha256 else f", or remove {file.to!r} from {LOCK} to take the new one")
        )
    return sha256


def _made(file: PublishedFile, place: Path) -> bytes:
    """Return the content of the file a recipe reads, compressed as its name says."""
    plain, kind = file.to.removesuffix(".xz"), place.name.removesuffix(".gz").removesuffix(".xz")
    if file.make == "same" and Path(plain).suffix == Path(kind).suffix:
        opened: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
        with opened.get(place.suffix, open)(place, "rb") as stream:
            content: bytes = stream.read()
    else:
        rows = (row for _, row in read_rows(place))
        made = list(_pairs(rows) if file.make == "pairs" else rows)
        lines = [made] if plain.endswith(".json") else made
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    return lzma.compress(content) if file.to.endswith(".xz") else content


def _pairs(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield a row for every prompt of BeaverTails that has responses of both labels: the first safe and unsafe one.

    Raises:
        DataError: the rows are no labelled responses, or none makes a pair.
    """
    sides: dict[str, dict[bool, str]] = {}
    try:
        for row in rows:
            sides.setdefault(row["prompt"], {}).setdefault(bool(row["is_safe"]), row["response"])
    except KeyError as error:
        raise DataError(f"BeaverTails: a row without {error}; expected prompt, response and is_safe") from error
    pairs = {prompt: both for prompt, both in sides.items() if len(both) == len({*both.values()}) == 2}
    if not pairs:
        raise DataError(f"BeaverTails: none of {len(sides)} prompts has a safe and an unsafe response")
    for prompt, both in pairs.items():
        yield {"prompt": prompt, "safe": both[True], "unsafe": both[False]}
