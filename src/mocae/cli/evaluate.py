"""`mocae eval`: one model, one suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from mocae.cli.options import LARGEST_SEED, AsJson, Progress
from mocae.errors import ConfigError

if TYPE_CHECKING:
    from mocae.pipelines.targets import Target

__all__ = ["evaluate"]


def evaluate(
    artifact: Annotated[Path | None, Argument(metavar="[DIR]", help="Folder a run has written.")] = None,
    system: Annotated[str | None, Option(metavar="NAME", help="System of the folder; else its best router.")] = None,
    model: Annotated[
        str | None, Option(metavar="ID_OR_PATH", help="A Hugging Face model; or, of a server, its name.")
    ] = None,
    endpoint: Annotated[
        str | None, Option(metavar="URL", help="An OpenAI-compatible server, as http://host:8000/v1.")
    ] = None,
    suite: Annotated[str, Option(metavar="NAME", help="Suite, or a YAML file of one.")] = "pocket",
    out: Annotated[Path | None, Option(metavar="DIR", help="Folder for the log and the report.")] = None,
    name: Annotated[
        str | None, Option(metavar="NAME", help="What the report calls it; else the folder or model.")
    ] = None,
    limit: Annotated[int | None, Option(min=1, help="Most prompts of each source.")] = None,
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of draws, sampling and intervals.")] = 0,
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change a key of the suite, e.g. data_root=~/data.")
    ] = None,
    prompt_format: Annotated[
        str | None, Option("--format", metavar="NAME", help="Prompt format of --model; default: chat or plain.")
    ] = None,
    judge_endpoint: Annotated[str | None, Option(metavar="URL", help="Judge with a model behind a server.")] = None,
    judge_model: Annotated[str | None, Option(metavar="NAME", help="Name of that model.")] = None,
    api_key_variable: Annotated[
        str | None, Option(metavar="NAME", help="Environment variable with the key of --endpoint.")
    ] = None,
    judge_api_key_variable: Annotated[
        str | None, Option(metavar="NAME", help="The same, with the key of --judge-endpoint.")
    ] = None,
    parameters: Annotated[
        list[str] | None,
        Option("--parameter", metavar="NAME=VALUE", help="Sent to --endpoint with every prompt; null leaves one out."),
    ] = None,
    judge_parameters: Annotated[
        list[str] | None, Option("--judge-parameter", metavar="NAME=VALUE", help="The same, sent to --judge-endpoint.")
    ] = None,
    as_json: AsJson = False,
    progress: Progress = True,
) -> None:
    """Evaluate an artifact, a Hugging Face model or a server on a suite. A run that was stopped goes on.

    [bold]mocae eval out/pocket --suite pocket --out out/eval[/bold]

    [bold]mocae eval out/pocket --system joint --suite pocket --out out/joint[/bold]

    [bold]mocae eval --endpoint http://127.0.0.1:8000/v1 --model llama --suite pocket --out out/llama[/bold]
    """
    from mocae.cli.tables import echo_result
    from mocae.pipelines.check.suite import check_suite
    from mocae.pipelines.evaluate import evaluate as run_suite
    from mocae.pipelines.suite import load_suite, with_endpoint_judges

    if out is None:
        raise ConfigError("eval: --out is missing; give a folder for answers, verdicts and the report")
    if (judge_endpoint is None) is not (judge_model is None):
        raise ConfigError("eval: --judge-endpoint and --judge-model belong together; give both or none")
    loaded = load_suite(suite, settings or ())
    if judge_endpoint is not None and judge_model is not None:
        options: dict[str, Any] = {"parameters": _parameters("--judge-parameter", judge_parameters)}
        if judge_api_key_variable:
            options["api_key_variable"] = judge_api_key_variable
        loaded = with_endpoint_judges(loaded, base_url=judge_endpoint, model=judge_model, options=options)
    elif judge_api_key_variable is not None or judge_parameters:
        raise ConfigError(
            "eval: --judge-api-key-variable and --judge-parameter are for --judge-endpoint; give that too"
        )
    check_suite(loaded, limit=limit)
    if parameters and endpoint is None:
        raise ConfigError("eval: --parameter is for --endpoint; give that too")
    if system is not None and artifact is None:
        raise ConfigError(f"eval: --system {system} is of a folder that a run has written; give that too")
    target = _target(artifact, system, model, endpoint, prompt_format, api_key_variable, parameters, out)
    target.label = name or target.label
    result = run_suite(target, loaded, out=out, limit=limit, seed=seed, progress=progress)
    echo_result(result, as_json=as_json)


def _parameters(option: str, words: list[str] | None) -> dict[str, Any]:
    """Return parameters of a completion by name, their values read as YAML.

    Raises:
        ConfigError: a word of another form.
    """
    from mocae.config.overrides import apply_override

    values: dict[str, Any] = {}
    for word in words or ():
        apply_override(values, word, option=option)
    return values


def _target(
    artifact: Path | None,
    system: str | None,
    model: str | None,
    endpoint: str | None,
    prompt_format: str | None,
    api_key_variable: str | None,
    parameters: list[str] | None,
    out: Path,
) -> Target:
    """Return what is evaluated.

    Raises:
        ConfigError: nothing, or more than one thing, or a server without the model's name, or a format for either.
        PluginError: no such format.
    """
    import os

    from mocae.judges.endpoint import Endpoint
    from mocae.pipelines.targets import EndpointTarget, artifact_target, model_target
    from mocae.prompts import FORMATS

    if prompt_format is not None:
        FORMATS.get(prompt_format)
        if artifact is not None or endpoint is not None:
            raise ConfigError(
                f"eval: --format {prompt_format} is for --model alone: a folder names its own format, and a server "
                "applies its own; leave it out"
            )
    if endpoint is not None:
        if artifact is not None or model is None:
            raise ConfigError(
                f"eval: --endpoint {endpoint} needs --model, the server's name of the model, and no folder"
            )
        key = None
        if api_key_variable is not None and not (key := os.environ.get(api_key_variable)):
            raise ConfigError(f"eval: --api-key-variable: the environment variable {api_key_variable!r} is not set")
        end = Endpoint(model, base_url=endpoint, api_key=key, parameters=_parameters("--parameter", parameters))
        return EndpointTarget(end, cache=out / "answer-replies.jsonl")
    if (artifact is None) is (model is None):
        raise ConfigError("eval: give one thing to evaluate: a folder a run has written, --model, or --endpoint")
    if artifact is not None:
        return artifact_target(artifact, system=system)
    assert model is not None
    return model_target(model, prompt_format=prompt_format)
