"""The benchmark on a tiny model: systems compute what they say, and the figures are what they are called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mocae import progress
from mocae.bank import save_peft
from mocae.bench import SHAPES, SYSTEMS, Benchmark, load_shape, run_bench
from mocae.bench.decoding import Cached, Uncached
from mocae.bench.memory import peak_bytes, read_bytes, static_bytes
from mocae.bench.run import missing_library
from mocae.bench.shapes import load_model, random_experts
from mocae.bench.systems import Workbench
from mocae.errors import ConfigError
from tiny import tiny_llama

CPU = torch.device("cpu")
TINY = replace(SHAPES["tiny"], prompt_tokens=4, new_tokens=3)


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    model = load_model(TINY, dtype=torch.float32, device=CPU)
    experts = random_experts(model, TINY)
    root = tmp_path_factory.mktemp("experts")
    return Workbench(model, experts, folders={name: save_peft(e, root / name) for name, e in experts.items()})


@pytest.fixture(scope="module")
def measured() -> Iterator[Benchmark]:
    with progress.visible(False):
        yield run_bench(TINY, repeats=3, batches=[2])


@torch.no_grad()
def _tokens(name: str, bench: Workbench, rows: int = 2, new: int = 5) -> torch.Tensor:
    system = SYSTEMS[name](bench)
    ids = torch.randint(0, 512, (rows, 8), generator=torch.Generator().manual_seed(5))
    with system.context(rows):
        decoder = system.decoder()
        found = [decoder.prefill(ids)]
        for _ in range(new - 1):
            found.append(decoder.step(found[-1]))
    return torch.cat(found, dim=1)


def test_every_system_has_a_row_and_the_base_is_one(measured: Benchmark) -> None:
    rows = {row.system: row for row in measured.rows}
    assert list(rows) == [name for name in SYSTEMS if missing_library(name) is None]
    base = rows["base"]
    assert (base.decode_ratio, base.ttft_ratio, base.total_ratio, base.memory_ratio) == (1, 1, 1, 1)
    assert all(row.batch == 2 and row.decode_ratio > 0 and row.tokens_per_second > 0 for row in rows.values())
    assert rows["peft-xlora"].rounds == 2
    assert rows["stacked"].rounds == 3
    assert rows["peft-xlora"].note.endswith("over the first 384 new tokens of a batch, scaled up")


def test_memory_is_exact(measured: Benchmark) -> None:
    rows = {row.system: row for row in measured.rows}
    assert 1.0 <= rows["stacked"].memory_beyond_experts_ratio <= 1.06
    assert rows["stacked"].memory_ratio > rows["peft-1"].memory_ratio > 1
    assert rows["merged"].memory_ratio > 1.5  # a second copy of the adapted weights
    assert rows["models-3"].memory_ratio > 2
    again = run_bench(TINY, systems=["stacked"], repeats=1, batches=[2])
    assert again.rows[1].memory_ratio == pytest.approx(rows["stacked"].memory_ratio, rel=1e-3)


def test_json_has_the_promised_keys(measured: Benchmark) -> None:
    told = json.loads(measured.to_json())
    assert told["schema"] == 1
    assert {"device", "cores", "threads", "torch", "copy_bytes_per_second"} <= set(told["hardware"])
    promised = {
        "system",
        "batch",
        "decode_ratio",
        "ttft_ratio",
        "total_ratio",
        "memory_ratio",
        "tokens_per_second",
        "spread",
    }
    assert all(promised <= set(row) for row in told["rows"])


def test_systems_that_compute_the_same_answer_the_same(workbench: Workbench) -> None:
    base = _tokens("base", workbench)
    assert base.shape == (2, 5)
    assert torch.equal(_tokens("models-3", workbench), base)  # equal copies
    assert torch.equal(_tokens("ffn-dense", workbench), base)  # equal blocks, weights that sum to 1
    assert torch.equal(_tokens("ffn-top2", workbench), base)
    assert torch.equal(_tokens("merged", workbench, rows=1), _tokens("stacked", workbench, rows=1))


def test_prompts_that_go_on_are_answered_as_those_read_whole(workbench: Workbench) -> None:
    ids = torch.randint(0, 512, (2, 8), generator=torch.Generator().manual_seed(5))
    system = SYSTEMS["resumed"](workbench)
    found = []
    for _ in range(2):  # the first generation is remembered, the second goes on from it
        with torch.no_grad(), system.context(2):
            decoder = system.decoder()
            tokens = [decoder.prefill(ids)]
            for _ in range(4):
                tokens.append(decoder.step(tokens[-1]))
        found.append(torch.cat(tokens, dim=1))
    assert torch.equal(found[0], _tokens("routed", workbench))
    assert torch.equal(found[1], found[0])


def test_a_base_in_8_bits_holds_and_reads_less(workbench: Workbench) -> None:
    pytest.importorskip("torchao")
    base, quantised = SYSTEMS["base"](workbench), SYSTEMS["int8"](workbench)
    head = sum(p.numel() * p.element_size() for p in workbench.base.get_output_embeddings().parameters())
    linears = base.reads - head
    one_byte = linears / workbench.base.dtype.itemsize
    assert one_byte <= quantised.reads - head <= 1.2 * one_byte  # and a scale a row
    assert static_bytes(quantised.modules) < static_bytes(base.modules)
    bank = SYSTEMS["int8-bank"](workbench)
    assert bank.expert_bytes == workbench.bank().n_bytes


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'int8' needs torchao; run: pip install 'mocae\[quantize\]'"):
        run_bench(TINY, systems=["int8"])


def test_no_system_changes_the_base(workbench: Workbench) -> None:
    before = {key: value.clone() for key, value in workbench.base.state_dict().items()}
    types = [type(module) for module in workbench.base.modules()]
    for name in SYSTEMS:
        if missing_library(name) is None:
            _tokens(name, workbench, new=2)
    assert [type(module) for module in workbench.base.modules()] == types
    assert all(torch.equal(value, before[key]) for key, value in workbench.base.state_dict().items())
    assert workbench.bank().alpha is None


def test_cached_and_uncached_decoding_agree(workbench: Workbench) -> None:
    ids, found = torch.arange(12).view(2, 6), []
    with torch.no_grad():
        for decoder in (Cached(workbench.base, config=workbench.base.config), Uncached(workbench.base)):
            tokens = [decoder.prefill(ids)]
            for _ in range(4):
                tokens.append(decoder.step(tokens[-1]))
            found.append(torch.cat(tokens, dim=1))
    assert torch.equal(*found)


def test_bytes_are_counted_once() -> None:
    tied, untied = tiny_llama(layers=1, tie_word_embeddings=True), tiny_llama(layers=1)
    whole = sum(p.numel() * 4 for p in untied.parameters())
    assert read_bytes(untied) == whole - 300 * 32 * 4
    assert read_bytes(tied) == whole - 300 * 32 * 4  # the table is the head
    assert static_bytes([untied, untied]) - whole == sum(b.numel() * b.element_size() for b in untied.buffers())

    def work() -> None:
        first = torch.empty(1000, dtype=torch.uint8)
        del first
        _second = torch.empty(600, dtype=torch.uint8), torch.empty(700, dtype=torch.uint8)

    assert peak_bytes(work, CPU) == 1300


def test_a_real_folder_is_a_shape(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config '97n': unknown shape '97n'.*Did you mean '97m'"):
        load_shape("97n")
    (tmp_path / "config.json").write_text("{}")
    assert load_shape(str(tmp_path)).folder == tmp_path.resolve()


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--systems: unknown system 'staked'.*Did you mean 'stacked'"):
        run_bench(TINY, systems=["staked"])
    with pytest.raises(ConfigError, match=r"--clock: unknown clock 'sun'\. Known: 'cpu', 'wall'"):
        run_bench(TINY, clock="sun")
    with pytest.raises(ConfigError, match="repeats 0"):
        run_bench(TINY, repeats=0)
    with pytest.raises(ConfigError, match=r"batch sizes \[0\]"):
        run_bench(TINY, batches=[0])


def test_routed_is_the_mixture_with_a_fitted_router(workbench: Workbench) -> None:
    system = SYSTEMS["routed"](workbench)
    ids = torch.randint(0, 512, (3, 8), generator=torch.Generator().manual_seed(5))
    with torch.no_grad(), system.context(3) as trace:
        system.decoder().prefill(ids)
    torch.testing.assert_close(trace.alpha.sort(1).values, torch.tensor([[0.0, 0.0, 1.0]] * 3))  # top_k is 1
    assert trace.sureness is not None
    assert ((trace.sureness.confidence > 0) & (trace.sureness.confidence < 1)).all()
