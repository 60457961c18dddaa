"""What is measured in every cell so that a question's figures can be told, and how much one vehicle adds to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

from isthmus.contracts.queries import PrimitiveKind, primitives
from isthmus.privacy.bounds import bounds_of

if TYPE_CHECKING:
    from isthmus.contracts.queries import QuerySpec


@unique
class Kind(StrEnum):
    """What is measured in a cell.

    `ends`: two numbers, a measure's sums from its low and from its high end. The others are primitives as told.
    """

    ROWS = "rows"
    VEHICLES = "vehicles"
    ENDS = "ends"
    SQUARES = "squares"
    BINS = "bins"


@dataclass(frozen=True, slots=True)
class Block:
    """Numbers that are measured together in every cell, with noise of one scale.

    Attributes:
        kind: what they are.
        measure: whose, None for rows and vehicles.
        width: how many numbers a cell.
        l1: the most that one vehicle adds, in absolute value, over all numbers of all cells.
        l2_squared: the square of the most in Euclidean norm.
        weight: how large the noise is, relative to a usual figure, at one and the same epsilon.
    """

    kind: Kind
    measure: str | None
    width: int
    l1: int
    l2_squared: int
    weight: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A block and the scale of its noise, in millionths of a step: Laplace's scale, or the Gaussian's deviation."""

    block: Block
    scale_micro: int


def blocks(spec: QuerySpec) -> tuple[Block, ...]:
    """Return what is measured for a question."""
    rows, needed = spec.rows_per_vehicle, primitives(spec)
    pairs = [p.measure for p in needed if p.kind is PrimitiveKind.SUM and p.measure]
    counted = any(bounds_of(spec, measure).always for measure in pairs)
    found: list[Block] = []
    for primitive in needed:
        measure, width = primitive.measure, primitive.width
        match primitive.kind:
            case PrimitiveKind.ROWS if not counted:
                found.append(Block(Kind.ROWS, None, 1, rows, rows**2, 1.0))
            case PrimitiveKind.VEHICLES:
                groups = spec.groups_per_vehicle
                found.append(Block(Kind.VEHICLES, None, 1, groups, groups, 1.0))
            case PrimitiveKind.SUM if measure:
                most = rows * bounds_of(spec, measure).width
                found.append(Block(Kind.ENDS, measure, 2, most, most**2, _USUAL_MEAN))
            case PrimitiveKind.SQUARES if measure:
                most = rows * bounds_of(spec, measure).reach ** 2
                found.append(Block(Kind.SQUARES, measure, 1, most, most**2, _USUAL_SPREAD))
            case PrimitiveKind.BINS:
                found.append(Block(Kind.BINS, measure, width, rows, rows**2, math.sqrt(width) / 2))
            case _:
                pass
    return tuple(found)


_USUAL_MEAN = 4.0
"""A mean lies about a quarter of the way up its bounds, so noise of one width is four times it."""
_USUAL_SPREAD = 8.0
"""A variance is about an eighth of the square of the reach."""
