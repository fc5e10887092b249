"""Several judges, one verdict: the majority of those that gave one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mocae.errors import ConfigError
from mocae.judges.base import Judge, JudgeQuality, Says, build_judge, reach_all, sayings
from mocae.types import Answer, Verdict

__all__ = ["VotingJudge", "voting_judge"]


class VotingJudge:
    """Judges by vote: each judge says yes (score of one half or more) or no, the score is the share of yes.

    A judge whose verdict is unscored has no vote; fewer votes than `quorum`, or as many yes as no, is unscored. In
    comparisons ("win") a draw or a flip, one half, is half a vote, and a tie is a draw. The label tells the votes ("2
    of 3"), `raw` each judge's verdict.

    Args:
        judges: at least two.
        quorum: votes needed; None: more than half of the judges.

    Raises:
        ConfigError: fewer than two judges, or a quorum that cannot be reached.
    """

    quality: JudgeQuality | None = None

    def __init__(self, judges: Sequence[Judge], *, quorum: int | None = None) -> None:
        if len(judges) < 2:
            raise ConfigError(f"judge 'vote': got {len(judges)} judges; expected at least two")
        needed = len(judges) // 2 + 1 if quorum is None else quorum
        if not 1 <= needed <= len(judges):
            raise ConfigError(f"judge 'vote': quorum is {needed}; expected 1 to {len(judges)}")
        self._judges = judges
        self._quorum = needed
        self.name = f"vote({', '.join(judge.name for judge in judges)})"
        self.asks_server = any(getattr(judge, "asks_server", False) for judge in judges)
        self.judgements = tuple(dict.fromkeys(name for judge in judges for name in judge.judgements))

    def reach(self) -> None:
        """Do nothing where the endpoints that are asked are there."""
        reach_all(self._judges)

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return the vote on each answer, for every judgement any of the judges gave."""
        judged = [judge.judge(answers) for judge in self._judges]
        return [self._vote([rows[i] for rows in judged]) for i in range(len(answers))]

    def _vote(self, rows: Sequence[Mapping[str, Verdict]]) -> dict[str, Verdict]:
        return {
            name: self._count([verdicts[name] for verdicts in rows if name in verdicts], comparison=name == "win")
            for name in self.judgements
            if any(name in verdicts for verdicts in rows)
        }

    def _count(self, verdicts: Sequence[Verdict], *, comparison: bool) -> Verdict:
        scores = [verdict.score for verdict in verdicts if verdict.score is not None]
        yes = sum(0.5 if comparison and score == 0.5 else score >= 0.5 for score in scores)
        raw = "\n".join(f"{v.judge}: {'unscored' if v.score is None else f'{v.score:.3g}'} {v.label}" for v in verdicts)
        seconds = sum(verdict.seconds for verdict in verdicts)
        label = f"{yes:g} of {len(scores)}"
        if len(scores) < self._quorum or (2 * yes == len(scores) and not (comparison and scores)):
            return Verdict(None, f"unscored: {label}", self.name, raw, seconds)
        return Verdict(yes / len(scores), label, self.name, raw, seconds)


def voting_judge(
    *,
    judges: list[dict[str, Any]],
    quorum: int | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    exclude_prompts: Collection[str] = (),
) -> VotingJudge:
    """Return a vote of judges that are named with their options, as in a recipe.

    Args:
        judges: [{"judge": name, "options": {...}}, ...].
        quorum: votes needed; None: more than half.
        data_root: folder that relative paths among their options start from.
        seed: for judges that learn.
        exclude_prompts: identities of prompts no judge may have learned from.

    Raises:
        ConfigError: an entry of another form, or see `VotingJudge`.
        PluginError: no such judge.
    """
    built = []
    for entry in judges:
        if not isinstance(entry.get("judge"), str) or not entry.keys() <= {"judge", "options"}:
            raise ConfigError(f"judge 'vote': got {sorted(entry)}; each entry has 'judge' and may have 'options'")
        built.append(
            build_judge(
                entry["judge"],
                entry.get("options") or {},
                data_root=data_root,
                seed=seed,
                exclude_prompts=exclude_prompts,
            )
        )
    return VotingJudge(built, quorum=quorum)


def _says(*, judges: Sequence[Mapping[str, Any]], data_root: Path | None = None, **_: Any) -> Says | None:
    made = [sayings(entry["judge"], entry.get("options") or {}, data_root=data_root) for entry in judges]
    known = [says for says in made if says is not None]
    return (lambda example: {name for says in known for name in says(example)}) if len(known) == len(made) else None


voting_judge.says = _says  # type: ignore[attr-defined]
