"""The base model with all injected prompts as instructions: what prompting alone reaches."""

from __future__ import annotations

import json
from pathlib import Path

from mocae.errors import ConfigError
from mocae.models import Generator, PlainModel
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems.base import System

__all__ = ["PromptOnly"]


class PromptOnly(System):
    """The base model, every prompt behind the injected prompts of all axes; nothing is trained."""

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the instruction, `prompt.json`."""
        injection = " ".join(axis.injection for axis in run.recipe.axes)

        def make(folder: Path) -> None:
            (folder / "prompt.json").write_text(json.dumps({"injection": injection}) + "\n", encoding="utf-8")

        return {"prompt": run.store.stage(f"prompt/{self.folder}", {"injection": injection}, make)}

    def load(self, made: Made) -> Generator:
        """Return the base model with the instruction in front of every prompt."""
        return PlainModel(made.base, injection=str(made.record("prompt", "prompt.json")["injection"]))

    def export_names(self) -> tuple[str, ...] | None:
        """Refuse: there is nothing but a prompt."""
        raise ConfigError(
            f"{self.name!r} cannot be exported: it is the base model behind an instruction; give that to the other "
            "software as its system prompt (prompt.json in the run's folder has it)"
        )
