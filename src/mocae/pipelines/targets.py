"""What `mocae eval` evaluates: an artifact, a Hugging Face model, or a server; each answers prompts in batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mocae.config import GenerationConfig
from mocae.judges.endpoint import Endpoint, EndpointClient
from mocae.pipelines.seen import Seen, read_seen
from mocae.progress import say
from mocae.types import Answer, Example, Verdict

__all__ = ["EndpointTarget", "ModelTarget", "Target", "artifact_target", "model_target"]


@runtime_checkable
class Target(Protocol):
    """Something that answers prompts.

    Attributes:
        label: what it is called in the report.
        base_model: the model behind it.
        identity: JSON values that tell it apart from others.
        seen: prompts it has learned from; None: not known.
        problem: why the last answer that did not come did not, "" where all came.
    """

    label: str
    base_model: str
    identity: dict[str, Any]
    seen: Seen | None
    problem: str

    def answers(
        self, examples: Sequence[Example], generation: GenerationConfig, *, seed: int
    ) -> Iterator[list[Answer]]:
        """Yield answers as they come, in any order; an example may be left out when it failed."""
        ...

    def choices(self, examples: Sequence[Example]) -> list[dict[str, Verdict]] | None:
        """Return "mc1" and "mc2" of each question, None where probabilities cannot be read."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return versions and hardware for the report."""
        ...


class ModelTarget:
    """A model in this process.

    Args:
        model: a `mocae.models.Generator`.
        prompt_format: how prompts are written.
        label: see `Target`.
        base_model: see `Target`.
        identity: see `Target`.
        seen: see `Target`.
    """

    problem = ""

    def __init__(
        self,
        model: Any,
        prompt_format: Any,
        *,
        label: str,
        base_model: str,
        identity: dict[str, Any],
        seen: Seen | None = None,
    ) -> None:
        self.model, self._format = model, prompt_format
        self.label, self.base_model, self.identity, self.seen = label, base_model, identity, seen

    def answers(
        self, examples: Sequence[Example], generation: GenerationConfig, *, seed: int
    ) -> Iterator[list[Answer]]:
        """Yield one batch after the other, prompts of like length together."""
        from mocae.evaluation import Generation, answer_all, too_long

        settings = Generation(
            max_new_tokens=generation.max_new_tokens,
            batch_size=generation.batch_size,
            do_sample=generation.do_sample,
            temperature=generation.sampling_temperature,
            top_p=generation.top_p,
            seed=seed,
        )
        long = too_long(self.model.base, examples, prompt_format=self._format)
        if long:
            say(f"{self.label}: {len(long)} prompts are longer than its context and get no answer")
        rows = sorted((e for e in examples if e.id not in long), key=lambda e: (len(e.prompt), e.id))
        for start in range(0, len(rows), generation.batch_size):
            some = rows[start : start + generation.batch_size]
            label = f"answers {start + len(some)} of {len(rows)}"
            answered, _ = answer_all(self.model, some, prompt_format=self._format, generation=settings, label=label)
            yield answered

    def choices(self, examples: Sequence[Example]) -> list[dict[str, Verdict]] | None:
        """Return the verdicts on multiple choice."""
        from mocae.evaluation.choices import score_multiple_choice

        return score_multiple_choice(self.model, examples)

    def facts(self) -> dict[str, Any]:
        """Return versions, device and dtype."""
        from mocae.pipelines.summary import environment

        model = self.model.base.model
        return environment(str(model.device), str(model.dtype))


class EndpointTarget:
    """A model behind an OpenAI-compatible server; an answer that does not come is left out and asked for again.

    Args:
        endpoint: where and how.
        cache: file of replies.
    """

    seen: Seen | None = None

    def __init__(self, endpoint: Endpoint, *, cache: Path | None = None) -> None:
        self._client = EndpointClient(endpoint, cache=cache)
        self.label = self.base_model = endpoint.model
        self.identity: dict[str, Any] = {"base_url": endpoint.base_url, "model": endpoint.model}
        if endpoint.parameters:
            self.identity["parameters"] = dict(endpoint.parameters)
        self.problem = ""

    def answers(
        self, examples: Sequence[Example], generation: GenerationConfig, *, seed: int
    ) -> Iterator[list[Answer]]:
        """Yield answers in groups of a few requests."""
        parameters: dict[str, Any] = {"max_tokens": generation.max_new_tokens, "temperature": 0.0, "seed": seed}
        if generation.do_sample:
            parameters |= {"temperature": generation.sampling_temperature, "top_p": generation.top_p}
        step = 4 * self._client.endpoint.concurrency
        for start in range(0, len(examples), step):
            some = examples[start : start + step]
            asked = self._client.ask([[{"role": "user", "content": e.prompt}] for e in some], parameters=parameters)
            for reply in asked:
                if reply.text is None:
                    self.problem = f"endpoint {self._client.where}: {reply.error}"
            yield [
                Answer(example, reply.text.strip(), None, reply.n_tokens)
                for example, reply in zip(some, asked, strict=True)
                if reply.text is not None
            ]

    def choices(self, examples: Sequence[Example]) -> list[dict[str, Verdict]] | None:
        """Return None: chat servers do not tell the probability of a given answer."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return what is known of a server: when it was asked."""
        return {"asked": time.strftime("%Y-%m-%d"), "requests": self._client.usage.requests}


def artifact_target(folder: Path, *, system: str | None = None, device: str | None = None) -> ModelTarget:
    """Return a system of a finished run, its best router where none is named.

    Raises:
        ArtifactError: the folder is no finished run.
        ModelMismatchError: its base model is not the one it was made for.
    """
    from mocae.files import digest
    from mocae.pipelines.artifact import load
    from mocae.pipelines.manifest import read_manifest

    loaded = load(folder, system=system, device=device)
    manifest = digest(folder / "manifest.json")
    name = folder.resolve().name
    identity = {"artifact": name, "manifest": manifest, **({"system": system} if system else {})}
    return ModelTarget(
        loaded.model,
        loaded.artifact.prompt_format,
        label=f"{name} {system}" if system else name,
        base_model=read_manifest(folder)["base"]["model"],
        identity=identity,
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
    from mocae.models import PlainModel, base_fingerprint, load_base
    from mocae.prompts import FORMATS

    base = load_base(name, device=device)
    chosen = prompt_format or ("chat" if base.tokenizer.chat_template else "plain")
    identity = {"fingerprint": base_fingerprint(base.model), "format": chosen}
    label = Path(name).name
    return ModelTarget(PlainModel(base), FORMATS.get(chosen), label=label, base_model=name, identity=identity)
