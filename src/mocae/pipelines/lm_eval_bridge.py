"""lm-eval on an artifact: `--model mocae`.

    python -m mocae.pipelines.lm_eval_bridge run --model mocae --model_args path=out/pocket --tasks TASK

is lm-eval's own command line with one more model. In Python, `register()` makes the name known, and
`model_class()(model=...)` wraps anything that generates. lm-eval is optional: pip install 'mocae[bridge]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mocae.errors import ConfigError
from mocae.prompts import chat_text

__all__ = ["main", "model_class", "register"]

_MAX_NEW_TOKENS = 256


@cache
def model_class() -> type[Any]:
    """Return the class lm-eval makes for `--model mocae`; it exists only where lm-eval is installed.

    Its arguments: `path`, the folder of an artifact, or `model`, a `mocae.models.Generator`; `system`,
    the name of a system in place of the default; `batch_size` for generation; `device`. The router reads the context of
    every request; contexts are taken as lm-eval writes them, without a prompt format.

    Raises:
        ConfigError: lm-eval is not installed.
    """
    try:
        from lm_eval import utils
        from lm_eval.api.model import TemplateLM
    except ModuleNotFoundError as error:
        raise ConfigError("lm-eval is not installed; run: pip install 'mocae[bridge]'") from error

    class MocaeLM(TemplateLM):  # type: ignore[misc]  # lm-eval ships no types
        backend = "causal"

        def __init__(
            self,
            path: str | None = None,
            *,
            model: Any = None,
            system: str | None = None,
            batch_size: int | str | None = 8,
            device: str | None = None,
            **_: Any,  # lm-eval passes its own settings (max_batch_size) to every model
        ) -> None:
            super().__init__()
            if (path is None) is (model is None):
                raise ConfigError("model 'mocae': give path=FOLDER of an artifact, or a model; one of them")
            self._model: Any = model if path is None else _opened(path, system, device)
            self._base = self._model.base
            self._rows = int(batch_size) if batch_size is not None and str(batch_size).isdecimal() else 8

        @property
        def eot_token_id(self) -> int:
            return int(self._base.tokenizer.eos_token_id)

        @property
        def prefix_token_id(self) -> int:
            begin = self._base.tokenizer.bos_token_id
            return self.eot_token_id if begin is None else int(begin)

        @property
        def max_length(self) -> int:
            return int(self._base.description.context)

        @property
        def tokenizer_name(self) -> str:
            return str(self._base.tokenizer.name_or_path).replace("/", "__")

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return chat_text(self._base.tokenizer, chat_history, answer_next=add_generation_prompt)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            more = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
            ids: list[int] = self._base.tokenizer(string, **more).input_ids
            return ids

        def _loglikelihood_tokens(
            self, requests: Any, disable_tqdm: bool = False, **_: Any
        ) -> list[tuple[float, bool]]:
            return _log_likelihoods(self._model, [(list(c), list(t)) for _, c, t in requests])

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            totals = []
            for (text,) in (request.args for request in requests):
                windows = map(
                    utils.make_disjoint_window,
                    utils.get_rolling_token_windows(
                        token_list=self.tok_encode(text),
                        prefix_token=self.prefix_token_id,
                        max_seq_len=self.max_length,
                        context_len=1,
                    ),
                )
                pairs = [(list(head), list(tail)) for head, tail in windows]
                totals.append(sum(value for value, _ in _log_likelihoods(self._model, pairs)))
            return totals

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            asked = [(request.args[0], dict(request.args[1])) for request in requests]
            order = sorted(range(len(asked)), key=lambda i: (repr(sorted(asked[i][1].items())), len(asked[i][0])))
            answers: dict[int, str] = {}
            start = 0
            while start < len(order):
                settings = asked[order[start]][1]
                some = [i for i in order[start : start + self._rows] if asked[i][1] == settings]
                contexts = [asked[i][0] for i in some]
                answers |= dict(zip(some, _generated(self._model, contexts, settings), strict=True))
                start += len(some)
            return [answers[i] for i in range(len(asked))]

    return MocaeLM


def register() -> None:
    """Make `--model mocae` known to lm-eval in this process; calling it again changes nothing.

    Raises:
        ConfigError: lm-eval is not installed.
    """
    made = model_class()
    from lm_eval.api.registry import register_model

    register_model("mocae")(made)


def main() -> None:
    """Run lm-eval's command line with the model `mocae` in it."""
    register()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


def _opened(path: str, system: str | None, device: str | None) -> Any:
    """Return the model of a system of an artifact."""
    from mocae.pipelines.artifact import load

    return load(Path(path), system=system, device=device).model


def _log_likelihoods(model: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    """Return log-likelihood and greediness of each pair of tokens; equal contexts are read once."""
    tails: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
    for head, tail in pairs:
        tails.setdefault(tuple(head), {}).setdefault(tuple(tail), len(tails[tuple(head)]))
    scored = model.log_probs([list(head) for head in tails], [[list(tail) for tail in of] for of in tails.values()])
    rows = dict(zip(tails, scored, strict=True))
    found = [rows[tuple(head)][tails[tuple(head)][tuple(tail)]] for head, tail in pairs]
    return [(score.log_prob, score.is_greedy) for score in found]


def _generated(model: Any, contexts: Sequence[str], settings: dict[str, Any]) -> list[str]:
    """Return the text after each context, cut at the first stop text."""
    base = model.base
    until = settings.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    n = int(settings.get("max_gen_toks", _MAX_NEW_TOKENS))
    room = max(1, base.description.context - n)
    batch = base.tokenizer(
        list(contexts), return_tensors="pt", padding=True, truncation=False, return_token_type_ids=False
    ).to(base.model.device)
    ids, mask = batch["input_ids"][:, -room:], batch["attention_mask"][:, -room:]
    sampling = {
        key: settings[key] for key in ("temperature", "top_p", "top_k") if settings.get("do_sample") and key in settings
    }
    stopping = {"stop_strings": stops, "tokenizer": base.tokenizer} if stops else {}
    generated = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=n,
        do_sample=bool(settings.get("do_sample", False)),
        **sampling,
        **stopping,
    )
    texts = []
    for row in generated.ids[:, ids.shape[1] :].tolist():
        text = str(base.tokenizer.decode(row[: base.description.length(row)], skip_special_tokens=True))
        for stop in filter(None, stops):
            text = text.split(stop)[0]
        texts.append(text)
    return texts


if __name__ == "__main__":
    main()
