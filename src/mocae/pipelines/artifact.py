"""A finished run as a model: load it, ask it, see which experts answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocae.errors import ConfigError, DataError
from mocae.files import read_json
from mocae.models import Generator
from mocae.pipelines.manifest import read_manifest
from mocae.pipelines.opened import Artifact, base_of, refuse_system, systems_of
from mocae.policies import Mixture, Steering, choose, named_weights, weights_vector
from mocae.report import check_report
from mocae.serving.conversation import Turn, conversation_tokens
from mocae.serving.served import OpenedRun
from mocae.types import prompt_id

__all__ = ["AlignedModel", "Reply", "load", "read_report", "refuse_unusable"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the weight every expert had in it.

    Attributes:
        text: the answer.
        weights: of the experts; empty for a system without.
        confidence: chance that the answer of the expert with the largest weight is acceptable, as calibrated; None
            where the system does not say, and where steering made another choice.
        novelty: share of held-out calibration prompts that are more like the others than the prompt is; None there
            too, and for a router without calibrated chances.
    """

    text: str
    weights: dict[str, float]
    confidence: float | None = None
    novelty: float | None = None


class AlignedModel:
    """A system of a finished run, and the other ones by name.

    Args:
        artifact: the run.
        system: the one that answers where a call names none.
    """

    def __init__(self, artifact: OpenedRun, system: str) -> None:
        self.artifact = artifact
        self.system = system
        self.model: Generator = artifact.generator(system)

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in the order of weights; none for a system without."""
        return self.model.experts

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.artifact.base.tokenizer

    def generate(self, input_ids: Tensor, **arguments: Any) -> Tensor:
        """Return what Hugging Face's `generate` returns; `system` and the words of steering as in `reply`."""
        words = {word: arguments.pop(word, None) for word in Steering.model_fields}
        return self._chosen(arguments.pop("system", None), Steering.of(**words)).generate(input_ids, **arguments).ids

    def reply(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        steer: Mapping[str, float] | None = None,
        prefer: Mapping[str, float] | None = None,
        at_least: Mapping[str, float] | None = None,
        at_most: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        system: str | None = None,
        **generation: Any,
    ) -> Reply:
        """Return the answer to one prompt (greedy unless `generation` says otherwise) and its routing weights.

        Args:
            prompt: what the user asks, without template; or a conversation, messages with `role` and `content`.
            steer: expert -> factor on its routing weight; all words of steering, and their order: `Steering`.
            prefer: expert -> how much surer of it the router is to be, in standard deviations of its logits.
            at_least: expert -> smallest share of the answer.
            at_most: expert -> largest share of the answer.
            weights: expert -> weight in place of routing; negative allowed.
            system: name of another system of the run.
            **generation: arguments of Hugging Face's `generate`.

        Raises:
            DataError: the prompt is empty, leaves no room for an answer in the model's context, or the messages are in
                an order that cannot be written.
            ConfigError: an unknown expert or system, a number out of range, or a system that cannot be steered.
        """
        steering = Steering.of(steer=steer, prefer=prefer, at_least=at_least, at_most=at_most, weights=weights)
        model, artifact = self._chosen(system, steering), self.artifact
        base = model.base
        if isinstance(prompt, str) and not prompt.strip():
            raise DataError(f"got an empty prompt, {prompt!r}; expected text to answer")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        turns = [Turn(m.get("role", ""), m.get("content") or "") for m in messages]  # type: ignore[arg-type]
        tokens = conversation_tokens(
            turns, prompt_format=artifact.prompt_format, tokenizer=self.tokenizer, injection=model.injection
        )
        n_tokens, context = len(tokens), base.description.context
        if n_tokens >= context:
            raise DataError(f"the prompt has {n_tokens} tokens, the model's context is {context}; give a shorter one")
        answer = model.generate(
            torch.tensor([tokens], device=base.model.device),
            ids=[prompt_id(turns[-1].text)],
            **{"max_new_tokens": artifact.max_new_tokens, "do_sample": False, **generation},
        )
        new = answer.ids[0, n_tokens:].tolist()
        text = self.tokenizer.decode(new[: base.description.length(new)], skip_special_tokens=True)
        weights_of = named_weights(model.experts, answer.weights[0]) if model.mixed else {}
        return Reply(text.strip(), weights_of, answer.confidence[0], answer.novelty[0])

    def _chosen(self, system: str | None, steering: Steering) -> Generator:
        name = system or self.system
        model: Generator = self.model if system is None else self.artifact.generator(system)
        if not steering.words:
            return model
        if not self.artifact.over_the_bank(name) or not isinstance(model, Mixture):
            raise ConfigError(
                f"system {name!r} has no weights that could be steered or given; leave them out, or name a system over "
                f"the bank of experts, such as {next(iter(self.artifact.about))!r}"
            )
        return model.using(choose(model.policy, model.experts, steering))


def load(
    folder: Path | str,
    *,
    system: str | None = None,
    device: str | None = None,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> AlignedModel:
    """Return the model of a finished run.

    Args:
        folder: what `mocae run --out` wrote.
        system: name of the system of the run that answers; None: its best router.
        device: where to put it; None: an accelerator if there is one.
        base_model: where the base model lies now, if not where the run found it; it must be the same model.
        trust_remote_code: run Python code that comes with the base model; an artifact cannot ask for it.

    Raises:
        ArtifactError: the folder is no finished run, is damaged, or was written by another version.
        ConfigError: no such system, or one that is an upper bound and cannot be used.
        ModelMismatchError: the base model is not the one the experts were trained on.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    if system is not None:
        refuse_system(system, systems_of(root, manifest), manifest)
    base = base_of(root, manifest, device=device, base_model=base_model, trust_remote_code=trust_remote_code)
    artifact = Artifact(root, base, manifest)
    return AlignedModel(artifact, system or artifact.default)


def refuse_unusable(folder: Path | str, *, steering: Steering | None = None, system: str | None = None) -> None:
    """Do nothing if a finished run knows these names; looks at its manifest and loads no model.

    Args:
        folder: what `mocae run --out` wrote.
        steering: what will be said about the weights.
        system: name of a system.

    Raises:
        ArtifactError: see `load`.
        ConfigError: an axis or system that the run does not have.
    """
    manifest = read_manifest(Path(folder))
    if steering is not None:
        named = [name for each in steering.words.values() for name in each]
        weights_vector(dict.fromkeys(named, 0.0), manifest["axes"])
    if system is not None:
        refuse_system(system, systems_of(Path(folder), manifest), manifest)


def read_report(root: Path) -> dict[str, Any] | None:
    """Return what a run measured, its `report.json`; None where there is none.

    Raises:
        ArtifactError: it is damaged, or was written by another version.
    """
    path = root / "report.json"
    if not path.exists():
        return None
    report: dict[str, Any] = read_json(path)
    check_report(report)
    return report
