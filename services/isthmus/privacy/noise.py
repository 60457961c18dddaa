"""Discrete noise on whole numbers, by OpenDP with the operating system's generator. There is no seed.

OpenDP draws exactly from the discrete distributions (Canonne, Kamath and Steinke 2020) in rational arithmetic, so that
no bit of floating point tells anything.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MICRO = 1_000_000


def add(
    values: Sequence[int], mechanism: Literal["discrete_laplace", "discrete_gaussian"], scale_micro: int
) -> list[int]:
    """Return values with independent noise added to each.

    Args:
        values: whole numbers, each within 2^62 either way.
        mechanism: the distribution.
        scale_micro: its scale (Laplace) or deviation (Gaussian), in millionths; at least 1.
    """
    if scale_micro < 1:
        raise ValueError("noise has a scale")
    return list(_drawer(mechanism, scale_micro)(list(values))) if values else []


@lru_cache(maxsize=64)
def _drawer(mechanism: str, scale_micro: int) -> Callable[[list[int]], list[int]]:
    # Loaded at the first answer: a border that answers no question never pays for it.
    import opendp.prelude as dp  # noqa: PLC0415

    dp.enable_features("contrib")
    scale = scale_micro / MICRO
    if Fraction(scale) < Fraction(scale_micro, MICRO):
        scale = math.nextafter(scale, math.inf)
    space: Any = dp.vector_domain(dp.atom_domain(T="i64"))
    made: Any = (
        dp.m.make_laplace(space, dp.l1_distance(T="i64"), scale=scale)
        if mechanism == "discrete_laplace"
        else dp.m.make_gaussian(space, dp.l2_distance(T="f64"), scale=scale)
    )
    draw: Callable[[list[int]], list[int]] = made
    return draw
