"""What `mocae eval` evaluates: a system of an artifact, a Hugging Face model, or a server."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mocae.evaluation import AnswerLog, Generation, answer_all, too_long
from mocae.files import digest
from mocae.judges.endpoint import Endpoint, EndpointClient
from mocae.models import BASE_MODELS, Generator, PlainModel, base_fingerprint, load_base
from mocae.pipelines.artifact import load
from mocae.pipelines.manifest import read_manifest
from mocae.pipelines.seen import Seen, read_seen
from mocae.pipelines.summary import environment
from mocae.progress import say
from mocae.prompts import FORMATS, PromptFormat
from mocae.types import Answer, Example

__all__ = ["EndpointTarget", "ModelTarget", "Target", "artifact_target", "model_target"]


@dataclass(kw_only=True)
class Target(ABC):
    """Something that answers prompts.

    Attributes:
        label: what it is called in the report.
        base_model: the model behind it.
        identity: JSON values that tell it apart from others.
        seen: prompts it has learned from; None: not known.
        model: what answers in this process, so that its probabilities can be read; None: a server does.
        problem: why the last answer that did not come did not, "" where all came.
    """

    label: str
    base_model: str
    identity: dict[str, Any]
    seen: Seen | None = None
    model: Generator | None = None
    problem: str = ""

    def reach(self) -> None:
        """Do nothing where it can be asked.

        Raises:
            JudgeError: its server is not there.
        """
        return

    @abstractmethod
    def answer(self, examples: Sequence[Example], generation: Generation, log: AnswerLog) -> None:
        """Put answers into the log as they come, those alone that it lacks; what failed stays out."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return versions and hardware for the report."""


@dataclass(kw_only=True)
class ModelTarget(Target):
    """A model in this process; `prompt_format` is how prompts are written."""

    model: Generator
    prompt_format: PromptFormat

    def answer(self, examples: Sequence[Example], generation: Generation, log: AnswerLog) -> None:
        """Answer what fits the context, prompts of like length together."""
        long = too_long(self.model.base, examples, prompt_format=self.prompt_format)
        if long:
            say(f"{self.label}: {len(long)} prompts are longer than its context and get no answer")
        rows = [example for example in examples if example.id not in long]
        if rows:
            shape = self.prompt_format
            answer_all(self.model, rows, prompt_format=shape, generation=generation, label="answers", log=log)

    def facts(self) -> dict[str, Any]:
        """Return versions, device and dtype."""
        model = self.model.base.model
        return environment(str(model.device), str(model.dtype))


class EndpointTarget(Target):
    """A model behind an OpenAI-compatible server; an answer that does not come is left out and asked for again.

    Args:
        endpoint: where and how.
        cache: file of replies.
    """

    def __init__(self, endpoint: Endpoint, *, cache: Path | None = None) -> None:
        identity: dict[str, Any] = {"base_url": endpoint.base_url, "model": endpoint.model}
        if endpoint.parameters:
            identity["parameters"] = dict(endpoint.parameters)
        super().__init__(label=endpoint.model, base_model=endpoint.model, identity=identity)
        self._client = EndpointClient(endpoint, cache=cache)

    def reach(self) -> None:
        """Do nothing where the server is there."""
        self._client.reach()

    def answer(self, examples: Sequence[Example], generation: Generation, log: AnswerLog) -> None:
        """Ask for a few answers at a time."""
        parameters: dict[str, Any] = {
            "max_tokens": generation.max_new_tokens,
            "temperature": 0.0,
            "seed": generation.seed,
        }
        if generation.do_sample:
            parameters |= {"temperature": generation.temperature, "top_p": generation.top_p}
        missing = [example for example in examples if log.answer(example) is None]
        step = 4 * self._client.endpoint.concurrency
        for start in range(0, len(missing), step):
            some, began = missing[start : start + step], time.perf_counter()
            replies = self._client.ask([[{"role": "user", "content": e.prompt}] for e in some], parameters=parameters)
            answers = []
            for example, reply in zip(some, replies, strict=True):
                if reply.text is None:
                    self.problem = f"endpoint {self._client.where}: {reply.error}"
                else:
                    answers.append(Answer(example, reply.text.strip(), None, reply.n_tokens))
            log.add_answers(answers, time.perf_counter() - began)

    def facts(self) -> dict[str, Any]:
        """Return what is known of a server: when it was asked."""
        return {"asked": time.strftime("%Y-%m-%d"), "requests": self._client.usage.requests}


def artifact_target(folder: Path, *, system: str | None = None, device: str | None = None) -> ModelTarget:
    """Return a system of a finished run, its best router where none is named.

    Raises:
        ArtifactError: the folder is no finished run.
        ConfigError: the run has no such system, or it cannot be loaded.
        ModelMismatchError: its base model is not the one it was made for.
    """
    loaded = load(folder, system=system, device=device)
    name = folder.resolve().name
    chosen = {"system": system} if system else {}
    return ModelTarget(
        model=loaded.model,
        prompt_format=loaded.artifact.prompt_format,
        label=f"{name}:{loaded.system}",
        base_model=read_manifest(folder)["base"]["model"],
        identity={"artifact": name, "manifest": digest(folder / "manifest.json"), **chosen},
        seen=read_seen(folder),
    )


def model_target(name: str, *, prompt_format: str | None = None, device: str | None = None) -> ModelTarget:
    """Return a Hugging Face model: a folder, a name in `mocae.models.BASE_MODELS`, or a hub id.

    Args:
        name: of the model.
        prompt_format: registered name; None: "chat" where the tokenizer has a chat template, else "plain".
        device: where to put it; None: an accelerator if there is one.

    Raises:
        ConfigError: the model cannot be loaded.
        PluginError: no such format.
    """
    base = load_base(name, device=device)
    chosen = prompt_format or ("chat" if base.tokenizer.chat_template else "plain")
    return ModelTarget(
        model=PlainModel(base),
        prompt_format=FORMATS.get(chosen),
        label=f"{name} (base model)" if name in BASE_MODELS else Path(name).name,
        base_model=name,
        identity={"fingerprint": base_fingerprint(base.model), "format": chosen},
    )
