"""A finished run as a model: load it, ask it, see which experts answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocae.bank import ExpertBank, Mode
from mocae.calibration import AlignXRouter, OutputCalibrators
from mocae.errors import ConfigError, DataError, unknown_name
from mocae.files import read_json
from mocae.models import LoadedBase, load_recorded
from mocae.pipelines.manifest import read_manifest
from mocae.policies import POLICIES, Mixture, Parts, Policy, build_policy, weights_vector
from mocae.prompts import FORMATS, ChatFormat
from mocae.report import check_report
from mocae.serving.conversation import Turn, conversation_tokens
from mocae.types import prompt_id

__all__ = ["AlignedModel", "Reply", "base_of", "load", "read_report", "refuse_unusable"]

_NEED_MORE = {"expert", "static", "alignx", "linear", "oracle"}
"""Policies that a bare name does not make: an axis, weights, a router or verdicts belong to them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the weight every expert had in it.

    Attributes:
        text: the answer.
        weights: of the experts.
        confidence: chance that the answer of the expert with the largest weight is acceptable, as calibrated; None
            where the policy does not say, and where `steer` or `weights` made another choice.
        novelty: share of held-out calibration prompts that are more like the others than the prompt is; None there
            too, and for a router without calibrated chances.
    """

    text: str
    weights: dict[str, float]
    confidence: float | None = None
    novelty: float | None = None


class AlignedModel:
    """The model of a finished run.

    Args:
        mixture: base, experts and default policy.
        parts: what other policies are made from.
        prompt_format: registered name of the format the experts were trained with.
        max_new_tokens: longest answer of `reply`.
        options: policy -> options it was compared with (`top_k`, `threshold`).
    """

    def __init__(
        self,
        mixture: Mixture,
        parts: Parts,
        *,
        prompt_format: str,
        max_new_tokens: int,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.mixture = mixture
        self.parts = parts
        self.options = dict(options or {})
        self.prompt_format = FORMATS.get(prompt_format)
        self.max_new_tokens = max_new_tokens

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in the order of weights."""
        return self.parts.experts

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.mixture.base.tokenizer

    def generate(
        self,
        input_ids: Tensor,
        *,
        policy: Policy | None = None,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        mode: Mode | None = None,
        **generation: Any,
    ) -> Tensor:
        """Return what Hugging Face's `generate` returns, every prompt answered with its own weights.

        Args:
            input_ids: (B, T), padded on the left.
            policy: see `mocae.policies.Mixture.using`.
            steer: likewise.
            weights: likewise.
            mode: likewise.
            **generation: see `mocae.policies.Mixture.generate`.

        Raises:
            ConfigError: see both.
        """
        return self.mixture.using(policy, steer=steer, weights=weights, mode=mode).generate(input_ids, **generation).ids

    def reply(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        policy: str | None = None,
        **generation: Any,
    ) -> Reply:
        """Return the answer to one prompt (greedy unless `generation` says otherwise) and its routing weights.

        Args:
            prompt: what the user asks, without template; or a conversation, messages with `role` and `content`.
            steer: axis -> factor, multiplies the routing weights before normalising.
            weights: expert -> weight in place of routing; negative allowed.
            policy: a policy's name in place of the default.
            **generation: arguments of Hugging Face's `generate`.

        Raises:
            DataError: the prompt is empty, leaves no room for an answer in the model's context, or the messages are in
                an order that cannot be written.
            ConfigError: an unknown expert or policy, or a factor that is not finite.
        """
        if policy is not None:
            _refuse_policy(policy, self.experts, self.parts.routers)
        base = self.mixture.base
        if isinstance(prompt, str) and not prompt.strip():
            raise DataError(f"got an empty prompt, {prompt!r}; expected text to answer")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        turns = [Turn(m.get("role", ""), m.get("content") or "") for m in messages]  # type: ignore[arg-type]
        tokens = conversation_tokens(turns, prompt_format=self.prompt_format, tokenizer=self.tokenizer)
        n_tokens, context = len(tokens), base.description.context
        if n_tokens >= context:
            raise DataError(f"the prompt has {n_tokens} tokens, the model's context is {context}; give a shorter one")
        chosen = build_policy(policy, self.parts, **self.options.get(policy, {})) if policy else None
        generated = self.mixture.using(chosen, steer=steer, weights=weights).generate(
            torch.tensor([tokens], device=base.model.device),
            ids=[prompt_id(turns[-1].text)],
            **{"max_new_tokens": self.max_new_tokens, "do_sample": False, **generation},
        )
        new = generated.ids[0, n_tokens:].tolist()
        answer = self.tokenizer.decode(new[: base.description.length(new)], skip_special_tokens=True)
        return Reply(
            answer.strip(),
            dict(zip(self.experts, generated.weights[0].tolist(), strict=True)),
            generated.confidence[0],
            generated.novelty[0],
        )


def load(
    folder: Path | str,
    *,
    device: str | None = None,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> AlignedModel:
    """Return the model of a finished run.

    Args:
        folder: what `mocae run --out` wrote.
        device: where to put it; None: an accelerator if there is one.
        base_model: where the base model lies now, if not where the run found it; it must be the same model.
        trust_remote_code: run Python code that comes with the base model; an artifact cannot ask for it.

    Raises:
        ArtifactError: the folder is no finished run, is damaged, or was written by another version.
        ModelMismatchError: the base model is not the one the experts were trained on.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    base = base_of(root, manifest, device=device, base_model=base_model, trust_remote_code=trust_remote_code)
    bank = ExpertBank.attach(base.model, {axis: root / "experts" / axis for axis in manifest["axes"]})
    routers = {policy: AlignXRouter.load(root / entry["folder"]) for policy, entry in manifest["routers"].items()}
    options = {policy: entry["options"] for policy, entry in manifest["routers"].items()}
    outputs = {
        policy: OutputCalibrators.load(root / entry["output"]).to(base.model.device)
        for policy, entry in manifest["routers"].items()
        if "output" in entry
    }
    read_manifest(root)  # nothing has changed while it was read
    parts = Parts(bank.names, routers, outputs=outputs)
    default = "alignx" if "alignx" in routers else "linear" if "linear" in routers else "uniform"
    mixture = Mixture(base, bank, build_policy(default, parts, **options.get(default, {})), mode="auto")
    return AlignedModel(
        mixture,
        parts,
        prompt_format=manifest["prompt_format"],
        max_new_tokens=manifest["max_new_tokens"],
        options=options,
    )


def refuse_unusable(folder: Path | str, *, steer: Mapping[str, float] | None = None, policy: str | None = None) -> None:
    """Do nothing if a finished run knows these names; looks at its manifest and loads no model.

    Args:
        folder: what `mocae run --out` wrote.
        steer: axis -> factor.
        policy: name of a policy.

    Raises:
        ArtifactError: see `load`.
        ConfigError: an axis or policy that the run does not have, or a factor that is not finite.
    """
    manifest = read_manifest(Path(folder), parts=False)
    weights_vector(steer or {}, manifest["axes"])
    if policy is not None:
        _refuse_policy(policy, manifest["axes"], manifest["routers"])


def _refuse_policy(name: str, experts: Iterable[str], routers: Iterable[str]) -> None:
    usable = {*(policy for policy in POLICIES if policy not in _NEED_MORE), *routers, *(f"expert:{e}" for e in experts)}
    if name not in usable:
        raise ConfigError(unknown_name("policy of this run", name, usable))


def base_of(
    root: Path,
    manifest: Mapping[str, Any],
    *,
    device: str | None = None,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedBase:
    """Return the base model a manifest names; arguments as in `load`.

    Raises:
        ConfigError: it cannot be loaded.
        ModelMismatchError: it is not the one the experts were trained on, or reads prompts otherwise.
    """
    return load_recorded(
        manifest["base"],
        where=root,
        chat=isinstance(FORMATS.get(manifest["prompt_format"]), ChatFormat),
        device=device,
        base_model=base_model,
        trust_remote_code=trust_remote_code,
    )


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
