"""How processes are told to work together: configurations of accelerate, and those that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from mocae.distributed import join
from mocae.errors import ArtifactError, ConfigError
from mocae.pipelines.export import export

FOLDER = Path(__file__).parents[1] / "recipes" / "accelerate"
LAUNCHES = {  # processes, machines, what accelerate makes of it
    "deepspeed": (4, 1, "use_deepspeed"),
    "gpus": (4, 1, "multi_gpu"),
    "machines": (16, 2, "multi_gpu"),
    "two-cpus": (2, 1, "multi_gpu"),
}


def test_every_configuration_is_looked_at() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(LAUNCHES)


@pytest.mark.parametrize("name", LAUNCHES)
def test_accelerate_reads_it_as_it_is_meant(name: str) -> None:
    file = str(FOLDER / f"{name}.yaml")
    config = load_config_from_file(file)  # refuses a key it does not know
    args = launch_command_parser().parse_args(["--config_file", file, "-m", "mocae", "run"])
    launched, _, _ = _validate_launch_command(args)
    ways = ("multi_gpu", "use_deepspeed", "use_fsdp", "tpu")
    processes, machines, way = LAUNCHES[name]
    assert (launched.num_processes, launched.num_machines) == (processes, machines)
    assert [option for option in ways if getattr(launched, option)] == [way]
    assert config.use_cpu is (name == "two-cpus")
    assert launched.mixed_precision == "no"
    if name == "deepspeed":
        assert launched.zero_stage == 2


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [("ACCELERATE_USE_FSDP", "true", "FSDP"), ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3", "DeepSpeed's ZeRO stage 3")],
)
def test_what_would_split_the_model_in_training_only_is_refused(
    variable: str, value: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"accelerate is configured for {name}.*set base.shard to true"):
        join(cpu=True)


def test_what_cannot_be_shared_refuses_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="mocae export works in one process and a launcher started several"):
        export(tmp_path / "run", to="merged", out=tmp_path / "merged")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(ArtifactError, match="no finished run"):
        export(tmp_path / "run", to="merged", out=tmp_path / "merged")


def test_stage_2_and_one_process_alone_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    join(cpu=True)
