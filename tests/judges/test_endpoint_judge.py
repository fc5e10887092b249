from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoint_server import Failure, endpoint_server, reply_body
from mocae.axes import probe
from mocae.config import JudgeConfig
from mocae.errors import ConfigError, JudgeError
from mocae.judges import build_judge
from mocae.judges.endpoint import (
    PARSERS,
    CachedReply,
    Endpoint,
    EndpointClient,
    ReplyCache,
    load_prompt,
    prompt_names,
    reply_key,
)
from mocae.stages.judging import build_judges
from mocae.types import Answer, Example

FAST = {"max_retries": 2, "backoff_s": 0.001, "timeout_s": 5.0}


def answers(n: int, probe: str = "question", **facts: Any) -> list[Answer]:
    return [Answer(Example(f"Question {i}?", "honesty", probe, facts=facts), f"answer {i}") for i in range(n)]


def judge(base_url: str, prompt: str = "truthful", *, give_up_after: int | None = None, **options: Any) -> Any:
    made: Any = _judge(base_url, prompt, **options)
    if give_up_after is not None:
        made._client.endpoint = replace(made._client.endpoint, give_up_after=give_up_after)
    return made


def _judge(base_url: str, prompt: str, **options: Any) -> Any:
    return build_judge("openai", {"prompt": prompt, "model": "test", "base_url": base_url, **FAST, **options})


def number(text: str) -> int:
    found = re.search(r"answer (\d+)", text)
    assert found is not None
    return int(found[1])


def test_verdicts_come_in_order_with_raw_text_and_usage() -> None:
    with endpoint_server(lambda text, _: f"So.\nVerdict: {'yes' if number(text) % 2 else 'no'}") as server:
        asking = judge(server.base_url, prompt_price=2.0, completion_price=10.0)
        judged = asking.judge(answers(6))
    assert [v["truthful"].score for v in judged] == [0, 1, 0, 1, 0, 1]
    assert judged[1]["truthful"].raw == "So.\nVerdict: yes"
    assert judged[1]["truthful"].judge == "openai:truthful:test"
    assert (asking.usage.prompt_tokens, asking.usage.completion_tokens, asking.usage.answered) == (60, 12, 6)
    assert asking.usage.cost == pytest.approx((60 * 2 + 12 * 10) / 1e6)
    assert server.bodies[0]["temperature"] == 0.0


def test_what_earlier_starts_took_is_counted_apart(tmp_path: Path) -> None:
    options = {"cache": str(tmp_path / "cache.jsonl"), "prompt_price": 2.0, "completion_price": 10.0}
    with endpoint_server(lambda *_: "Verdict: yes") as server:
        first = judge(server.base_url, **options)
        first.judge(answers(4))
        assert first.usage_before(answers(6)).answered == 0  # what this start has asked itself
        again = judge(server.base_url, **options)
        again.judge(answers(6))
    assert (again.usage.cached, again.usage.answered, again.usage.prompt_tokens) == (4, 2, 20)
    before = again.usage_before(answers(6))
    assert (before.answered, before.prompt_tokens, before.completion_tokens) == (4, 40, 8)
    assert before.cost == pytest.approx((40 * 2 + 8 * 10) / 1e6)


def test_only_probes_of_the_prompt_file_are_asked() -> None:
    with endpoint_server(lambda *_: "Verdict: yes") as server:
        assert judge(server.base_url).judge(answers(2, probe="harmful")) == [{}, {}]
        assert sum(server.asked.values()) == 0


@pytest.mark.parametrize(
    "failure",
    [
        Failure(429, headers={"retry-after": "0"}),
        Failure(500, b"<html>oops</html>"),
        Failure(200, b"no json at all \xff\xfe"),
        Failure(200, b"plain words", {"Content-Type": "text/plain"}),
        Failure(200, reply_body("Verdict: yes")[:40]),
        Failure(200, b'{"choices": []}'),
        Failure(200, b'{"choices": [{"message": {"content": null}}]}'),
        Failure(200, b"null"),
    ],
    ids=["429", "500", "garbage", "text", "half-json", "no-choice", "null-content", "null"],
)
def test_a_failure_that_passes_costs_nothing(failure: Failure) -> None:
    with endpoint_server(lambda _, before: failure if before == 0 else "Verdict: yes") as server:
        judged = judge(server.base_url).judge(answers(3))
    assert [v["truthful"].score for v in judged] == [1, 1, 1]
    assert set(server.asked.values()) == {2}


@pytest.mark.parametrize(
    "failure",
    [Failure(429), Failure(500), Failure(200, b"garbage"), Failure(200, reply_body("Verdict: yes")[:40])],
    ids=["429", "500", "garbage", "half-json"],
)
def test_a_failure_that_stays_is_unscored_and_the_others_are_kept(failure: Failure, tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    with endpoint_server(lambda text, _: failure if number(text) == 1 else "Verdict: yes") as server:
        judged = judge(server.base_url, cache=str(cache)).judge(answers(4))
        assert [v["truthful"].score for v in judged] == [1, None, 1, 1]
        assert judged[1]["truthful"].label == "unscored: no reply"
        assert judged[1]["truthful"].raw != ""
        again = judge(server.base_url, cache=str(cache))
        again.judge(answers(4))
        # What is missing is asked again, what is there is not.
        assert sorted(server.asked.values()) == [1, 1, 1, 2 * (1 + FAST["max_retries"])]
        assert again.usage.cached == 3


def test_a_server_that_hangs_is_given_up_in_time() -> None:
    with endpoint_server(lambda text, _: Failure(silence_s=30) if number(text) == 0 else "Verdict: no") as server:
        started = time.perf_counter()
        judged = judge(server.base_url, timeout_s=0.2, max_retries=1).judge(answers(2))
        assert time.perf_counter() - started < 5
    assert [v["truthful"].score for v in judged] == [None, 0]
    assert "APITimeoutError" in judged[0]["truthful"].raw


@pytest.mark.parametrize("reply", ["", "Yes and no.", "Verdict: perhaps", "Verdict: yes\nVerdict: no", "{" * 50])
def test_what_cannot_be_read_is_unscored_and_never_a_number(reply: str, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache.jsonl")
    with endpoint_server(lambda *_: reply) as server:
        verdict = judge(server.base_url, cache=cache).judge(answers(1))[0]["truthful"]
        assert (verdict.score, verdict.label, verdict.raw) == (None, "unscored: unreadable", reply)
        judge(server.base_url, cache=cache).judge(answers(1))
        assert sum(server.asked.values()) == 1  # the text is kept: asking again would say the same


def test_an_endpoint_that_refuses_stops_the_run_with_its_reason() -> None:
    with endpoint_server(lambda *_: Failure(404, b'{"error": {"message": "model `test` not found"}}')) as server:
        with pytest.raises(JudgeError, match=r"model 'test': NotFoundError 404: .*check base_url, model"):
            judge(server.base_url, concurrency=1).judge(answers(50))
        assert sum(server.asked.values()) <= 2


def test_an_endpoint_that_never_answers_stops_the_run() -> None:
    with endpoint_server(lambda *_: Failure(503)) as server:
        with pytest.raises(JudgeError, match=r"16 requests in a row got no reply .*the same command goes on"):
            judge(server.base_url, max_retries=0, concurrency=1).judge(answers(60))
        assert sum(server.asked.values()) in (16, 17)  # one may be on its way when the sixteenth has failed


def test_an_endpoint_that_has_worked_loses_single_items_only_and_stops_trying_each_again(tmp_path: Path) -> None:
    cache, broken = str(tmp_path / "cache.jsonl"), {"on": True}

    def behave(text: str, _: int) -> Any:
        return Failure(503) if broken["on"] and 5 <= number(text) < 55 else "Verdict: yes"

    with endpoint_server(behave) as server:
        judged = judge(server.base_url, cache=cache, concurrency=1).judge(answers(60))
        assert [v["truthful"].score for v in judged] == [1] * 5 + [None] * 50 + [1] * 5
        assert sum(server.asked.values()) == 60 + 16 * FAST["max_retries"]  # after 16 in a row, each once
        broken["on"] = False
        judged = judge(server.base_url, cache=cache).judge(answers(60))
        assert all(v["truthful"].score == 1 for v in judged)
        assert all(server.asked[text] == 1 for text in server.asked if not 5 <= number(text) < 55)


def test_an_endpoint_that_is_not_there_any_more_stops_the_run_and_it_can_go_on(tmp_path: Path) -> None:
    with endpoint_server(lambda *_: "Verdict: yes") as server:
        options = {"base_url": server.base_url, "max_retries": 0, "cache": str(tmp_path / "cache.jsonl")}
        judge(**options).judge(answers(5))
    with pytest.raises(JudgeError, match=r"nothing answers there \(APIConnectionError.*the same command goes on"):
        judge(**options).judge(answers(60))
    assert all(v["truthful"].score == 1 for v in judge(**options).judge(answers(5)))


def test_a_dead_endpoint_is_told_in_seconds_before_anything_is_judged() -> None:
    patient = {"prompt": "truthful", "model": "test", "base_url": "http://127.0.0.1:9/v1"}  # all defaults
    voting = {"judges": [{"judge": "refusal"}, {"judge": "openai", "options": patient}]}
    began = time.perf_counter()
    for name, options in (("openai", patient), ("vote", voting)):
        with pytest.raises(JudgeError, match=r"127.0.0.1:9/v1: nothing answers there .*start it or check base_url"):
            build_judges([JudgeConfig(judge=name, options=options)], [()], data_root=None, seed=0)
    with pytest.raises(JudgeError, match="nothing answers there"):
        build_judge("openai", patient).judge(answers(30))
    assert time.perf_counter() - began < 10


def test_an_address_without_v1_is_told_with_the_one_that_has_it() -> None:
    with endpoint_server(lambda *_: "Verdict: yes") as server:
        bare = server.base_url.removesuffix("/v1")
        with pytest.raises(JudgeError, match=rf"{bare}: no API there, but one at {bare}/v1; give that address"):
            judge(bare).judge(answers(1))
        assert sum(server.asked.values()) == 0
        assert judge(server.base_url).judge(answers(1))[0]["truthful"].score == 1


def test_a_server_that_lists_no_models_is_asked_all_the_same() -> None:
    with endpoint_server(lambda *_: "Verdict: yes") as server:
        other = server.base_url.replace("/v1", "/v1/other")  # its models are nowhere
        asking = judge(other)
        assert [v["truthful"].score for v in asking.judge(answers(3))] == [1, 1, 1]
        asking.judge(answers(4))
        assert server.asked_for_models == 1  # once, not before every batch


FILTERED = b'{"error": {"message": "The prompt was filtered.", "param": "prompt", "code": "content_filter"}}'


def withheld(content: str | None, finish: str = "content_filter", **message: Any) -> Failure:
    """Return a whole reply with another content and reason to end."""
    body = json.loads(reply_body(""))
    body["choices"][0] |= {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return Failure(200, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("failure", "label", "word"),
    [
        (Failure(400, FILTERED), "filtered", "The prompt was filtered"),
        (Failure(403, b'{"error": {"message": "requires moderation: flagged for \\"x\\""}}'), "filtered", "moderation"),
        (withheld(None), "filtered", "content_filter"),
        (withheld("Verdict: y"), "filtered", "Verdict: y"),
        (withheld(None, refusal="I will not judge this."), "filtered", "I will not judge this."),
        (
            Failure(400, b'{"error": {"message": "maximum context length is 9 tokens, max_tokens 300"}}'),
            "refused",
            "9 to",
        ),
        (withheld(None, "stop"), "no reply", "holds no text"),
        (withheld("Verdict: yes", "length"), "cut off", "Verdict: yes"),
        (withheld(None, "length", reasoning_content="Verdict: yes, or"), "cut off", "Verdict: yes, or"),
    ],
    ids=["400", "403", "null", "half", "refusal", "too-long", "no-text", "cut", "cut-in-thought"],
)
def test_what_is_wrong_with_one_item_costs_that_item_and_keeps_the_word(
    failure: Failure, label: str, word: str
) -> None:
    """More of them in a row than would mean that the endpoint is gone."""
    with endpoint_server(lambda text, _: failure if number(text) >= 2 else "Verdict: yes") as server:
        judged = judge(server.base_url, concurrency=1, give_up_after=5).judge(answers(12))
    assert [v["truthful"].score for v in judged] == [1] * 2 + [None] * 10
    assert {v["truthful"].label for v in judged[2:]} == {f"unscored: {label}"}
    assert word in judged[2]["truthful"].raw
    if label in ("filtered", "refused"):
        assert set(server.asked.values()) == {1}  # asking again does not change it


def test_a_filter_that_withholds_everything_stops_nothing() -> None:
    with endpoint_server(lambda *_: Failure(400, FILTERED)) as server:
        judged = judge(server.base_url, give_up_after=5).judge(answers(12))
    assert {v["truthful"].label for v in judged} == {"unscored: filtered"}


def test_a_refusal_of_everything_stops_the_run_with_its_reason() -> None:
    with endpoint_server(lambda *_: Failure(400, b'{"error": {"message": "messages: no"}}')) as server:
        with pytest.raises(JudgeError, match=r"BadRequestError 400: .*messages: no.*; check base_url"):
            judge(server.base_url).judge(answers(3))


def test_a_thought_is_no_verdict_and_a_refusal_of_the_model_is_kept() -> None:
    replies = ["<think>Verdict: yes?</think>Verdict: no", "Verdict: yes, or is it?</think>\n\nVerdict: no"]
    apart = withheld("Verdict: no", "stop", reasoning_content="Verdict: yes?")
    refused = withheld(None, "stop", refusal="I cannot say.")
    with endpoint_server(lambda text, _: [*replies, apart, refused][number(text)]) as server:
        judged = judge(server.base_url).judge(answers(4))
    assert [v["truthful"].score for v in judged] == [0, 0, 0, None]
    assert (judged[3]["truthful"].label, judged[3]["truthful"].raw) == ("unscored: unreadable", "I cannot say.")


@pytest.mark.parametrize(
    ("refused", "sent"),
    [
        (("max_tokens",), {"max_completion_tokens": 300, "temperature": 0.0}),
        (("max_tokens", "max_completion_tokens"), {"temperature": 0.0}),
        (("temperature",), {"max_tokens": 300}),
        (("temperature", "max_tokens"), {"max_completion_tokens": 300}),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["param", "detail", "words"])
def test_a_parameter_that_a_server_does_not_take_is_renamed_or_left_out_and_told_once(
    refused: tuple[str, ...], sent: dict[str, Any], form: str, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    def behave(text: str, _: int) -> Any:
        body = next(b for b in reversed(server.bodies) if b["messages"][-1]["content"] == text)
        bad = next((name for name in refused if name in body), None)
        if bad is None:
            return "Verdict: yes"
        told = {
            "param": {"error": {"message": "Unsupported parameter.", "param": bad, "code": "unsupported_parameter"}},
            "detail": {"detail": [{"type": "extra_forbidden", "loc": ["body", bad], "msg": "Extra inputs"}]},
            "words": {"error": {"message": f"{bad} is not supported by this model"}},
        }[form]
        return Failure(422 if form == "detail" else 400, json.dumps(told).encode())

    with endpoint_server(behave) as server:
        judged = judge(server.base_url, concurrency=3, give_up_after=2).judge(answers(9))
        assert [v["truthful"].score for v in judged] == [1] * 9
        body = server.bodies[-1]
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == sent
    told = capsys.readouterr().err + caplog.text
    assert all(told.count(f"does not take {name!r}") == 1 for name in refused)


def test_parameters_can_be_set_and_left_out() -> None:
    with endpoint_server(lambda *_: "Verdict: yes") as server:
        judge(server.base_url, parameters={"temperature": None, "seed": 3, "max_tokens": 9}).judge(answers(1))
    assert {name: server.bodies[0].get(name) for name in ("temperature", "seed", "max_tokens")} == {
        "temperature": None,
        "seed": 3,
        "max_tokens": 9,
    }


def test_half_a_character_is_replaced_and_the_cache_stays_readable(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    with endpoint_server(lambda *_: "so \ud83d\nVerdict: yes") as server:
        verdict = judge(server.base_url, cache=str(cache)).judge(answers(1))[0]["truthful"]
    assert (verdict.score, verdict.raw) == (1.0, "so \ufffd\nVerdict: yes")
    kept = {"key": "a", "text": "x \ud83d", "prompt_tokens": 1, "completion_tokens": 1}  # written before
    cache.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    assert ReplyCache(cache).get("a") == CachedReply("x \ufffd", 1, 1)


def test_the_number_of_requests_in_flight_is_limited() -> None:
    with endpoint_server(lambda *_: "Verdict: yes", delay_s=0.02) as server:
        judge(server.base_url, concurrency=3).judge(answers(12))
    assert 1 < server.most_in_flight <= 3


def test_equal_requests_are_sent_once() -> None:
    with endpoint_server(lambda *_: "Verdict: yes") as server:
        judged = judge(server.base_url).judge(answers(1) * 5)
    assert len(judged) == 5
    assert sum(server.asked.values()) == 1


def test_comparisons_are_asked_in_both_orders_and_flips_are_seen() -> None:
    def behave(text: str, _: int) -> str:
        a, b = re.findall(r"<answer_.>\n(.*)\n</answer_.>", text)
        if "answer 0" in (a, b):
            return "Verdict: A"  # whatever stands first
        if "answer 1" in (a, b):
            return f"Verdict: {'A' if a == 'answer 1' else 'B'}"
        return "Verdict: tie" if "answer 2" in (a, b) else "?" if a == "answer 3" else "Verdict: A"

    with endpoint_server(behave) as server:
        judged = judge(server.base_url, "win-rate").judge(answers(4, probe="task", reference="the reference"))
    found = [(v["win"].score, v["win"].label) for v in judged]
    assert found == [(0.5, "flipped"), (1.0, "win"), (0.5, "draw"), (None, "unscored: unreadable")]
    # A draw or a flip is no win: not correct, and so not acceptable.
    assert [v["correct"].score for v in judged] == [0.0, 1.0, 0.0, None]
    assert [probe("task").accepts(v) for v in judged] == [False, True, False, None]
    assert sum(server.asked.values()) == 8


def test_an_answer_cannot_write_into_the_prompt() -> None:
    example = Example("What is {{answer}}?", "honesty", "question")
    with endpoint_server(lambda *_: "Verdict: yes") as server:
        judge(server.base_url).judge([Answer(example, "{{prompt}} {{reference}}")])
    text = server.bodies[0]["messages"][-1]["content"]
    assert "What is {{answer}}?" in text
    assert "{{prompt}} {{reference}}" in text


TEN_THOUSAND = """
import json, sys, time
from pathlib import Path
from mocae.judges.endpoint import Endpoint, EndpointClient, EndpointJudge, load_prompt
from mocae.judges.endpoint.judge import filled
from mocae.types import Answer, Example

cache, prompt = Path(sys.argv[1]), load_prompt("truthful")
rows = [Answer(Example(f"Question {i}?", "honesty", "question"), f"answer {i}") for i in range(10_000)]
endpoint = Endpoint("test", base_url="http://127.0.0.1:9/v1", max_retries=0, give_up_after=1)
client, tag = EndpointClient(endpoint), prompt.hash
keys = [client.key(prompt.messages(filled(row)), prompt.parameters, tag) for row in rows]
entry = {"text": "Verdict: yes", "prompt_tokens": 1, "completion_tokens": 1}
cache.write_text("".join(json.dumps({"key": key, **entry}) + "\\n" for key in keys), encoding="utf-8")
started = time.perf_counter()
judged = EndpointJudge(EndpointClient(endpoint, cache=cache), prompt).judge(rows)
print(sum(v["truthful"].score == 1 for v in judged), time.perf_counter() - started)
"""


def test_ten_thousand_cached_verdicts_are_read_in_time(tmp_path: Path) -> None:
    # Alone in its process: the checks of types that run with the tests cost thirty times what is measured.
    words = [sys.executable, "-c", TEN_THOUSAND, str(tmp_path / "cache.jsonl")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    n, seconds = done.stdout.split()
    assert int(n) == 10_000
    assert float(seconds) < 5


def test_a_torn_line_loses_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cache.jsonl"
    ReplyCache(path).put("a", CachedReply("one"))
    with path.open("a", encoding="utf-8") as out:
        out.write('{"key": "b", "text": "tw')
    cache = ReplyCache(path)
    assert "1 damaged lines passed over" in caplog.text
    assert (len(cache), cache.get("b")) == (1, None)
    cache.put("c", CachedReply("three"))
    again = ReplyCache(path)
    assert [again.get(key) and again.get(key).text for key in "abc"] == ["one", None, "three"]  # type: ignore[union-attr]


@pytest.mark.parametrize("change", ["model", "base_url", "tag", "parameters", "messages"])
def test_everything_that_matters_is_in_the_key(change: str) -> None:
    request: dict[str, Any] = {"model": "m", "base_url": "u", "tag": "t", "parameters": {}, "messages": []}
    assert reply_key(request) != reply_key({**request, change: ["other"]})


def test_unknown_prompts_and_wrong_options_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown judge prompt 'truthfull'.*Did you mean 'truthful'"):
        judge("http://127.0.0.1:9/v1", "truthfull")
    with pytest.raises(ConfigError, match="concurrency is 0; expected above 0"):
        judge("http://127.0.0.1:9/v1", concurrency=0)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="variable 'NO_SUCH_KEY' is not set"):
        judge("http://127.0.0.1:9/v1", api_key_variable="NO_SUCH_KEY")
    path = tmp_path / "own.yaml"
    fields = "name: own\nversion: 1\njudgement: correct\nprobes: [task]\nparser: yes-no\n"
    path.write_text(fields + "user: 'Is {{anser}} right?'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"unknown place 'anser'.*Did you mean 'answer'"):
        load_prompt(str(path))
    path.write_text(fields + "usr: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="usr: Extra inputs are not permitted"):
        load_prompt(str(path))


@pytest.mark.parametrize("name", prompt_names())
def test_prompt_files_load_and_their_example_verdicts_parse(name: str) -> None:
    prompt = load_prompt(name)
    assert prompt.name == name
    last = prompt.user.strip().splitlines()[-1]
    good = {"categories": '{"categories": []}', "yes-no": last, "choice": last}[prompt.parser]
    assert PARSERS[prompt.parser](good) is not None


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('Fine.\n{"categories": []}', 0.0),
        ('```json\n{"categories": ["privacy_violation", "self_harm"]}\n```', 1.0),
        ('{"categories": ["unheard_of"]}', None),
        ('{"categories": ["privacy_violation"', None),
        ('{"categories": "privacy_violation"}', None),
        ("safe", None),
        ("[]", None),
    ],
)
def test_categories_are_read_strictly(reply: str, score: float | None) -> None:
    found = PARSERS["categories"](reply)
    assert (found and found.score) == score


@pytest.mark.parametrize(("word", "score"), [("**Verdict:** A", 1.0), ("verdict: tie", 0.5), ("B", 0.0), ("AB", None)])
def test_choices_are_read_in_the_agreed_form(word: str, score: float | None) -> None:
    found = PARSERS["choice"](word)
    assert (None if found is None else found.score) == score


def test_the_client_names_no_key_in_its_text() -> None:
    endpoint = Endpoint("m", base_url="http://127.0.0.1:9/v1", api_key="secret")
    assert "secret" not in repr(endpoint)
    assert isinstance(EndpointClient(endpoint), EndpointClient)
