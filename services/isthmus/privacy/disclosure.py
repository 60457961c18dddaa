"""Answers of the mode `disclosure_controlled`: exact figures, some hidden. This is not differential privacy.

Rules:
1. Small, dominated and telling cells are hidden (`suppression`); where nothing is left to show there is no answer.
2. There is no answer that, with earlier ones about the same frozen snapshot, isolates few vehicles (`differencing`).
3. A histogram's bins with rows of too few vehicles are pooled with their neighbours and shared out evenly, so that
   neither the smallest nor the largest value of a vehicle can be read off it.

A refusal depends on data: it leaves as `not_released`, and which rule it was stays at home.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.queries import Answer, CellAnswer, Mode, Noise, Primitive, PrimitiveKind, primitives
from isthmus.privacy.differencing import Shown, isolates
from isthmus.privacy.release import require_shape
from isthmus.privacy.suppression import FEWEST, hidden_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.queries import CellPartial, Partials, QueryPlan, QuerySpec


@dataclass(frozen=True, slots=True)
class Past:
    """An answer of this mode that was released before about the same frozen snapshot.

    Attributes:
        spec: its question.
        partials: the exact sums it was made of.
        answer: what was released.
    """

    spec: QuerySpec
    partials: Partials
    answer: Answer


@dataclass(frozen=True, slots=True)
class Withheld:
    """There is no answer. `rule` says why, to the zone alone."""

    rule: str


def control(plan: QueryPlan, partials: Partials, history: Sequence[Past]) -> Answer | Withheld:
    """Return what may be shown of exact sums, or that nothing may.

    Args:
        plan: how the question is answered, under `disclosure_controlled`.
        partials: its exact sums.
        history: every earlier answer about the same frozen snapshot.

    Raises:
        ValueError: the plan is of another mode.
        Refusal: SCHEMA_MISMATCH, when the sums have not the question's cells and primitives.
    """
    if plan.mode is not Mode.DISCLOSURE_CONTROLLED:
        raise ValueError("only an answer of that mode is controlled")
    spec = plan.spec
    require_shape(spec, partials)
    hidden = hidden_cells(spec, partials)
    if hidden is None:
        return Withheld("no_suppression_found")
    if len(hidden) == len(partials.cells):
        return Withheld("nothing_left")
    new = Shown(spec, tuple(cell.vehicles for cell in partials.cells), hidden)
    if (rule := isolates(new, [_shown(past) for past in history])) is not None:
        return Withheld(rule)
    needed = primitives(spec)
    return Answer(
        version=1,
        question=partials.question,
        mode=plan.mode,
        noise=tuple(Noise(mechanism="none", scale_micro=0) for _ in needed),
        cells=tuple(
            CellAnswer(suppressed=i in hidden, values=() if i in hidden else _told(spec, needed, cell))
            for i, cell in enumerate(partials.cells)
        ),
        repeated=False,
        epsilon_micro=0,
        delta_exponent=0,
    )


def pooled(numbers: Sequence[int], fewest: int) -> tuple[int, ...]:
    """Return bins of which none but runs of empty ones has fewer than `fewest` rows before they are shared out.

    >>> pooled([1, 2, 9, 9, 1], 5)
    (4, 4, 4, 5, 5)
    """
    if sum(numbers) < fewest:
        return (0,) * len(numbers)
    runs: list[list[int]] = []  # each: first bin, bins, rows
    first, rows = 0, 0
    for index, number in enumerate(numbers):
        rows += number
        if rows >= fewest:
            runs.append([first, index + 1 - first, rows])
            first, rows = index + 1, 0
    runs[-1][1] += len(numbers) - first
    runs[-1][2] += rows
    told: list[int] = []
    for _, bins, total in runs:
        each, rest = divmod(total, bins)
        told += [each + (1 if place >= bins - rest else 0) for place in range(bins)]
    return tuple(told)


def _shown(past: Past) -> Shown:
    hidden = frozenset(i for i, cell in enumerate(past.answer.cells) if cell.suppressed)
    return Shown(past.spec, tuple(cell.vehicles for cell in past.partials.cells), hidden)


def _told(spec: QuerySpec, needed: Sequence[Primitive], cell: CellPartial) -> tuple[tuple[int, ...], ...]:
    fewest = FEWEST * spec.rows_per_vehicle
    return tuple(
        pooled(numbers, fewest) if primitive.kind is PrimitiveKind.BINS else tuple(numbers)
        for primitive, numbers in zip(needed, cell.values, strict=True)
    )
