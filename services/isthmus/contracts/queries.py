"""Questions about zones' tables: a typed specification, exact partial sums, and a released answer.

    SQL text --(analytics.gate, at headquarters)--> QuerySpec --> QueryPlan, in an order
    compute: tables + QuerySpec --> Partials (exact, bounded per vehicle)      never leaves the zone
    border:  Partials + QueryPlan --> Answer (noised, or disclosure-controlled) crosses as an `aggregate`

The order carries the specification, never the text. Everything is whole numbers of the catalogue's steps.

An answer is a list of primitives (rows, vehicles, sums, bins), cell by cell; figures such as a mean are computed from
them by whoever reads it, and answers of several zones are merged by adding primitives up.
"""

from __future__ import annotations

from enum import StrEnum, unique
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.contracts.identifiers import Digest
from isthmus.contracts.tables import TABLES, TableName
from isthmus.contracts.wire import Count, Int, Positive, SortedUnique, Wire

MAX_CELLS = 1_000
"""Most cells of a question's public domain."""
MAX_FIGURES = 16
QUANTILE_BINS = 64
"""Bins of the histogram from which quantiles are read: equal widths over the measure's bounds."""

Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Value = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


@unique
class FigureKind(StrEnum):
    """What can be asked of a group."""

    ROWS = "rows"
    VEHICLES = "vehicles"
    SUM = "sum"
    MEAN = "mean"
    VARIANCE = "variance"
    HISTOGRAM = "histogram"
    QUANTILES = "quantiles"


class Figure(Wire):
    """One figure. `bins` stands for a histogram alone, `quantiles_ppm` for quantiles alone."""

    kind: FigureKind
    measure: Column | None
    bins: Annotated[int, Field(strict=True, ge=2, le=256)] | None = None
    quantiles_ppm: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=999_999)], ...], Field(max_length=16), SortedUnique
    ] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.measure is None) != (self.kind in {FigureKind.ROWS, FigureKind.VEHICLES}):
            raise ValueError("a figure of a measure, and only such a one, names it")
        if (self.bins is not None) != (self.kind is FigureKind.HISTOGRAM):
            raise ValueError("a histogram, and nothing else, has bins")
        if bool(self.quantiles_ppm) != (self.kind is FigureKind.QUANTILES):
            raise ValueError("quantiles, and nothing else, name some")
        return self


class Condition(Wire):
    """One condition on rows; all conditions of a question hold together.

    A dimension's condition names the `values` it may have. A measure's has bounds in steps, both included, on the
    value after clamping; a row without a value does not fulfil it.
    """

    column: Column
    values: Annotated[tuple[Value, ...], Field(max_length=64), SortedUnique] = ()
    low: Int | None = None
    high: Int | None = None


class QuerySpec(Wire):
    """A question, in its one canonical form: the same question has the same bytes, so the same digest.

    Attributes:
        table: what is asked about.
        group_by: dimensions, sorted; without any there is one cell.
        where: conditions, by column, each column once.
        figures: sorted, without repeats (see `in_order`).
        rows_per_vehicle: most rows of one vehicle that count, over all cells.
        groups_per_vehicle: most cells in which one vehicle counts.
    """

    version: Literal[1]
    table: TableName
    group_by: Annotated[tuple[Column, ...], Field(max_length=4), SortedUnique]
    where: Annotated[tuple[Condition, ...], Field(max_length=16)]
    figures: Annotated[tuple[Figure, ...], Field(min_length=1, max_length=MAX_FIGURES)]
    rows_per_vehicle: Annotated[int, Field(strict=True, ge=1, le=1_000)]
    groups_per_vehicle: Annotated[int, Field(strict=True, ge=1, le=MAX_CELLS)]

    @model_validator(mode="after")
    def _fits_the_catalogue(self) -> Self:
        table = TABLES[self.table]
        columns = [c.column for c in self.where]
        if columns != sorted(set(columns)):
            raise ValueError("conditions are sorted by column, each column once")
        if list(self.figures) != in_order(self.figures):
            raise ValueError("figures are sorted and stand once")
        for figure in self.figures:
            if figure.measure is not None and table.measure(figure.measure) is None:
                raise ValueError("a figure names a measure that the table does not have")
        for condition in self.where:
            self._check(condition)
        if any(table.dimension(name) is None for name in self.group_by):
            raise ValueError("a group names a dimension that the table does not have")
        if self.domain_size() > MAX_CELLS:
            raise ValueError(f"a question has at most {MAX_CELLS} cells")
        if self.groups_per_vehicle > min(self.domain_size(), self.rows_per_vehicle):
            raise ValueError("a vehicle counts in no more cells than there are, and than it has rows")
        return self

    def _check(self, condition: Condition) -> None:
        table = TABLES[self.table]
        dimension, measure = table.dimension(condition.column), table.measure(condition.column)
        bounded = condition.low is not None or condition.high is not None
        if dimension is not None:
            if bounded or not condition.values or not set(condition.values) < set(dimension.values):
                raise ValueError("a dimension's condition names some, not all, of its values")
        elif measure is not None:
            low = measure.low if condition.low is None else condition.low
            high = measure.high if condition.high is None else condition.high
            if condition.values or not bounded or not measure.low <= low <= high <= measure.high:
                raise ValueError("a measure's condition has bounds within the measure's own")
        else:
            raise ValueError("a condition names a column that the table does not have")

    def domain_size(self) -> int:
        """Return the number of cells."""
        size = 1
        for name in self.group_by:
            size *= len(self._values(name))
        return size

    def cells(self) -> tuple[tuple[str, ...], ...]:
        """Return all cells, empty ones too, as values by `group_by`, in the catalogue's order."""
        return tuple(product(*(self._values(name) for name in self.group_by)))

    def _values(self, name: str) -> tuple[str, ...]:
        """Return a dimension's values that the conditions allow: what a condition excludes is no cell."""
        dimension = TABLES[self.table].dimension(name)
        allowed = next((c.values for c in self.where if c.column == name), None)
        values = dimension.values if dimension else ()
        return values if allowed is None else tuple(v for v in values if v in allowed)


def in_order(figures: tuple[Figure, ...]) -> list[Figure]:
    """Return figures sorted and without repeats."""
    return sorted(set(figures), key=lambda f: (f.kind.value, f.measure or "", f.bins or 0, f.quantiles_ppm))


@unique
class PrimitiveKind(StrEnum):
    """What is added up in a cell.

    `count`: rows with a value of the measure. `sum`: of (value - centre), in steps, where the centre is half way
    between the bounds, rounded down. `squares`: of (value - centre) squared. `bins`: rows by the value's bin.
    """

    ROWS = "rows"
    VEHICLES = "vehicles"
    COUNT = "count"
    SUM = "sum"
    SQUARES = "squares"
    BINS = "bins"


class Primitive(Wire):
    """One primitive: `width` numbers a cell, 1 for all but bins."""

    kind: PrimitiveKind
    measure: Column | None
    width: Positive


_NEEDS: dict[FigureKind, tuple[PrimitiveKind, ...]] = {
    FigureKind.ROWS: (PrimitiveKind.ROWS,),
    FigureKind.VEHICLES: (PrimitiveKind.VEHICLES,),
    FigureKind.SUM: (PrimitiveKind.COUNT, PrimitiveKind.SUM),
    FigureKind.MEAN: (PrimitiveKind.COUNT, PrimitiveKind.SUM),
    FigureKind.VARIANCE: (PrimitiveKind.COUNT, PrimitiveKind.SUM, PrimitiveKind.SQUARES),
    FigureKind.HISTOGRAM: (PrimitiveKind.BINS,),
    FigureKind.QUANTILES: (PrimitiveKind.BINS,),
}


def primitives(spec: QuerySpec) -> tuple[Primitive, ...]:
    """Return what has to be added up for a question's figures, each once, in one order."""
    needed: set[tuple[str, str, int]] = set()
    for figure in spec.figures:
        width = QUANTILE_BINS if figure.kind is FigureKind.QUANTILES else figure.bins or 1
        for kind in _NEEDS[figure.kind]:
            needed.add((kind.value, figure.measure or "", width if kind is PrimitiveKind.BINS else 1))
    return tuple(Primitive(kind=PrimitiveKind(k), measure=m or None, width=w) for k, m, w in sorted(needed))


@unique
class Mode(StrEnum):
    """How an answer is protected."""

    DP = "dp"
    """Differential privacy per vehicle: noise at the border, paid from the budget."""
    DISCLOSURE_CONTROLLED = "disclosure_controlled"
    """Thresholds, dominance and suppression on exact figures, with officers' approval. This is not DP."""


class QueryPlan(Wire):
    """How a question is answered: fixed when the order is accepted.

    Attributes:
        spec: the question.
        catalogue: digest of the catalogue it was written against (`catalogue_digest`).
        mode: how the answer is protected.
        epsilon_micro: what the answer may cost under `dp`, in millionths; 0 under the other mode.
        delta_exponent: delta is 10 to the minus this; at least 6 under `dp`, 0 under the other mode.
        slot_s: an answer, or the notice that there is none, leaves at a multiple of this many seconds after acceptance.
    """

    spec: QuerySpec
    catalogue: Digest
    mode: Mode
    epsilon_micro: Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
    delta_exponent: Annotated[int, Field(strict=True, ge=0, le=15)]
    slot_s: Annotated[int, Field(strict=True, ge=1, le=3_600)]

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        private = self.mode is Mode.DP
        if private != (self.epsilon_micro > 0) or private != (self.delta_exponent >= 6):  # noqa: PLR2004 - said above
            raise ValueError("epsilon and delta stand under dp, and only there")
        return self


class CellPartial(Wire):
    """One cell's exact, bounded sums.

    Attributes:
        vehicles: distinct vehicles that count in it.
        values: for each primitive of the question, its numbers.
        largest: for each primitive, the two largest contributions of single vehicles (0 where there are fewer), for
            the dominance rules: what a vehicle adds to the primitive; for a `sum`, its values themselves added up, not
            centred (their total is the cell's sum + centre x count); for `bins`, its rows with a value.
    """

    vehicles: Count
    values: Annotated[tuple[Annotated[tuple[Int, ...], Field(max_length=256)], ...], Field(max_length=64)]
    largest: Annotated[tuple[tuple[Count, Count], ...], Field(max_length=64)]


class Partials(Wire):
    """What compute hands the border: every cell of the question, in the order of `QuerySpec.cells`. Exact."""

    version: Literal[1]
    question: Digest
    vehicles: Count
    cells: Annotated[tuple[CellPartial, ...], Field(min_length=1, max_length=MAX_CELLS)]


class Noise(Wire):
    """What was added to one primitive's numbers: a discrete distribution and its scale in millionths of a step."""

    mechanism: Literal["none", "discrete_gaussian", "discrete_laplace"]
    scale_micro: Count


class CellAnswer(Wire):
    """One cell of an answer; a suppressed one has no values and is not zero: it is too small to be shown."""

    suppressed: bool
    values: Annotated[tuple[Annotated[tuple[Int, ...], Field(max_length=256)], ...], Field(max_length=64)]


class Answer(Wire):
    """A released answer: every cell of the question, in the order of `QuerySpec.cells`.

    `noise` has one entry for each primitive. `repeated` says that the same question was answered before: these are
    the same numbers, and they cost nothing. `epsilon_micro` is what this answer cost.
    """

    version: Literal[1]
    question: Digest
    mode: Mode
    noise: Annotated[tuple[Noise, ...], Field(max_length=64)]
    cells: Annotated[tuple[CellAnswer, ...], Field(min_length=1, max_length=MAX_CELLS)]
    repeated: bool
    epsilon_micro: Count
    delta_exponent: Annotated[int, Field(strict=True, ge=0, le=15)]


class PrivacyBudget(Wire):
    """What all answers about one population of vehicles may cost together. It never renews.

    The statement it makes: the answers together are (epsilon, delta)-differentially private per vehicle.
    """

    epsilon_micro: Positive
    delta_exponent: Annotated[int, Field(strict=True, ge=6, le=15)]
