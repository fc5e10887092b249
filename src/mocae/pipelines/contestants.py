"""How each kind of system is made and asked: policies over the bank, and systems trained for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mocae.config import ROUTED_SYSTEMS, SequentialConfig, SystemConfig, rival_options
from mocae.pipelines.averaging import averaged
from mocae.pipelines.contest import Contest
from mocae.pipelines.joint_outcomes import joint_outcomes
from mocae.pipelines.mixtures import arrow, h3fusion, xlora
from mocae.pipelines.output import output_calibrators
from mocae.pipelines.rivals import merged, trinityx
from mocae.pipelines.routing import routing_of
from mocae.pipelines.store import folder_name
from mocae.pipelines.systems import Answered
from mocae.policies import Parts, build_policy

__all__ = ["CONTESTANTS", "Contestant", "compete"]


@dataclass(frozen=True, slots=True)
class Contestant:
    """What came of one system.

    Attributes:
        answered: judged answers and cost.
        calibrated: for policies that route, whether their weights are meant as probabilities; None for others.
        own_router: whether the system brings a router of its own, whose weights stand with the answers.
        stages: axis -> answers after that axis, for systems trained axis after axis.
        warnings: what a reader of the report must know.
    """

    answered: Answered
    calibrated: bool | None = None
    own_router: bool = False
    stages: Mapping[str, Answered] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def compete(contest: Contest, system: SystemConfig) -> Contestant:
    """Return the judged answers of one system.

    Raises:
        MocaeError: the system cannot be made; see `mocae.errors`.
    """
    head = system.policy.partition(":")[0]
    return CONTESTANTS.get(head, _policy)(contest, system)


def _policy(contest: Contest, system: SystemConfig) -> Contestant:
    """A policy over the bank of experts; `options.routing` changes how its router is fitted."""
    head = system.policy.partition(":")[0]
    routing, options = routing_of(contest.recipe, system)
    inputs: dict[str, Any] = {"policy": system.policy, "options": options}
    inputs["experts"] = [] if head == "base" else contest.expert_keys
    outcomes: dict[str, list[bool]] = {}
    if head == "oracle":  # it needs the experts' verdicts on the very prompts
        outcomes = _accepted_by_prompt(contest)
    routers, outputs, warnings = {}, {}, []
    if head in ROUTED_SYSTEMS:
        stage, routers[head] = contest.router(folder_name(system.name), head, routing)
        inputs["router"] = stage.key
    if head == "alignx" and routing.output.rank is not None:
        output, outputs[head] = output_calibrators(contest, folder_name(system.name), stage, routers[head], routing)
        inputs["output"] = output.key
    if head == "alignx" and routing.outcome.max_prompts == 0:
        warnings.append(
            f"{system.name}: no verdicts to learn from (routing.outcome.max_prompts: 0), so its router is trained on "
            "the axes of the training prompts"
        )
    bank = contest.bank()
    parts = Parts(bank.names, routers, outputs=outputs, outcomes=outcomes)
    policy = build_policy(system.policy, parts, **options)
    n_active = contest.n_active(policy) + sum(output.n_parameters for output in outputs.values())
    answered = contest.examiner.policy(system.name, bank, policy, inputs, n_active=n_active)
    return Contestant(answered, policy.calibrated if policy.reads is not None else None, warnings=warnings)


def _accepted_by_prompt(contest: Contest) -> dict[str, list[bool]]:
    """Return test prompt id -> which experts' answers were accepted; an unscored one is not known to be."""
    found: dict[str, list[bool]] = {}
    for name in contest.singles():
        for sample in contest.answered[name].samples:
            found.setdefault(sample.answer.example.id, []).append(sample.acceptable is True)
    return found


def _joint(contest: Contest, system: SystemConfig) -> Contestant:
    """One adapter trained on the rows of all axes together."""
    with contest.bare():
        stage = contest.trainer.joint(contest.rows.all_of("train"))
        return Contestant(contest.examiner.adapter(system.name, stage))


def _joint_outcomes(contest: Contest, system: SystemConfig) -> Contestant:
    """Joint training plus the accepted answers to the calibration prompts: it has seen the verdicts the router has."""
    stage = joint_outcomes(contest, system)
    with contest.bare():
        return Contestant(contest.examiner.adapter(system.name, stage))


def _sequential(contest: Contest, system: SystemConfig) -> Contestant:
    """One adapter trained on one axis after another, asked after each; `options.order` names the axes."""
    config: SequentialConfig = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    axes = config.order or tuple(contest.order())
    stages: dict[str, Answered] = {}
    with contest.bare():
        for i, (axis, stage) in enumerate(zip(axes, contest.trainer.sequential(contest.rows.train, axes), strict=True)):
            stages[axis] = contest.examiner.adapter(f"{system.name}-{i + 1}-{axis}", stage, system=system.name)
    return Contestant(list(stages.values())[-1], stages=stages)


def _prompt_only(contest: Contest, system: SystemConfig) -> Contestant:
    """The base model with all injected prompts as instructions, no training."""
    injection = " ".join(axis.injection for axis in contest.recipe.axes)
    with contest.bare():
        return Contestant(contest.examiner.plain(system.name, injection=injection))


def _merge(contest: Contest, system: SystemConfig) -> Contestant:
    """The base model with the experts merged into its weights by `merge:<method>`."""
    answered, warnings = merged(contest, system)
    return Contestant(answered, warnings=warnings)


def _trinityx(contest: Contest, system: SystemConfig) -> Contestant:
    """TrinityX: experts of its own in the feed-forward blocks, a gate in each of them."""
    answered, warnings = trinityx(contest, system)
    return Contestant(answered, own_router=True, warnings=warnings)


def _xlora(contest: Contest, system: SystemConfig) -> Contestant:
    """PEFT's X-LoRA over the same experts."""
    answered, warnings = xlora(contest, system)
    return Contestant(answered, own_router=True, warnings=warnings)


def _arrow(contest: Contest, system: SystemConfig) -> Contestant:
    """PEFT's Arrow over the same experts."""
    return Contestant(arrow(contest, system))


def _hma(contest: Contest, system: SystemConfig) -> Contestant:
    """The experts averaged, block of layers by block of layers."""
    return Contestant(averaged(contest, system))


def _h3fusion(contest: Contest, system: SystemConfig) -> Contestant:
    """H3Fusion: whole feed-forward blocks of its own, two of them a token."""
    answered, warnings = h3fusion(contest, system)
    return Contestant(answered, own_router=True, warnings=warnings)


CONTESTANTS: dict[str, Callable[[Contest, SystemConfig], Contestant]] = {
    "joint": _joint,
    "joint_outcomes": _joint_outcomes,
    "sequential": _sequential,
    "prompt_only": _prompt_only,
    "merge": _merge,
    "trinityx": _trinityx,
    "xlora": _xlora,
    "arrow": _arrow,
    "hma": _hma,
    "h3fusion": _h3fusion,
}
"""Systems that are more than a policy over the bank, by the head of their `policy`."""
