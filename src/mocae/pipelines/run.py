"""The whole job: recipe in, artifact out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import mocae
from mocae.bank import ExpertBank
from mocae.config import Recipe, SystemConfig, dump_recipe, load_recipe
from mocae.errors import ConfigError, unknown_name
from mocae.evaluation import Generation
from mocae.judges import Judge
from mocae.models import LoadedBase, base_fingerprint, load_base, pick_dtype
from mocae.pipelines.fitting import Fitter, acceptable_by_prompt
from mocae.pipelines.judges import make_judges
from mocae.pipelines.rows import Rows, read_rows_of
from mocae.pipelines.store import Stage, Store, write_whole
from mocae.pipelines.summary import SCHEMA, environment, summarise
from mocae.pipelines.systems import Answered, Examiner
from mocae.pipelines.training import Trainer, first_expert_layer
from mocae.policies import Parts, build_policy
from mocae.progress import say, visible
from mocae.prompts import FORMATS
from mocae.report import write_report

__all__ = ["RunResult", "run"]

_TRAINED = ("joint", "sequential")


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run made: the report as a dictionary, and where report and page lie."""

    report: dict[str, Any]
    report_path: Path
    html_path: Path


def run(
    recipe: Recipe | Path | str, *, out: Path | str, systems: Sequence[str] | None = None, progress: bool = True
) -> RunResult:
    """Run a recipe into a folder and return its report. Stages that are finished there are not made again.

    Args:
        recipe: a recipe or its file.
        out: folder of the artifact; made if need be.
        systems: compare only these systems of the recipe; the base model and the single experts always answer, because
            others are measured against them.
        progress: show progress on stderr.

    Raises:
        MocaeError: see `mocae.errors`; what is finished stays, and the same call goes on with it.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    chosen = _chosen(loaded, systems)
    store = Store(Path(out))
    with visible(progress), store.locked():
        report = _Run(loaded, store, chosen).report()
        store.clean()
    return RunResult(report, store.root / "report.json", store.root / "report.html")


def _chosen(recipe: Recipe, names: Sequence[str] | None) -> list[SystemConfig]:
    """Return the systems to compare: base, every expert, then the recipe's others in order."""
    known = {system.name: system for system in recipe.systems}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"systems: {unknown_name('system', name, known)}")
    always = ["base", *(f"expert:{axis}" for axis in recipe.axis_names)]
    wanted = [*always, *(name for name in known if names is None or name in names)]
    return [known.get(name) or SystemConfig(name=name, policy=name) for name in dict.fromkeys(wanted)]


@dataclass
class _Run:
    """One run in progress: each step is a method that needs what the steps before it found."""

    recipe: Recipe
    store: Store
    systems: list[SystemConfig]
    notes: list[str] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        rows = read_rows_of(self.recipe)
        self.base = self._load_base()
        self.base_key = {"fingerprint": base_fingerprint(self.base.model), "dtype": str(self.base.model.dtype)}
        judges = make_judges(self.recipe, rows, self.store)
        generation = _generation(self.recipe)
        trainer = Trainer(self.recipe, self.base, self.store, self.base_key)
        experts = {axis: trainer.expert(axis, rows.train[axis]) for axis in self.recipe.axis_names}
        compared = self._train_compared(trainer, rows)
        keys = {axis: stage.key for axis, stage in experts.items()}
        depends = {"experts": keys, "judges": [judge.model_dump() for judge in self.recipe.judges], "judge_files": judges.key}
        examiner = Examiner(
            base=self.base,
            store=self.store,
            prompts=rows.all_of("test"),
            prompt_format=FORMATS.get(self.recipe.prompt_format),
            generation=generation,
            judges=judges.judges,
            depends={**self.base_key, "judges": depends["judges"], "judge_files": judges.key},
        )
        answered, calibrated = self._ask_policies(experts, rows, judges.judges, generation, examiner, depends)
        stages = self._ask_compared(compared, examiner, answered)
        names = [system.name for system in self.systems]
        answered = {name: answered[name] for name in names if name in answered}
        report = summarise(
            self.recipe,
            answered=answered,
            stages=stages,
            calibrated=calibrated,
            rows=rows,
            judges=judges.judges,
            n_base_parameters=sum(p.numel() for p in self.base.model.parameters()),
            notes=self._labels(),
            environment=environment(str(self.base.model.device), str(self.base.model.dtype)),
        )
        self._write(report, answered)
        return report

    def _load_base(self) -> LoadedBase:
        config = self.recipe.base
        device = "cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu"
        if config.device == "cuda" and device == "cpu":
            raise ConfigError("base.device: 'cuda' asked for, and torch finds no such device; use auto or cpu")
        # "auto" is decided once for a folder: a run that goes on elsewhere must not change its numbers half way.
        record = self.store.root / ".dtype.json"
        dtype = config.dtype
        if dtype == "auto":
            known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
            dtype = known or {torch.bfloat16: "bf16", torch.float32: "fp32"}.get(pick_dtype("auto", device), "fp32")
            if known is None:
                write_whole(record, json.dumps(dtype))
        say(f"base model {config.required_model()} in {dtype} on {device}")
        return load_base(
            config.required_model(),
            revision=config.revision,
            dtype=dtype,
            device=device,
            trust_remote_code=config.trust_remote_code,
        )

    def _train_compared(self, trainer: Trainer, rows: Rows) -> dict[str, list[Stage]]:
        """Return the adapters of the systems that are trained for comparison, by policy."""
        wanted = {system.policy for system in self.systems}
        compared: dict[str, list[Stage]] = {}
        if "joint" in wanted:
            compared["joint"] = [trainer.joint(rows.all_of("train"))]
        if "sequential" in wanted:
            compared["sequential"] = trainer.sequential(rows.train, self._order())
        return compared

    def _order(self) -> Sequence[str]:
        return self.recipe.comparison.order or self.recipe.axis_names

    @contextmanager
    def _bank(self, experts: Mapping[str, Stage]) -> Iterator[ExpertBank]:
        bank = ExpertBank.attach(self.base.model, {axis: stage.folder for axis, stage in experts.items()})
        try:
            yield bank
        finally:
            bank.detach()

    def _ask_policies(
        self,
        experts: Mapping[str, Stage],
        rows: Rows,
        judges: Sequence[Judge],
        generation: Generation,
        examiner: Examiner,
        depends: Mapping[str, Any],
    ) -> tuple[dict[str, Answered], dict[str, bool]]:
        """Return the judged answers of every policy over the bank, and which of them route."""
        policies = [system for system in self.systems if system.policy not in _TRAINED]
        answered: dict[str, Answered] = {}
        calibrated: dict[str, bool] = {}
        with self._bank(experts) as bank:
            routers = self._fit(bank, rows, judges, generation, depends, {system.policy for system in policies})
            loaded = {name: _load_router(stage) for name, stage in routers.items()}
            for system in sorted(policies, key=lambda s: s.policy == "oracle"):  # it needs the experts' verdicts
                outcomes = {}
                if system.policy == "oracle":
                    singles = [f"expert:{axis}" for axis in bank.names]
                    judged = [sample for name in singles for sample in answered[name].samples]
                    outcomes = acceptable_by_prompt(judged, singles)
                policy = build_policy(system.policy, Parts(bank.names, loaded, outcomes), **system.options)
                inputs = {
                    "policy": system.policy,
                    "options": dict(system.options),
                    "experts": {} if system.policy == "base" else depends["experts"],
                    "router": routers[system.policy].key if system.policy in routers else None,
                }
                if system.policy in loaded:
                    inputs["pruning"] = [self.recipe.routing.top_k, self.recipe.routing.threshold]
                answered[system.name] = examiner.policy(system.name, bank, policy, inputs)
                if policy.reads is not None:
                    calibrated[system.name] = policy.calibrated
        return answered, calibrated

    def _fit(
        self,
        bank: ExpertBank,
        rows: Rows,
        judges: Sequence[Judge],
        generation: Generation,
        depends: Mapping[str, Any],
        wanted: set[str],
    ) -> dict[str, Stage]:
        """Return the fitted routers the wanted policies need."""
        needed = [name for name in ("linear", "alignx") if name in wanted]
        if not needed:
            return {}
        calibration = rows.all_of("calibration")
        layer = self.recipe.features.layer
        fitter = Fitter(
            self.recipe,
            self.base,
            bank,
            self.store,
            first_expert_layer(self.recipe.experts, self.base) if layer is None else layer,
            generation,
        )
        features = fitter.features(rows.train, calibration, depends["experts"])
        outcomes = fitter.outcomes(calibration, judges, depends)
        return {name: fitter.router(name, features, outcomes, calibration) for name in needed}

    def _ask_compared(
        self, compared: Mapping[str, list[Stage]], examiner: Examiner, answered: dict[str, Answered]
    ) -> dict[str, Answered]:
        """Add the answers of joint and sequential tuning; return those after each stage of the latter."""
        stages: dict[str, Answered] = {}
        for system in self.systems:
            if system.policy == "joint":
                answered[system.name] = examiner.adapter(system.name, compared["joint"][0])
            if system.policy == "sequential":
                for i, (axis, stage) in enumerate(zip(self._order(), compared["sequential"], strict=True)):
                    stages[axis] = examiner.adapter(f"sequential-{i + 1}-{axis}", stage)
                answered[system.name] = list(stages.values())[-1]
        return stages

    def _labels(self) -> list[str]:
        labels = list(self.notes)
        if self.recipe.base.model == "pocket":
            labels.append("synthetic, tiny model")
        return labels

    def _write(self, report: dict[str, Any], answered: Mapping[str, Answered]) -> None:
        """Publish the artifact's own files, each whole; `manifest.json` comes last."""
        root = self.store.root
        lines = []
        for name in answered:
            for path in sorted(root.glob(f"answers/{_folder_of(name, self.systems, self._order())}/samples.jsonl")):
                lines.append(path.read_text(encoding="utf-8"))
        write_whole(root / "samples.jsonl", "".join(lines))
        outcomes = root / "outcomes" / "outcomes.jsonl"
        if outcomes.is_file():
            write_whole(root / "outcomes.jsonl", outcomes.read_text(encoding="utf-8"))
        write_whole(root / "recipe.yaml", dump_recipe(self.recipe))
        write_whole(root / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_report(report, root)
        write_whole(root / "manifest.json", json.dumps(self._manifest(), indent=1) + "\n")

    def _manifest(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "mocae": mocae.__version__,
            "base": {
                "model": self.recipe.base.required_model(),
                "revision": self.recipe.base.revision,
                "dtype": str(self.base.model.dtype).removeprefix("torch."),
                "fingerprint": self.base_key["fingerprint"],
            },
            "axes": list(self.recipe.axis_names),
            "prompt_format": self.recipe.prompt_format,
            "max_new_tokens": self.recipe.generation.max_new_tokens,
            "seed": self.recipe.seed,
            "routers": sorted(path.name for path in (self.store.root / "router").glob("*") if path.is_dir()),
        }


def _folder_of(name: str, systems: Sequence[SystemConfig], order: Sequence[str]) -> str:
    policy = next(system.policy for system in systems if system.name == name)
    if policy == "sequential":
        return f"sequential-{len(order)}-{order[-1]}"
    return name.replace(":", "__")


def _generation(recipe: Recipe) -> Generation:
    given = recipe.generation
    return Generation(
        max_new_tokens=given.max_new_tokens,
        batch_size=given.batch_size,
        do_sample=given.do_sample,
        temperature=given.sampling_temperature,
        top_p=given.top_p,
        seed=recipe.seed,
    )


def _load_router(stage: Stage) -> Any:
    from mocae.calibration import AlignXRouter

    return AlignXRouter.load(stage.folder)
