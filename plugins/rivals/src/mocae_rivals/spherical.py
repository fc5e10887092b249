"""SLERP: interpolation of two task vectors along the arc between them, exact and low rank."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from mocae.errors import ConfigError
from mocae.merging import TaskVector, register_merge_method

__all__ = ["slerp"]

_COLLINEAR = 0.9995  # beyond this cosine sin(angle) < 0.032 is divided by; mergekit's threshold


@register_merge_method("slerp", reference="arXiv:2406.16768")
def slerp(
    vectors: Mapping[str, TaskVector],
    *,
    t: Annotated[float, Field(ge=0, le=1)],
    angle: Literal["module", "model"] = "module",
) -> TaskVector:
    """Return the point at fraction t of the arc from the first task vector to the second; ranks add up.

    Its length does not sink between vectors that point apart, as that of their mean does. Where there is no arc (one
    vector is 0, or they are collinear) it is the straight line.

    Args:
        vectors: exactly two experts; the order is the direction.
        t: 0 = the first, 1 = the second.
        angle: between the changes of each linear ("module"), or between the whole vectors ("model").

    Raises:
        ConfigError: not two experts.
        ModelMismatchError: experts of different base models.

    Reference: Rame et al., WARP (arXiv 2406.16768), its SLERP of task vectors. Deviation:
        tools such as mergekit interpolate whole weights, where the angle is that of the base model with itself.
    """
    if len(vectors) != 2:
        raise ConfigError(f"'slerp' takes exactly two experts, received {len(vectors)}: {', '.join(vectors)}")
    first, second = vectors.values()
    modules = list(dict.fromkeys([*first.modules, *second.modules]))
    products, own, other = first.inner_by_module(second), first.inner_by_module(first), second.inner_by_module(second)
    if angle == "model":
        whole = _shares(sum(products.values()), sum(own.values()), sum(other.values()), t)
        shares = dict.fromkeys(modules, whole)
    else:
        shares = {m: _shares(products.get(m, 0.0), own.get(m, 0.0), other.get(m, 0.0), t) for m in modules}
    return first.scaled(lambda module: shares[module][0]) + second.scaled(lambda module: shares[module][1])


def _shares(product: float, own: float, other: float, t: float) -> tuple[float, float]:
    """Return the factors of both vectors from their inner product and squared norms."""
    size = math.sqrt(max(own, 0.0) * max(other, 0.0))
    cosine = product / size if size else 1.0
    if abs(cosine) > _COLLINEAR:
        return 1 - t, t
    theta = math.acos(cosine)
    return math.sin((1 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)
