"""From what was measured in a cell to what is told of it: combined, consistent, whole numbers.

Everything here is post-processing of noised numbers and public bounds, so it costs nothing.

Rules:
1. One number of rows in a cell: every measurement of it (rows, a measure's two ends, its bins) is combined, each by
   the inverse of its variance; the same for the values of a measure that rows may lack, which are never more than rows.
2. vehicles <= rows <= rows_per_vehicle x vehicles; where noise says otherwise both move the least, weighed alike.
3. Nothing is negative that cannot be, sums lie within their bounds, and a measure's bins add up to its count.
4. Errors of a measure's count and of its sum about the middle of its bounds are uncorrelated: they are the sum and
   the difference of the two ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.queries import Noise, PrimitiveKind, primitives
from isthmus.contracts.wire import MAX_INTEGER
from isthmus.privacy.blocks import Kind
from isthmus.privacy.bounds import bounds_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isthmus.contracts.queries import CellPartial, Primitive, QuerySpec
    from isthmus.privacy.blocks import Block, Measured
    from isthmus.privacy.bounds import Bounds

    Numbers = Sequence[int]
    Noised = Mapping[tuple[Kind, str | None, int], Numbers]

MICRO = 1_000_000
ALL_ROWS = ""
"""The group of counts that are the number of rows; other groups are named by their measure."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """One cell as it is told.

    Attributes:
        values: for each primitive of the question, its numbers.
        size: the noised number of vehicles, or of rows where vehicles are not asked for, before it is made consistent
            with anything else.
        size_power: the square of that number's scale.
    """

    values: tuple[tuple[int, ...], ...]
    size: float
    size_power: float


def exact(block: Block, spec: QuerySpec, cell: CellPartial) -> list[int]:
    """Return a block's numbers in one cell, before noise."""
    found = {(p.kind, p.measure, p.width): v for p, v in zip(primitives(spec), cell.values, strict=True)}
    if block.kind is Kind.ENDS and block.measure:
        bounds = bounds_of(spec, block.measure)
        count = found[PrimitiveKind.COUNT, block.measure, 1][0]
        total = found[PrimitiveKind.SUM, block.measure, 1][0]
        return [total + (bounds.centre - bounds.low) * count, (bounds.high - bounds.centre) * count - total]
    return list(found[PrimitiveKind(block.kind.value), block.measure, block.width])


def powers(spec: QuerySpec, measured: Sequence[Measured]) -> dict[str, float]:
    """Return the square of the scale of each group's combined count: `ALL_ROWS`, or a measure that rows may lack."""
    parts: dict[str, float] = {}
    for one in measured:
        source = _source(spec, one)
        if source is not None:
            parts[source[0]] = parts.get(source[0], 0.0) + 1 / source[1]
    return {group: 1 / part for group, part in parts.items()}


def told(spec: QuerySpec, mechanism: str, measured: Sequence[Measured]) -> tuple[Noise, ...]:
    """Return the scale of the error of each primitive as it is told.

    A sum's is that of the sum about the middle of the bounds the question gives the measure (rule 4).

    Raises:
        Refusal: INPUT_INVALID, when a scale is beyond canonical bytes.
    """
    counts = powers(spec, measured)
    own = {(m.block.kind, m.block.measure, m.block.width): (m.scale_micro / MICRO) ** 2 for m in measured}
    scales = []
    for primitive in primitives(spec):
        match primitive.kind:
            case PrimitiveKind.ROWS:
                power = counts[ALL_ROWS]
            case PrimitiveKind.COUNT:
                power = counts[_group(spec, primitive.measure)]
            case PrimitiveKind.SUM:
                power = own[Kind.ENDS, primitive.measure, 2] / 2
            case kind:
                power = own[Kind(kind.value), primitive.measure, primitive.width]
        scale = math.ceil(math.sqrt(power) * MICRO)
        if scale > MAX_INTEGER:
            what = "The epsilon is too small for the question: its noise would be beyond what an answer can state."
            raise Refusal(Code.INPUT_INVALID, what, remedy="Ask with a larger epsilon, or fewer figures.")
        scales.append(scale)
    return tuple(Noise.model_validate({"mechanism": mechanism, "scale_micro": scale}) for scale in scales)


def estimate(spec: QuerySpec, measured: Sequence[Measured], numbers: Sequence[Numbers]) -> Estimated:
    """Return what is told of one cell.

    Args:
        spec: the question.
        measured: what was measured.
        numbers: for each block of `measured`, its noised numbers in this cell.
    """
    noised = {(m.block.kind, m.block.measure, m.block.width): n for m, n in zip(measured, numbers, strict=True)}
    counts = _counts(spec, measured, numbers)
    group_powers = powers(spec, measured)
    vehicles = noised.get((Kind.VEHICLES, None, 1))
    people = None if vehicles is None else float(vehicles[0])
    people_power = next((_power(m) for m in measured if m.block.kind is Kind.VEHICLES), 0.0)
    if people is not None:
        size, size_power = people, people_power
    else:
        group = ALL_ROWS if ALL_ROWS in counts else max(counts, key=lambda name: counts[name])
        size, size_power = counts[group], group_powers[group]
    if people is not None and ALL_ROWS in counts:
        people, counts[ALL_ROWS] = _agreed(
            people, counts[ALL_ROWS], people_power, group_powers[ALL_ROWS], spec.rows_per_vehicle
        )
    whole = _whole_counts(counts)
    values = tuple(_told(spec, primitive, noised, whole, people) for primitive in primitives(spec))
    return Estimated(values, size, size_power)


def on_simplex(numbers: Numbers, total: int) -> tuple[int, ...]:
    """Return the closest whole numbers that are not negative and add up to `total`.

    >>> on_simplex([4, -3, 5], 6)
    (3, 0, 3)
    """
    if total <= 0:
        return (0,) * len(numbers)
    # The projection onto a simplex: all are lowered by one amount, what falls below zero is zero (Held et al. 1974).
    ordered, running, level = sorted(numbers, reverse=True), 0, 0.0
    for count, number in enumerate(ordered, start=1):
        running += number
        if number * count > running - total:
            level = (running - total) / count
    lowered = [max(0.0, number - level) for number in numbers]
    # All have the same fraction, so which of them are rounded up is free: those that keep running totals closest, or
    # one end of a histogram would gain rows and the other lose them.
    edges = [round(edge) for edge in accumulate(lowered)]
    edges[-1] = total
    return tuple(after - before for before, after in pairwise([0, *edges]))


def _told(
    spec: QuerySpec, primitive: Primitive, noised: Noised, whole: dict[str, int], vehicles: float | None
) -> tuple[int, ...]:
    """Return a primitive's numbers as they are told."""
    count = whole.get(_group(spec, primitive.measure), 0)
    match primitive.kind:
        case PrimitiveKind.ROWS | PrimitiveKind.COUNT:
            return (count,)
        case PrimitiveKind.VEHICLES:
            return (_natural(vehicles or 0.0),)
        case PrimitiveKind.SUM:
            return (_sum(bounds_of(spec, primitive.measure or ""), noised[Kind.ENDS, primitive.measure, 2], count),)
        case PrimitiveKind.SQUARES:
            reach = bounds_of(spec, primitive.measure or "").reach
            return (_within(noised[Kind.SQUARES, primitive.measure, 1][0], 0, reach**2 * count),)
        case PrimitiveKind.BINS:
            return on_simplex(noised[Kind.BINS, primitive.measure, primitive.width], count)


def _source(spec: QuerySpec, one: Measured) -> tuple[str, float] | None:
    """Return which group's count a block measures, and the square of that measurement's scale."""
    block = one.block
    match block.kind:
        case Kind.ROWS:
            return ALL_ROWS, _power(one)
        case Kind.ENDS if block.measure:
            return _group(spec, block.measure), 2 * _power(one) / bounds_of(spec, block.measure).width ** 2
        case Kind.BINS:
            return _group(spec, block.measure), block.width * _power(one)
        case _:
            return None


def _counts(spec: QuerySpec, measured: Sequence[Measured], numbers: Sequence[Numbers]) -> dict[str, float]:
    """Return each group's count: its measurements, each by the inverse of its variance."""
    tops: dict[str, float] = {}
    bottoms: dict[str, float] = {}
    for one, noised in zip(measured, numbers, strict=True):
        source = _source(spec, one)
        if source is None:
            continue
        group, power = source
        measure = one.block.measure
        divisor = bounds_of(spec, measure).width if one.block.kind is Kind.ENDS and measure else 1
        tops[group] = tops.get(group, 0.0) + sum(noised) / divisor / power
        bottoms[group] = bottoms.get(group, 0.0) + 1 / power
    return {group: top / bottoms[group] for group, top in tops.items()}


def _agreed(vehicles: float, rows: float, vehicles_power: float, rows_power: float, most: int) -> tuple[float, float]:
    """Return vehicles and rows moved to the nearest point where vehicles <= rows <= most x vehicles."""
    for slope in (1, most):
        gap = rows - slope * vehicles
        if (gap < 0) if slope == 1 else (gap > 0):
            step = gap / (rows_power + slope**2 * vehicles_power)
            return vehicles + slope * vehicles_power * step, rows - rows_power * step
    return vehicles, rows


def _whole_counts(counts: dict[str, float]) -> dict[str, int]:
    whole = {group: _natural(count) for group, count in counts.items()}
    rows = whole.get(ALL_ROWS, MAX_INTEGER)
    return {group: min(count, rows) for group, count in whole.items()}


def _sum(bounds: Bounds, ends: Numbers, count: int) -> int:
    """Return a sum about the centre, within what its count allows."""
    total = round((ends[0] - ends[1]) / 2 + bounds.tilt * count)
    return _within(total, (bounds.low - bounds.centre) * count, (bounds.high - bounds.centre) * count)


def _within(number: int, low: int, high: int) -> int:
    return max(-MAX_INTEGER, min(MAX_INTEGER, max(low, min(high, number))))


def _natural(number: float) -> int:
    return max(0, min(MAX_INTEGER, round(number)))


def _power(one: Measured) -> float:
    return (one.scale_micro / MICRO) ** 2


def _group(spec: QuerySpec, measure: str | None) -> str:
    return ALL_ROWS if measure is None or bounds_of(spec, measure).always else measure
