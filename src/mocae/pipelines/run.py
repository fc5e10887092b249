"""The whole job: recipe in, artifact out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import mocae
from mocae.config import Recipe, SystemConfig, declare_probes, dump_recipe, load_recipe
from mocae.distributed import is_main, join, size, wait
from mocae.errors import ArtifactError, ConfigError, NothingToLearnError, unknown_name
from mocae.evaluation import read_samples
from mocae.extras import require
from mocae.files import read_json, write_whole
from mocae.models import LoadedBase, load_base, pick_device, pick_dtype
from mocae.outputs import writing
from mocae.pipelines.check import check
from mocae.pipelines.finished import finished_run, make_room
from mocae.pipelines.plan import work_of
from mocae.pipelines.seen import write_seen
from mocae.pipelines.summary import SCHEMA, Entrant, RunResult, environment, summarise, write_result
from mocae.pipelines.updates import updates
from mocae.progress import Job, say, visible
from mocae.report import write_report
from mocae.stages.answers import read_answers
from mocae.stages.choosing import CHOSEN
from mocae.stages.judging import Judges, make_judges
from mocae.stages.overlap import overlap
from mocae.stages.pool import StagePool
from mocae.stages.rows import Rows, without_long
from mocae.stages.run import Made, Run
from mocae.stages.store import Store, folder_name
from mocae.systems import System, build_systems

__all__ = ["RunResult", "run", "train_expert"]

_FILES = tuple(
    "README.md manifest.json outcomes.jsonl recipe.yaml report.html report.json samples.jsonl seen.json".split()
)
"""What a finished run has beside its stages."""


def run(
    recipe: Recipe | Path | str,
    *,
    out: Path | str,
    systems: Sequence[str] | None = None,
    progress: bool = True,
    processes: int | None = None,
    pool: StagePool | None = None,
    overwrite: bool = False,
    where: str = "recipe",
) -> RunResult:
    """Run a recipe into a folder and return its report. Stages that are finished there are not made again.

    Args:
        recipe: a recipe or its file.
        out: folder of the artifact; made if need be.
        systems: compare only these systems of the recipe; the base model and the single experts always answer, because
            others are measured against them.
        progress: show progress on stderr.
        processes: refuse to run unless this many processes share the work; None: any number. Some settings of
            launchers start fewer than they were told to, without a word.
        pool: stages to share with runs into other folders.
        where: opens every line on what is wrong with the recipe, such as its file.
        overwrite: where the folder is a finished run with other settings, replace what they change; where it is of
            another recipe, remove what that one made.

    Raises:
        ArtifactError: the folder holds what mocae did not write, or a finished run of another recipe (one of another
            name, or, of two builds, one with another base model or other experts) or with other settings.
        MocaeError: see `mocae.errors`; what is finished stays, and the same call goes on with it.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    chosen = _chosen(loaded, systems)
    checked = check(loaded, where=where, read="all")
    require("sklearn", "matplotlib", for_what="a run ends with calibrators and a report")
    store = Store(Path(out), pool, kind="run", files=_FILES)
    with _working(loaded, store, processes, progress):
        if held := finished_run(store.root):
            declare_probes(loaded.probes)  # that run may have declared others
            make_room(store, held, loaded, chosen, overwrite=overwrite)
        for note in checked.notes:
            say(f"note: {note}")
        assert checked.rows is not None
        report = _Run(loaded, store, chosen).report(checked.rows)
        if is_main():
            store.clean()
        wait()
    return RunResult(report, store.root / "report.json", store.root / "report.html")


def train_expert(
    recipe: Recipe,
    *,
    axis: str,
    out: Path | str,
    progress: bool = True,
    processes: int | None = None,
    where: str = "recipe",
) -> Path:
    """Return the folder of one axis's expert, trained unless it is there; `run` into the same folder goes on with it.

    The expert of a finished run is not replaced by another: its router and report were made with it.

    Args:
        recipe: what the expert belongs to; all its rows are read, so that a leak is found here already.
        axis: whose expert.
        out: folder of the artifact; made if need be.
        progress: show progress on stderr.
        processes: as in `run`.
        where: as in `run`.

    Raises:
        ConfigError: no such axis, or another number of processes.
        ArtifactError: the folder is a finished run with another expert.
        MocaeError: see `mocae.errors`.
    """
    if axis not in recipe.axis_names:
        raise ConfigError(f"--axis: {unknown_name('axis', axis, recipe.axis_names)}")
    checked = check(recipe, where=where, read="all")
    assert checked.rows is not None
    frozen = (Path(out) / "manifest.json").is_file()
    store = Store(Path(out), frozen=frozen, kind="run", files=_FILES)
    with _working(recipe, store, processes, progress):
        base = _Run(recipe, store, ()).load_base()
        rows = without_long(checked.rows, recipe, base)
        with Run(recipe, base=base, rows=rows, judges=Judges((), ""), store=store) as run:
            return run.expert(axis).folder


@contextmanager
def _working(recipe: Recipe, store: Store, processes: int | None, progress: bool) -> Iterator[None]:
    """Return a context in which the processes of the launch work together, and they alone write the folder.

    Raises:
        ConfigError: they are not as many as `processes`.
        ArtifactError: see `Store.locked`.
    """
    declare_probes(recipe.probes)  # the recipe of a run that was here may have declared others
    join(cpu=pick_device(recipe.base.device) == "cpu")
    if processes is not None and processes != size():
        raise ConfigError(
            f"--processes {processes}: the launcher started {size()} that work together; check its configuration "
            "(recipes/accelerate/ has some that work, and docs/scale.md says which settings start one in silence)"
        )
    with visible(progress and is_main()), store.locked():
        if size() > 1:
            say(f"{size()} processes share the work")
        yield


def _chosen(recipe: Recipe, names: Sequence[str] | None) -> list[SystemConfig]:
    """Return the systems to compare: base, every expert, then the recipe's others in order."""
    known = {system.name: system for system in recipe.systems}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"systems: {unknown_name('system', name, known)}")
    always = ["base", *(f"expert:{axis}" for axis in recipe.axis_names)]
    wanted = dict.fromkeys([*always, *(name for name in known if names is None or name in names)])
    for name in always:
        if name in known and known[name].policy != name:
            raise ConfigError(
                f"systems: {name!r} has policy {known[name].policy!r}; others are measured against {name!r}, so give "
                "this one another name"
            )
    _refuse_bad_folders(list(wanted))
    return [known.get(name) or SystemConfig(name=name, policy=name) for name in wanted]


def _refuse_bad_folders(names: Sequence[str]) -> None:
    """Refuse names that cannot be folders side by side, on file systems that ignore case too."""
    owners: dict[str, str] = {}
    for name in names:
        folder = folder_name(name)
        if not folder.strip("._"):
            raise ConfigError(f"systems: {name!r} is no name; give it a letter or a digit")
        other = owners.setdefault(folder.lower(), name)
        if other != name:
            raise ConfigError(f"systems: {other!r} and {name!r} would share the folder {folder!r}; rename one of them")


@dataclass(frozen=True, slots=True)
class _Run:
    """One run in progress."""

    recipe: Recipe
    store: Store
    configs: Sequence[SystemConfig]

    def report(self, rows: Rows) -> dict[str, Any]:
        """Make every stage the systems need, write the artifact and return its report."""
        judges = make_judges(self.recipe, rows)
        base = self.load_base()
        rows = without_long(rows, self.recipe, base)
        systems = build_systems(self.recipe, self.configs)
        with Run(self.recipe, base=base, rows=rows, judges=judges, store=self.store, systems=systems) as run:
            job = Job(work_of(run, systems), lambda: self.store.n_made)
            for axis in self.recipe.axis_names:  # before the first answer: what is wrong with them shows soonest
                with job.part(f"expert {axis}"):
                    run.expert(axis)
            entrants, left_out = _entrants(run, systems, job)
            overlaps = overlap(run)
            manifest = self._manifest(run, [system for system in systems if system.name in entrants])
        judged = self.store.stages.get("outcomes")
        report = summarise(
            self.recipe,
            entrants=entrants,
            rows=rows,
            judges=judges.judges,
            n_base_parameters=run.n_base_parameters,
            outcomes=() if judged is None else list(read_samples(judged.folder / "outcomes.jsonl")),
            overlap=overlaps,
            notes=left_out,
            environment=environment(str(base.model.device), str(base.model.dtype)),
        )
        self._write(report, entrants, manifest, rows)
        return report

    def load_base(self) -> LoadedBase:
        """Return the base model on the device and in the number format the recipe names."""
        config = self.recipe.base
        device = pick_device(config.device)
        dtype = self._dtype(device)
        say(f"base model {config.required_model()} in {dtype} on {device}")
        # A sharded model goes to the accelerator piece by piece, so that the whole never has to fit there.
        return load_base(
            config.required_model(),
            revision=config.revision,
            dtype=dtype,
            device="cpu" if config.shard else device,
            quantization=config.quantization,
            trust_remote_code=config.trust_remote_code,
            chat_template=config.chat_template,
            template_options=config.template_options,
            generation=config.generation.model_dump(),
        )

    def _dtype(self, device: str) -> str:
        """Return the number format; "auto" is decided once a folder, so that a run that goes on does not change it."""
        if self.recipe.base.dtype != "auto":
            return self.recipe.base.dtype
        record = self.store.root / ".dtype.json"
        if is_main() and not record.is_file():
            pool = self.store.pool
            picked = _pick(device) if pool is None else pool.remembered("dtype", lambda: _pick(device))
            write_whole(record, json.dumps(picked))
        wait()
        dtype = read_json(record)
        if dtype not in ("bf16", "fp16", "fp32"):
            raise ArtifactError(f"{record}: damaged; remove it, and the number format is chosen anew")
        return str(dtype)

    def _write(
        self, report: dict[str, Any], entrants: Mapping[str, Entrant], manifest: Mapping[str, Any], rows: Rows
    ) -> None:
        """Publish the artifact's own files, each whole; `manifest.json` comes last."""
        if not is_main():
            return
        with writing(self.store.root, "run", _FILES):
            self._write_files(report, entrants, manifest, rows)

    def _write_files(
        self, report: dict[str, Any], entrants: Mapping[str, Entrant], manifest: Mapping[str, Any], rows: Rows
    ) -> None:
        root = self.store.root
        made = [s for s in self.store.stages.values() if s.name == "outcomes" or s.name.startswith(f"{CHOSEN}/")]
        if outcomes := next(iter(made), None):
            text = (outcomes.folder / "outcomes.jsonl").read_text(encoding="utf-8")
            write_whole(root / "outcomes.jsonl", text)
        seen = (row.id for split in ("train", "calibration") for row in rows.all_of(split))
        write_seen(root, seen, unknown=[axis.name for axis in self.recipe.axes if axis.adapter is not None])
        write_whole(root / "recipe.yaml", dump_recipe(self.recipe))
        samples = [sample for entrant in entrants.values() for sample in entrant.answered.samples]
        write_result(root, report, samples)
        write_report(report, root, samples)
        write_whole(root / "manifest.json", json.dumps(manifest, indent=1) + "\n")

    def _manifest(self, run: Run, systems: Sequence[System]) -> dict[str, Any]:
        """Return what the artifact says it is: its base model, and what every system is loaded from."""
        base = self.recipe.base
        used = {system.name: system.stages(run) for system in systems}
        stages = {stage.name: stage.key for roles in used.values() for stage in roles.values()}
        return {
            "schema": SCHEMA,
            "mocae": mocae.__version__,
            "base": {
                "model": base.required_model(),
                "revision": base.revision,
                "dtype": run.base_key["dtype"].removeprefix("torch."),
                "quantization": self.recipe.base.quantization,
                "fingerprint": run.base_key["fingerprint"],
                "chat_template": base.chat_template,
                "template_options": base.template_options,
                "description": run.base.description.record(),
            },
            "axes": list(self.recipe.axis_names),
            "prompt_format": self.recipe.prompt_format,
            "max_new_tokens": self.recipe.generation.max_new_tokens,
            "seed": self.recipe.seed,
            "systems": {
                system.name: {
                    **system.record(self.recipe),
                    "stages": {role: stage.name for role, stage in used[system.name].items()},
                }
                for system in systems
            },
            # Which stages this is about: one made anew later is not taken for them.
            "stages": {**stages, **{stage.name: stage.key for stage in run.experts.values()}},
        }


def _entrants(run: Run, systems: Sequence[System], job: Job) -> tuple[dict[str, Entrant], list[str]]:
    """Return what comes of the systems, and a note for each that the verdicts teach nothing."""
    entrants, notes = {}, []
    for system in systems:
        try:
            with job.part(f"system {system.name}"):
                entrants[system.name] = _entrant(run, system)
        except NothingToLearnError as error:
            notes.append(f"{system.name} is left out: {error}")
            say(f"warning: {notes[-1]}")
    return entrants, notes


def _entrant(run: Run, system: System) -> Entrant:
    """Return what comes of one system: its judged answers, and what the report says of it."""
    on_the_way = {axis: read_answers(stage) for axis, stage in system.on_the_way(run).items()}
    answers = run.answers(system)
    made = Made(run.base, system.axes, {role: stage.folder for role, stage in system.stages(run).items()})
    return Entrant(
        system,
        read_answers(answers),
        on_the_way=on_the_way,
        updates=updates(answers),
        warnings=system.warnings(made),
    )


def _pick(device: str) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[pick_dtype("auto", device)]
