"""What a base model is besides its weights: how its prompts read and how its answers end, resolved once.

Training, answers, servers and exports would each read `generation_config.json`, the tokenizer and its chat template for
themselves, and differ. Here they are read once, put into one description, and the model and tokenizer set to say just
that, so that whoever asks them hears the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from transformers import GenerationConfig

from mocae.errors import ArtifactError, ConfigError, ModelMismatchError, unknown_name
from mocae.models.layers import context_length
from mocae.models.logits import LogitsSettings
from mocae.progress import say
from mocae.prompts import resolve_template, turn_end, without_end_token

__all__ = ["BaseDescription", "describe"]

_PROBE = "\n\n The 1st of 12,345 words: déjà 漢字\t{x} <b>"
"""Read by every tokenizer in its own way."""
_NOT_OURS = (
    "temperature top_p top_k min_p typical_p epsilon_cutoff eta_cutoff num_beams length_penalty guidance_scale "
    "encoder_repetition_penalty encoder_no_repeat_ngram_size forced_bos_token_id forced_eos_token_id sequence_bias "
    "min_length penalty_alpha exponential_decay_length_penalty stop_strings max_time"
).split()
"""Settings of `generation_config.json` that act nowhere: how tokens are drawn is up to the recipe or the request."""


@dataclass(frozen=True, slots=True)
class BaseDescription:
    """How a base model reads and ends.

    Attributes:
        end_tokens: tokens that end an answer, in order.
        logits: settings that change the likeliest token.
        context: most tokens it reads and writes together.
        template: SHA-256 of the resolved chat template, None without one. The text is the tokenizer's `chat_template`.
        reading: SHA-256 of the tokens of a probe text, which tells tokenizers apart.
    """

    end_tokens: tuple[Annotated[int, Field(ge=0)], ...]
    logits: LogitsSettings
    context: Annotated[int, Field(ge=1)]
    template: str | None
    reading: str

    def length(self, tokens: Sequence[int]) -> int:
        """Return how many tokens of an answer stand before the one that ends it."""
        return next((i for i, token in enumerate(tokens) if token in self.end_tokens), len(tokens))

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "end_tokens": list(self.end_tokens), "logits": self.logits.changed}

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hex."""
        return _sha(json.dumps(self.record(), sort_keys=True))

    def generation_config(self, tokenizer: Any) -> GenerationConfig:
        """Return what any `generate` answers alike with, greedily: end tokens and logits settings."""
        return GenerationConfig(
            eos_token_id=list(self.end_tokens) or None,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **self.logits.changed,
        )

    def put_into(self, model: Any, tokenizer: Any) -> None:
        """Make the model end its answers as described; its logits settings are applied by `LoadedBase.generate`."""
        if getattr(model, "generation_config", None) is not None:
            model.generation_config = replace(self, logits=LogitsSettings()).generation_config(tokenizer)

    def as_recorded(self, record: Mapping[str, Any], *, where: str, chat: bool) -> BaseDescription:
        """Return the description an artifact was made with, for a base model that was just loaded as this one.

        Answers end as they did when they were measured; a difference is told.

        Args:
            record: made by `record`.
            where: the artifact, for messages.
            chat: whether its prompts are written by the chat template.

        Raises:
            ArtifactError: the record is damaged.
            ModelMismatchError: the base model reads prompts otherwise: another tokenizer, or another chat template.
        """
        try:
            known = TypeAdapter(BaseDescription).validate_json(json.dumps(record), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise ArtifactError(f"{where}: base.description.{place}: {first['msg']}; run the recipe again") from error
        if known.reading != self.reading or (chat and known.template != self.template):
            what = "tokenizer" if known.reading != self.reading else "chat template"
            raise ModelMismatchError(
                f"{where}: the base model has another {what} than the run was made with, so it would read other "
                "prompts than its experts; give base_model the one of the run"
            )
        for name in ("end_tokens", "logits", "context"):
            before, now = getattr(known, name), getattr(self, name)
            if before != now:
                used = "the base model's" if name == "context" else "the run's"
                say(f"{where}: {name} were {before} when it ran, the base model now has {now}; {used} are used")
        return replace(known, context=self.context)


def describe(
    model: Any,
    tokenizer: Any,
    *,
    chat_template: str | None = None,
    template_options: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> BaseDescription:
    """Return the description of a base model, and set its tokenizer to it, in place.

    The tokenizer gets the resolved chat template and leaves off an end token it put behind texts.

    Args:
        model: the base model, as loaded.
        tokenizer: its tokenizer.
        chat_template: name of one of several.
        template_options: values of the template's variables.
        generation: settings in place of the model's `generation_config`: the fields of `LogitsSettings`, and
            `end_tokens`, texts of tokens.

    Raises:
        ConfigError: a chosen template, option, setting or end token the base model does not have.
    """
    chosen = dict(generation or {})
    config = getattr(model, "generation_config", None) or GenerationConfig()
    try:
        tokenizer.chat_template = resolve_template(tokenizer, name=chat_template, options=template_options)
    except ConfigError:
        if chat_template or template_options:
            raise
        # Nothing was chosen, so the template may never be needed; the format 'chat' tells what is wrong with it.
    template = tokenizer.chat_template if isinstance(getattr(tokenizer, "chat_template", None), str) else None
    listed = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    last = turn_end(tokenizer, template) if template else None
    ends = {token for token in (*listed, tokenizer.eos_token_id, last) if token is not None}
    if chosen.get("end_tokens") is not None:
        ends = {_token(tokenizer, text) for text in chosen["end_tokens"]} | {tokenizer.eos_token_id}
    rows = model.get_input_embeddings().weight.shape[0] if hasattr(model, "get_input_embeddings") else 1 << 62
    end_tokens = tuple(sorted(token for token in ends if token is not None and 0 <= token < rows))
    without_end_token(tokenizer, end_tokens)
    if tokenizer.eos_token_id is None and end_tokens:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end_tokens[0])
    own = LogitsSettings().but({name: getattr(config, name, None) for name in LogitsSettings.names()})
    logits = own.but({name: value for name, value in chosen.items() if value is not None})
    _tell_ignored(config)
    return BaseDescription(
        end_tokens=end_tokens,
        logits=logits,
        context=context_length(model),
        template=None if template is None else _sha(template),
        reading=_sha(json.dumps([len(tokenizer), tokenizer(_PROBE)["input_ids"]])),
    )


def _token(tokenizer: Any, text: str) -> int:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if text not in vocabulary:
        raise ConfigError(f"base.generation.end_tokens: {unknown_name('token', text, tokenizer.get_added_vocab())}")
    return vocabulary[text]


def _tell_ignored(config: GenerationConfig) -> None:
    other = [
        f"{name} {value}"
        for name in _NOT_OURS
        if (value := getattr(config, name, None)) not in (None, 0, 1) and (name, value) != ("top_k", 50)
    ]
    if other:
        say(f"generation_config of the base model: {', '.join(other)} not used; the recipe or request says how to draw")


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
