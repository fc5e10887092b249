"""Base models: loading them, the number format they run in, and where a layer sits in the Transformer."""

from mocae.models.continuations import Continuation, continuation_scores
from mocae.models.description import BaseDescription, describe
from mocae.models.entering import StopForward, at_layer, layer_inputs
from mocae.models.feed_forward import feed_forward, feed_forward_name
from mocae.models.find import BASE_MODELS, find_base, is_cached
from mocae.models.generator import BaseGenerator, Generated, Generator, PlainModel, Sureness, Trace
from mocae.models.layers import context_length, count_tokens, decoder_layers, layer_index, linear_groups
from mocae.models.load import LoadedBase, base_fingerprint, load_base, load_recorded, without_library_bars
from mocae.models.logits import EachRow, LogitsSettings
from mocae.models.precision import pick_device, pick_dtype
from mocae.models.quantization import QUANTIZATIONS
from mocae.models.resume import Beginning, can_resume, resumed
from mocae.models.shard import is_sharded, reshard, shard
from mocae.models.steps import GateTraining, LabelledRow, Steps, batch_of, encode_rows, take_steps
from mocae.models.twins import Twins

__all__ = [
    "BASE_MODELS",
    "QUANTIZATIONS",
    "BaseDescription",
    "BaseGenerator",
    "Beginning",
    "Continuation",
    "EachRow",
    "GateTraining",
    "Generated",
    "Generator",
    "LabelledRow",
    "LoadedBase",
    "LogitsSettings",
    "PlainModel",
    "Steps",
    "StopForward",
    "Sureness",
    "Trace",
    "Twins",
    "at_layer",
    "base_fingerprint",
    "batch_of",
    "can_resume",
    "context_length",
    "continuation_scores",
    "count_tokens",
    "decoder_layers",
    "describe",
    "encode_rows",
    "feed_forward",
    "feed_forward_name",
    "find_base",
    "is_cached",
    "is_sharded",
    "layer_index",
    "layer_inputs",
    "linear_groups",
    "load_base",
    "load_recorded",
    "pick_device",
    "pick_dtype",
    "reshard",
    "resumed",
    "shard",
    "take_steps",
    "without_library_bars",
]
