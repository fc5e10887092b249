"""What a run is made of, stage by stage: the store, the data, training, features, outcomes and answers."""

from __future__ import annotations

from mocae.stages.answers import Answered, read_answers
from mocae.stages.fitting import acceptable_by_prompt
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage, Store

__all__ = ["Answered", "Made", "Run", "Stage", "Store", "acceptable_by_prompt", "read_answers"]
