"""The bank: LoRA experts stacked on one base model, mixed by weights that may differ for every row and token."""

from mocae.bank.adapters import LoraPair, LoraWeights, load_peft, save_peft
from mocae.bank.bank import ExpertBank
from mocae.bank.combine import Truncated, combine, padded, truncate
from mocae.bank.merged import LONG_ANSWER_TOKENS, Mode, refuse_unmergeable, same_for_all, swapped

__all__ = [
    "LONG_ANSWER_TOKENS",
    "ExpertBank",
    "LoraPair",
    "LoraWeights",
    "Mode",
    "Truncated",
    "combine",
    "load_peft",
    "padded",
    "refuse_unmergeable",
    "same_for_all",
    "save_peft",
    "swapped",
    "truncate",
]
