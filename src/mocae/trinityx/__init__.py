"""TrinityX: experts in the feed-forward blocks, mixed for every token by a router trained with the LM loss."""

from mocae.trinityx.mixture import TrinityXMixture, feed_forward_blocks, routed
from mocae.trinityx.router import TrinityXRouter
from mocae.trinityx.training import LossWeights, gating_loss, train_router

__all__ = [
    "LossWeights",
    "TrinityXMixture",
    "TrinityXRouter",
    "feed_forward_blocks",
    "gating_loss",
    "routed",
    "train_router",
]
