"""From a finished run to the form another stack reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import mocae
from mocae.bank import ExpertBank
from mocae.calibration import AlignXRouter
from mocae.config import load_recipe
from mocae.distributed import alone
from mocae.errors import ArtifactError, ConfigError, unknown_name
from mocae.evaluation import examine
from mocae.export import (
    Bundle,
    export_gguf,
    export_lorax,
    export_merged,
    export_peft,
    export_vllm,
    mixture_vector,
    prove_export,
    whole_folder,
    write_manifest,
)
from mocae.export.card import export_card
from mocae.export.gguf import NumberFormat
from mocae.files import inside, read_tensors
from mocae.pipelines.artifact import refuse_unusable
from mocae.pipelines.manifest import CHOSEN, read_manifest, refuse_changed_stages
from mocae.pipelines.opened import base_of, stage_folders, systems_of
from mocae.policies import CodeBook, CodeBookPolicy, Mixture, Policy, PromptBatch, RoutedPolicy
from mocae.progress import visible
from mocae.prompts import FORMATS
from mocae.stages.answers import generation_of
from mocae.stages.judging import make_judges
from mocae.stages.rows import read_rows_of
from mocae.stages.run import Made
from mocae.stages.store import refuse_changed
from mocae.systems import System
from mocae.systems.routers import RoutedSystem

__all__ = ["FORMATS_OUT", "ExportOptions", "bundle_of", "export"]

_TAKEN_BY = {
    "weights": ("--weights", ("peft", "merged", "gguf", "lorax")),
    "rank": ("--rank", ("peft", "vllm")),
    "number_format": ("--numbers", ("gguf",)),
    "n_mixtures": ("--mixtures", ("vllm",)),
    "measure": ("--measure or --no-measure", ("vllm",)),
    "seed": ("--seed", ("vllm",)),
}
"""Option -> its flag, and the formats it belongs to."""

FORMATS_OUT = ("peft", "merged", "gguf", "vllm", "lorax")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What a format can be told; None is the format's default, and an option of another format is refused.

    Attributes:
        weights: expert -> weight; peft and merged need them, gguf and lorax write them as one more mixture.
        rank: of the adapters of peft and vllm, cut by SVD; None: exact.
        number_format: of matrices in GGUF; f16.
        n_mixtures: most mixtures in the code book for vllm; 8.
        measure: answer the recipe's test prompts with exact routing and with the code book, and compare (vllm); true.
        seed: of k-means (vllm); 0.
    """

    weights: Mapping[str, float] | None = None
    rank: int | None = None
    number_format: NumberFormat | None = None
    n_mixtures: int | None = None
    measure: bool | None = None
    seed: int | None = None

    def refuse_others(self, *, to: str) -> None:
        """Do nothing if every option given belongs to the format.

        Raises:
            ConfigError: one does not, and would be ignored.
        """
        for option, (flag, formats) in _TAKEN_BY.items():
            if getattr(self, option) is not None and to not in formats:
                raise ConfigError(f"--to {to} takes no {flag}; it belongs to {', '.join(f'--to {f}' for f in formats)}")


def export(
    artifact: Path | str,
    *,
    to: str,
    out: Path | str,
    system: str | None = None,
    options: ExportOptions | None = None,
    base_model: str | None = None,
    device: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write an artifact in another form to a new folder and return the export's manifest.

    Args:
        artifact: what `mocae run --out` or `mocae build --out` wrote.
        to: one of `FORMATS_OUT`.
        out: new folder; it appears when it is whole.
        system: which one of the run; None: its best router with the experts.
        options: see `ExportOptions`.
        base_model: where the base model lies now, if not where the run found it.
        device: where to put it; None: an accelerator if there is one.
        progress: show progress on stderr.

    Raises:
        ConfigError: an unknown format or system, options that do not fit, `out` is there already or lies inside the
            artifact, there are several processes, or the format cannot express the system.
        ArtifactError: the artifact is damaged, or `out` cannot be written.
        ModelMismatchError: the base model or an adapter has no place in the format.
    """
    alone("mocae export")
    if to not in FORMATS_OUT:
        raise ConfigError(f"--to: {unknown_name('format', to, FORMATS_OUT)}")
    chosen = options or ExportOptions()
    chosen.refuse_others(to=to)
    root = Path(artifact)
    if root.resolve() in (Path(out).resolve(), *Path(out).resolve().parents):
        raise ConfigError(f"--out {out}: lies inside the artifact {root}, which is not to change; give another folder")
    manifest = read_manifest(root)
    refuse_unusable(root, system=system)
    systems = systems_of(root, manifest)
    entrant = systems[system or next(iter(systems))]
    if chosen.weights is None and to in ("peft", "merged"):
        chosen = replace(chosen, weights=entrant.constant_weights())
    _refuse_what_cannot_be(entrant, to, chosen)
    with visible(progress), whole_folder(Path(out)) as folder:
        bundle = bundle_of(root, system=entrant.name, base_model=base_model, device=device)
        details = {"mocae": mocae.__version__, "system": entrant.name, **_write(root, bundle, folder, to, chosen)}
        prove_export(bundle, folder)
        manifest = write_manifest(folder, bundle, to=to, details=details)
        (folder / "README.md").write_text(export_card(manifest), encoding="utf-8")
        return write_manifest(folder, bundle, to=to, details=details)


def bundle_of(
    root: Path, *, system: str | None = None, base_model: str | None = None, device: str | None = None
) -> Bundle:
    """Return base model, and what stands for a system in other software: experts, router, or a change of weights.

    Raises:
        ArtifactError: the folder is no finished run, or is damaged.
        ConfigError: other software cannot express the system.
        ModelMismatchError: the base model is not the one the experts were trained on.
    """
    manifest = read_manifest(root)
    systems = systems_of(root, manifest)
    entrant = systems[system or next(iter(systems))]
    folders = stage_folders(manifest, entrant)
    refuse_changed_stages(root, manifest, folders.values())
    base = base_of(root, manifest, device=device, base_model=base_model)
    made = Made(base, tuple(manifest["axes"]), {role: inside(root, folder) for role, folder in folders.items()})
    parts = entrant.exported(made)
    experts = dict(parts) if isinstance(parts, Mapping) else {}
    routed = isinstance(entrant, RoutedSystem)
    router = AlignXRouter.load(made.folders["router"]) if routed else None
    refuse_changed_stages(root, manifest, folders.values())  # nothing has changed while it was read
    return Bundle(
        base=base,
        base_name=manifest["base"]["model"],
        revision=manifest["base"]["revision"],
        fingerprint=manifest["base"]["fingerprint"],
        prompt_format=manifest["prompt_format"],
        experts=experts,
        router=router,
        router_options=entrant.options.model_dump(include={"top_k", "threshold"}) if routed else {},
        chosen={key: manifest["base"][key] for key in CHOSEN if key in manifest["base"]},
        change=None if isinstance(parts, Mapping) else parts,
    )


def _refuse_what_cannot_be(system: System, to: str, options: ExportOptions) -> None:
    """Refuse what the manifest alone tells is wrong, before a base model is loaded."""
    experts = system.export_names()
    if experts is None:
        if to != "merged" or options.weights:
            raise ConfigError(
                f"--system {system.name}: it is a change of the base model's weights, which only --to merged can hold, "
                "without --weights"
            )
    elif to in ("peft", "merged") or options.weights:
        mixture_vector(options.weights, experts, to=to)
    if to == "vllm" and not isinstance(system, RoutedSystem):
        raise ConfigError(
            "--to vllm needs a system with a fitted router; run the recipe with 'alignx', or name one by --system"
        )


def _write(root: Path, bundle: Bundle, folder: Path, to: str, options: ExportOptions) -> dict[str, Any]:
    if to == "peft":
        return export_peft(bundle, folder, weights=options.weights, rank=options.rank)
    if to == "merged":
        return export_merged(bundle, folder, weights=options.weights)
    if to == "gguf":
        return export_gguf(bundle, folder, weights=options.weights, number_format=options.number_format or "f16")
    if to == "lorax":
        return export_lorax(bundle, folder, weights=options.weights)
    policy = RoutedPolicy(bundle.require_router(to=to), **bundle.router_options)
    alpha = _calibration_weights(root, policy)
    details = export_vllm(
        bundle, folder, alpha=alpha, n_mixtures=options.n_mixtures or 8, rank=options.rank, seed=options.seed or 0
    )
    if options.measure is not False:
        details["measured"] = _measured(root, bundle, policy, CodeBook.load(folder / "code_book.json"))
    return details


def _calibration_weights(root: Path, policy: Policy) -> torch.Tensor:
    """Return the weights exact routing gives the calibration prompts, (N, K), from their states in `features/`."""
    path = root / "features" / "features.safetensors"
    try:
        refuse_changed(inside(root, "features"))
        pooled = read_tensors(path)["calibration"]
        if pooled.dim() != 2:
            raise KeyError(f"calibration has shape {tuple(pooled.shape)}")
    except (ArtifactError, KeyError) as error:
        raise ArtifactError(
            f"{path}: the states of the calibration prompts cannot be read ({error}); run the recipe again"
        ) from error
    return policy.route(PromptBatch([""] * len(pooled), pooled))


def _measured(root: Path, bundle: Bundle, policy: Policy, book: CodeBook) -> dict[str, Any]:
    """Return the share of acceptable answers to the recipe's test prompts, routed exactly and by the code book."""
    recipe = load_recipe(root / "recipe.yaml")
    rows = read_rows_of(recipe)
    judges = make_judges(recipe, rows).judges
    generation = replace(generation_of(recipe.generation, seed=recipe.seed), do_sample=False)
    bank = ExpertBank.attach(bundle.base.model, bundle.experts)
    accepted: dict[str, dict[str, bool]] = {}
    moved = 0.0
    try:
        for name, chosen in (("exact", policy), ("code_book", CodeBookPolicy(policy, book))):
            samples, _ = examine(
                Mixture(bundle.base, bank, chosen),
                rows.all_of("test"),
                judges,
                system=name,
                prompt_format=FORMATS.get(recipe.prompt_format),
                generation=generation,
                label=f"answers {name.replace('_', ' ')}",
            )
            accepted[name] = {s.answer.example.id: s.acceptable for s in samples if s.acceptable is not None}
            if name == "exact":
                weights = torch.tensor([[(s.answer.weights or {})[e] for e in book.experts] for s in samples])
                moved = float(book.distance(weights).mean())
    finally:
        bank.detach()
    both = sorted(accepted["exact"].keys() & accepted["code_book"].keys())
    if not both:
        raise ConfigError("no test prompt was judged under both ways of routing; export with --no-measure")
    rates = {name: sum(verdicts[i] for i in both) / len(both) for name, verdicts in accepted.items()}
    changed = sum(accepted["exact"][i] != accepted["code_book"][i] for i in both)
    return {**rates, "loss": rates["exact"] - rates["code_book"], "n": len(both), "changed": changed, "moved": moved}
