"""Options of plug-ins: a plug-in's typed keyword arguments are its schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mocae.errors import ConfigError, unknown_name

__all__ = ["checked_options", "option_lines"]


def checked_options(
    plugin: Callable[..., Any], options: Mapping[str, Any], *, what: str, given: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """Return `options` with every value checked against, and turned into, the type its argument is annotated with.

    Args:
        plugin: function or class whose keyword arguments are the options.
        options: names to JSON values, as they stand in a recipe.
        what: who has the options, for messages: "source 'alpaca'".
        given: arguments the run gives, which are no options.

    Raises:
        ConfigError: an option does not exist (the message names the nearest), does not fit its type, or is missing.
    """
    parameters = {name: p for name, p in inspect.signature(plugin).parameters.items() if name not in given}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    for name in options:
        if name not in known and not open_ended:
            raise ConfigError(unknown_name(f"option of {what}", name, known))
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise ConfigError(f"{what} needs the option {name!r}; options given: {sorted(options) or 'none'}")
    hints = get_type_hints(plugin.__init__ if inspect.isclass(plugin) else plugin, include_extras=True)
    return {name: _typed(value, hints.get(name, Any), f"{what}: option {name!r}") for name, value in options.items()}


def _typed(value: Any, hint: Any, where: str) -> Any:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        wanted = error.errors()[0]["msg"].replace("Input should", "it should")
        raise ConfigError(f"{where}: got {value!r}; {wanted}") from error


def option_lines(plugin: Callable[..., Any], *, given: AbstractSet[str] = frozenset()) -> dict[str, str]:
    """Return each option of a plug-in with its type, its default, and what its docstring says of it.

    Args:
        plugin: see `checked_options`.
        given: arguments the run gives, which are no options.

    >>> def judge(*, threshold: float = 0.5) -> None:
    ...     '''Args:
    ...         threshold: score from which on it says yes.
    ...     '''
    >>> option_lines(judge)
    {'threshold': 'float, default 0.5: score from which on it says yes.'}
    """
    told = _told(inspect.getdoc(plugin) or "")
    lines = {}
    for name, parameter in inspect.signature(plugin).parameters.items():
        if name in given or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        kind = (
            parameter.annotation
            if isinstance(parameter.annotation, str)
            else inspect.formatannotation(parameter.annotation)
        )
        default = "needed" if parameter.default is parameter.empty else f"default {parameter.default!r}"
        lines[name] = ": ".join(filter(None, (f"{kind}, {default}", told.get(name, ""))))
    return lines


def _told(docstring: str) -> dict[str, str]:
    """Return what the section "Args:" of a docstring says of each argument."""
    _, _, section = docstring.partition("Args:\n")
    told: dict[str, str] = {}
    for line in section.split("\n\n")[0].splitlines():
        name, colon, text = line.strip().partition(": ")
        if line.startswith("    ") and not line.startswith("     ") and colon:
            told[name] = text
        elif told:
            told[next(reversed(told))] += f" {line.strip()}"
    return told
