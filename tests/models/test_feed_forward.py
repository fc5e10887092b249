from __future__ import annotations

import pytest
from torch import nn

from mocae.errors import ModelMismatchError
from mocae.models import decoder_layers, feed_forward
from tiny import tiny_llama


def test_the_feed_forward_block_is_the_one_beside_attention() -> None:
    model = tiny_llama(layers=1)
    layer = decoder_layers(model)[0]
    assert feed_forward(layer) is layer.get_submodule("mlp")
    layer.other = nn.Linear(2, 2)
    with pytest.raises(ModelMismatchError, match=r"no single feed-forward block .*found: mlp, other\)"):
        feed_forward(layer)
    with pytest.raises(ModelMismatchError, match=r"ReLU has no single feed-forward block .*found: none"):
        feed_forward(nn.ReLU())
