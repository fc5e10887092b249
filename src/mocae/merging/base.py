"""What a merge method is: task vectors in, one change of the base model's weights out."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_type_hints, runtime_checkable

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import Tensor

from mocae.errors import ConfigError, ModelMismatchError, PluginError, unknown_name
from mocae.merging.task_vector import TaskVector
from mocae.registry import Registry

__all__ = [
    "MERGE_METHODS",
    "ComputedDelta",
    "Delta",
    "MergeMethod",
    "expert_weights",
    "refuse_bad_weights",
    "register_merge_method",
    "shapes_of",
]


@runtime_checkable
class Delta(Protocol):
    """A change of the base model's weights, read one linear at a time; `TaskVector` is the exact low-rank one."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the linears that change."""
        ...

    def shape(self, module: str) -> tuple[int, int]:
        """Return (out features, in features) of a linear."""
        ...

    def dense(self, module: str) -> Float[Tensor, "out_features in_features"]:
        """Return the change of one linear's weight as a new fp32 matrix, the same at every call."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ComputedDelta:
    """A change that is not low rank: each linear's is computed when asked for, so only one is in memory.

    Attributes:
        shapes: linear -> (out features, in features).
        compute: returns the fp32 change of a linear, the same at every call.
    """

    shapes: Mapping[str, tuple[int, int]]
    compute: Callable[[str], Tensor]

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the linears that change."""
        return tuple(self.shapes)

    def shape(self, module: str) -> tuple[int, int]:
        """Return (out features, in features) of a linear.

        Raises:
            ConfigError: that linear does not change.
        """
        if module not in self.shapes:
            raise ConfigError(f"this change is 0 there: {unknown_name('linear', module, self.shapes)}")
        return self.shapes[module]

    def dense(self, module: str) -> Float[Tensor, "out_features in_features"]:
        """Return the change of one linear's weight as a new fp32 matrix.

        Raises:
            ConfigError: that linear does not change.
        """
        self.shape(module)
        return self.compute(module)


@runtime_checkable
class MergeMethod(Protocol):
    """Turns task vectors into one change of the base model.

    Attributes:
        reference: the paper, "arXiv:..." where there is one.
        parameters: pydantic model of its options, so that a recipe can be checked when it is read.
        note: returns what a reader must know of a merge of these vectors with these options; None: nothing ever is.
    """

    reference: str
    parameters: type[BaseModel]
    note: Callable[..., str] | None

    def check(self, options: Mapping[str, Any]) -> BaseModel:
        """Return the options as the schema types them; raises ConfigError for options that do not fit."""
        ...

    def __call__(self, vectors: Mapping[str, TaskVector], **options: Any) -> Delta:
        """Return the change; raises ConfigError for options that do not fit."""
        ...


MERGE_METHODS: Registry[MergeMethod] = Registry("merge method", entry_point_group="mocae.merge_methods")
"""Merge methods by name."""


class _TypedMethod:
    """A function whose signature is its schema: vectors and options are checked before it runs."""

    def __init__(
        self, name: str, function: Callable[..., Delta], *, reference: str, note: Callable[..., str] | None
    ) -> None:
        self.name = name
        self.reference = reference
        self.note = note
        self.parameters = _schema(name, function)
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, vectors: Mapping[str, TaskVector], **options: Any) -> Delta:
        """Return the change that the function makes of the vectors.

        Raises:
            ConfigError: no vectors, or an option is unknown, missing or out of range.
            ModelMismatchError: two vectors disagree on the shape of a linear.
        """
        if not vectors:
            raise ConfigError(f"merge method {self.name!r} needs at least one expert, received none")
        shapes_of(vectors)
        checked = self.check(options)
        return self._function(vectors, **{key: getattr(checked, key) for key in self.parameters.model_fields})

    def check(self, options: Mapping[str, Any]) -> BaseModel:
        """Return the options as the schema types them.

        Raises:
            ConfigError: one is unknown, missing or out of range.
        """
        try:
            return self.parameters.model_validate(dict(options))
        except ValidationError as error:
            problem = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo before what it hides
            key = ".".join(map(str, problem["loc"]))
            where = f"merge method {self.name!r}"
            if problem["type"] == "extra_forbidden":
                unknown = unknown_name("option", key, self.parameters.model_fields)
                raise ConfigError(f"{where}: {unknown}") from None
            if problem["type"] == "missing":
                raise ConfigError(f"{where}: option {key!r} is required; given: {sorted(options) or 'none'}") from None
            raise ConfigError(f"{where}: option {key!r} is {problem['input']!r}: {problem['msg']}") from None


def register_merge_method(
    name: str, *, reference: str, note: Callable[..., str] | None = None
) -> Callable[[Callable[..., Delta]], MergeMethod]:
    """Return a decorator that registers `function(vectors, *, option: type = default, ...) -> Delta`.

    The annotations are the schema: `Annotated[float, Field(gt=0, le=1)]` is checked before the function runs.

    Args:
        name: name in recipes; other packages use "package/name".
        reference: the paper, "arXiv:..." where there is one.
        note: see `MergeMethod`; called like the function.

    Raises:
        PluginError: the name is taken, or an option is not keyword-only or has no type.
    """

    def register(function: Callable[..., Delta]) -> MergeMethod:
        return MERGE_METHODS.register(name)(_TypedMethod(name, function, reference=reference, note=note))

    return register


def expert_weights(vectors: Mapping[str, TaskVector], weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return one weight an expert in the order of `vectors`: 1 each for None, 0 for an expert that is not named.

    Raises:
        ConfigError: a name that is no expert, a weight that is not finite, or all are 0.
    """
    if weights is None:
        return dict.fromkeys(vectors, 1.0)
    refuse_bad_weights(vectors, [weights])
    return {name: float(weights.get(name, 0.0)) for name in vectors}


def refuse_bad_weights(vectors: Mapping[str, TaskVector], sets: Iterable[Mapping[str, float]]) -> None:
    """Do nothing if all sets of weights fit the experts and one weight at least is not 0.

    Raises:
        ConfigError: a name that is no expert, a weight that is not finite, or all are 0.
    """
    pairs = [(name, value) for weights in sets for name, value in weights.items()]
    for name, value in pairs:
        if name not in vectors:
            raise ConfigError(unknown_name("expert", name, vectors))
        if not math.isfinite(value):
            raise ConfigError(f"weight of expert {name!r} is {value}; it must be a finite number")
    if not any(value for _, value in pairs):
        raise ConfigError(f"all weights of {', '.join(vectors)} are 0, which is the base model; give another")


def shapes_of(vectors: Mapping[str, TaskVector]) -> dict[str, tuple[int, int]]:
    """Return (out, in) of each linear that some vector changes.

    Raises:
        ModelMismatchError: two vectors disagree.
    """
    seen: dict[str, tuple[str, tuple[int, int]]] = {}
    for name, vector in vectors.items():
        for module in vector.modules:
            first, shape = seen.setdefault(module, (name, vector.shape(module)))
            if shape != vector.shape(module):
                raise ModelMismatchError(
                    f"experts {first!r} and {name!r} were made for different base models: {module!r} has (out, in) "
                    f"{shape} in one and {vector.shape(module)} in the other"
                )
    return {module: shape for module, (_, shape) in seen.items()}


def _schema(name: str, function: Callable[..., Delta]) -> type[BaseModel]:
    _, *options = inspect.signature(function).parameters.values()
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for option in options:
        if option.kind is not inspect.Parameter.KEYWORD_ONLY or option.name not in hints:
            raise PluginError(
                f"merge method {name!r}: {option.name!r} must be keyword-only and have a type; "
                "write function(vectors, *, option: type = default)"
            )
        default = ... if option.default is inspect.Parameter.empty else option.default
        fields[option.name] = (hints[option.name], default)
    strict = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    schema: type[BaseModel] = create_model(f"{name} options", __config__=strict, **fields)
    return schema
