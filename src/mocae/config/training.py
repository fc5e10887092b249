"""The base model, the axes with their rows, and the experts trained on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mocae.config.base import Config, FilePath, Fraction, Name, Sequence, problem
from mocae.errors import ConfigError

__all__ = [
    "AxisConfig",
    "BaseConfig",
    "BaseGenerationConfig",
    "ExpertsConfig",
    "Objective",
    "OptimizerConfig",
    "PreferenceConfig",
    "SourceConfig",
]


Objective: TypeAlias = Literal["sft", "dpo", "kto"]
"""What of its responses an adapter learns; see `ExpertsConfig.objective`."""


def _wrap(value: Any) -> Any:
    """Return a lone source as a tuple of one, a list as a tuple, nothing as no source."""
    if isinstance(value, dict | BaseModel):
        return (value,)
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else value


def _targets(value: Any) -> Any:
    if value == "all-linear":
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise PydanticCustomError("targets", "it should be 'all-linear' or a list of module names such as [q_proj, v_proj]")


class BaseGenerationConfig(Config):
    """What acts in every answer, here and wherever the model is served; null: as the base model's generation_config."""

    end_tokens: Annotated[tuple[str, ...], Sequence] | None = None
    """Tokens that end an answer, as text, beside the tokenizer's own; null: those of generation_config, and the one
    with which the chat template ends a turn."""
    repetition_penalty: PositiveFloat | None = None
    """Divides the logits of tokens that prompt or answer have; 1: none."""
    no_repeat_ngram_size: NonNegativeInt | None = None
    """No run of so many tokens comes twice; 0: none."""
    bad_words_ids: Annotated[tuple[Annotated[tuple[NonNegativeInt, ...], Sequence], ...], Sequence] | None = None
    """Runs of token ids that are never written; []: none."""
    suppress_tokens: Annotated[tuple[NonNegativeInt, ...], Sequence] | None = None
    """Token ids that are never written; []: none."""
    begin_suppress_tokens: Annotated[tuple[NonNegativeInt, ...], Sequence] | None = None
    """Token ids no answer begins with; []: none."""
    min_new_tokens: NonNegativeInt | None = None
    """Tokens before an answer may end; 0: none."""


class BaseConfig(Config):
    """The model every expert is trained on; it stays frozen."""

    model: Annotated[str, Field(min_length=1)] | None
    """The word pocket, a folder, or a hub id; null: the environment variable MOCAE_BASE_MODEL."""
    known_as: Annotated[tuple[str, ...], Sequence] = ()
    """Other names of the same model: of a copy elsewhere, or one that an adapter gives as its base model."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null: the newest."""
    dtype: Literal["auto", "bf16", "fp32", "fp16"] = "auto"
    """Type of the frozen weights; auto: bf16 where the hardware is fast in it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto: an accelerator when there is one."""
    shard: bool = False
    """Whether the processes of a launch hold the model together, each a part of every weight (FSDP)."""
    quantization: Literal["bnb-int8", "bnb-nf4", "torchao-int8"] | None = None
    """Hold the linears of the frozen model in 8 or 4 bits; the experts stay in dtype. null: as stored. Needs
    mocae[quantize]."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""
    chat_template: Annotated[str, Field(min_length=1)] | None = None
    """Name of one of the tokenizer's chat templates; null: its only one, or `default`."""
    template_options: dict[str, JsonValue] = Field(default_factory=dict)
    """Variables of the chat template, such as {enable_thinking: true}; thinking is off where nothing is said."""
    generation: BaseGenerationConfig = BaseGenerationConfig()
    """What acts in every answer."""
    shape: dict[str, JsonValue] | None = None
    """Architecture as in a Hugging Face config.json (model_type, hidden_size, ...), read by `mocae plan` where
    the model itself cannot be."""

    def required_model(self) -> str:
        """Return `model`.

        Raises:
            ConfigError: it is null and no environment variable gave it.
        """
        if self.model is None:
            raise ConfigError(
                "base.model: null, and MOCAE_BASE_MODEL is not set. Accepted: 'pocket', a folder with config.json, "
                "or a hub id. Give --set base.model=... or set MOCAE_BASE_MODEL"
            )
        return self.model


class SourceConfig(Config):
    """Where rows come from."""

    source: Annotated[str, Field(min_length=1)]
    """Registered name, see `mocae ls sources`."""
    path: FilePath | None = None
    """File, relative to `data_root`; null for a source without a file."""
    limit: PositiveInt | None = None
    """Most rows taken; null: all."""
    hash_range: Annotated[tuple[Fraction, Fraction], Sequence] | None = None
    """[low, high) part of the prompts by the hash of their text; disjoint ranges are disjoint splits; null: all."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What a row that cannot be read does: stop, or be counted and left out."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the source itself."""

    @model_validator(mode="after")
    def _ordered(self) -> SourceConfig:
        if self.hash_range is not None and self.hash_range[0] >= self.hash_range[1]:
            raise problem("hash_range", f"got {list(self.hash_range)}; the low end should be below the high end")
        return self

    def limit_note(self, key: str, n_rows: int) -> list[str]:
        """Return a note where there are fewer rows than the limit, else nothing.

        >>> SourceConfig(source="table", limit=5).limit_note("axes.a.test.0", 3)
        ['axes.a.test.0.limit: 5 is never reached, its source has 3 rows']
        """
        if self.limit is None or n_rows >= self.limit:
            return []
        part = f" with a hash in [{self.hash_range[0]}, {self.hash_range[1]})" if self.hash_range else ""
        return [f"{key}.limit: {self.limit} is never reached, its source has {n_rows} rows{part}"]


Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_wrap)]
"""One source or a list of them."""


class AxisConfig(Config):
    """One thing the model should be, with the rows that teach it and the prompts that test it."""

    name: Name
    """What the axis is called in every table and file."""
    injection: str
    """Text put before the prompt while this axis's expert is trained."""
    train: Sources = ()
    """Rows the expert learns from; may be left out with adapter."""
    adapter: Annotated[str, Field(min_length=1)] | None = None
    """PEFT LoRA adapter that is this axis's expert as it is, a folder or a hub id; null: the expert is trained."""
    objective: Objective | None = None
    """What this axis's expert is trained on; null: experts.objective."""
    calibration: Sources = ()
    """Prompts whose judged answers fit the router; none: this axis has none."""
    test: Annotated[Sources, Field(min_length=1)]
    """Prompts every system answers; never seen before."""

    @model_validator(mode="after")
    def _has_an_expert(self) -> AxisConfig:
        if not self.train and self.adapter is None:
            raise problem("train", "missing; give rows to train the expert on, or an adapter to use as it is")
        return self


class OptimizerConfig(Config):
    """How parameters move, the same for every expert."""

    method: Annotated[str, Field(min_length=1)] = "adamw"
    """Registered name, see `mocae ls trainers`; adamw: gradients."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the method itself; adamw has none."""
    learning_rate: PositiveFloat = 5e-4
    """Peak learning rate. AlignX's code: 5e-4; its README: 2e-5."""
    epochs: PositiveFloat = 3.0
    """Passes over the rows of an axis. AlignX: 3."""
    batch_size: PositiveInt = 8
    """Rows a device sees at once."""
    gradient_accumulation: PositiveInt = 1
    """Batches summed before one step."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW weight decay. AlignX's README: 0.01."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps that warm up."""
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate after warm-up."""
    checkpoint_steps: PositiveInt | None = None
    """Steps between checkpoints a killed training goes on from; null: an adapter is trained in one go."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, value: Any) -> Any:
        """Return settings of before `options`: what is now that was `forward_only`, and acted with mezo alone."""
        if not isinstance(value, dict) or "forward_only" not in value:
            return value
        kept = {key: setting for key, setting in value.items() if key != "forward_only"}
        return kept | {"options": value["forward_only"]} if value.get("method") == "mezo" else kept


class PreferenceConfig(Config):
    """Training on preferences: dpo (arXiv 2305.18290) and kto (arXiv 2402.01306)."""

    beta: PositiveFloat = 0.1
    """How much leaving the base model costs."""
    sft_weight: NonNegativeFloat = 0.0
    """Weight of the likelihood of the chosen response beside dpo; keeps answers likely, not only preferred."""


class ExpertsConfig(Config):
    """Stage 1: one LoRA adapter an axis."""

    r: PositiveInt = 8
    """Rank of an adapter. AlignX's code: 64."""
    lora_alpha: PositiveFloat = 16
    """Numerator of the scaling lora_alpha / r. AlignX's code: 32."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before lora_A. AlignX's code: 0.1."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead."""
    target_modules: Annotated[Literal["all-linear"] | tuple[str, ...], BeforeValidator(_targets)] = "all-linear"
    """Adapted modules by the end of their names; all-linear: every linear map but the output head."""
    from_layer: NonNegativeInt | None = None
    """First adapted decoder layer, which is where the router reads; null: a third of the depth."""
    max_length: PositiveInt = 512
    """Longest training row in tokens. AlignX: 512."""
    injection_rate: Fraction = 0.5
    """Share of training rows that carry the injected prompt; the others are as prompts are asked. The papers: 1.0."""
    objective: Objective = "sft"
    """sft: the responses; dpo: the response rather than the rejected one; kto: the response, and away from the rejected
    one by itself. The last two for sources that give both."""
    preference: PreferenceConfig = PreferenceConfig()
    """How dpo and kto weigh the two."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How its parameters move."""
