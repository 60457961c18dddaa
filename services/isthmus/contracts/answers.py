"""Questions at the coordinator's API: what an analyst asks for and sees. All of it has crossed or never left.

Figures are whole millionths of their measure's unit (`value_micro`): JSON's numbers here are whole.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isthmus.contracts.crossings import Sites
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, JobId, Name, OrderId, PersonId, SiteId
from isthmus.contracts.jobs import JobState, ZoneData
from isthmus.contracts.queries import MAX_CELLS, Answer, Column, FigureKind, Mode, PrivacyBudget, QueryPlan, QuerySpec
from isthmus.contracts.wire import Count, Int, UnixSeconds, Wire

EPSILON_MICRO = 1_000_000
"""What an answer costs in each zone unless the question says otherwise."""
DELTA_EXPONENT = 6
SLOT_S = 5

Label = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[ -~]+$")]


class QueryRequest(Wire):
    """A question to zones: as SQL, or as a specification.

    Attributes:
        name: a short name.
        sql: the question as text; it is read here and goes no further.
        spec: the question as a specification.
        zones: whom it is put to, and on what snapshot.
        mode: how each zone protects its answer.
        epsilon_micro: what an answer may cost under `dp`, in millionths.
        delta_exponent: delta is 10 to the minus this, under `dp`.
        slot_s: answers leave at multiples of this many seconds after a zone has accepted.
        purpose: a short name; releases carry it.
        recipients: every site that may hold the answers.
        rows_per_vehicle: how many rows of one vehicle count; the table's number where None. Not with `spec`.
        groups_per_vehicle: in how many cells one vehicle counts. Not with `spec`.
        valid_for_s: seconds until the orders expire.
    """

    name: Name = Name("question")
    sql: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    spec: QuerySpec | None = None
    zones: Annotated[tuple[ZoneData, ...], Field(min_length=1, max_length=8)]
    mode: Mode = Mode.DP
    epsilon_micro: Annotated[int, Field(strict=True, ge=1, le=10_000_000)] | None = None
    delta_exponent: Annotated[int, Field(strict=True, ge=6, le=15)] | None = None
    slot_s: Annotated[int, Field(strict=True, ge=1, le=3_600)] = SLOT_S
    purpose: Name
    recipients: Sites
    rows_per_vehicle: Annotated[int, Field(strict=True, ge=1, le=1_000)] | None = None
    groups_per_vehicle: Annotated[int, Field(strict=True, ge=1, le=MAX_CELLS)] | None = None
    valid_for_s: Annotated[int, Field(strict=True, ge=60, le=31_536_000)] = 86_400

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.sql is None) == (self.spec is None):
            raise ValueError("a question is SQL or a specification")
        if self.spec is not None and (self.rows_per_vehicle or self.groups_per_vehicle):
            raise ValueError("a specification says itself what of a vehicle counts")
        if self.mode is not Mode.DP and (self.epsilon_micro or self.delta_exponent):
            raise ValueError("epsilon and delta stand under dp, and only there")
        if len({z.zone for z in self.zones}) != len(self.zones):
            raise ValueError("a zone is named twice")
        return self


class AnswerColumn(Wire):
    """One column of an answer, in the order asked for.

    `figure` is its place among the specification's figures, `quantile_ppm` which of that figure's quantiles it is.
    """

    label: Label
    figure: Count
    quantile_ppm: Count | None = None


class AnswerColumns(Wire):
    """All columns of an answer."""

    items: Annotated[tuple[AnswerColumn, ...], Field(min_length=1, max_length=64)]


class Point(Wire):
    """One number with the interval that holds the exact one with 95 % (none where the answer is exact).

    `from_micro` and `to_micro` stand for a bin of a histogram alone.
    """

    value_micro: Int
    low_micro: Int
    high_micro: Int
    from_micro: Int | None = None
    to_micro: Int | None = None


class CellColumn(Wire):
    """What a cell has in one column: one point, or one for each bin; none where too little stands behind it."""

    points: Annotated[tuple[Point, ...], Field(max_length=256)]


class CellView(Wire):
    """One cell: its values by `group_by`, and its columns. A suppressed one is not zero: it is too small to show.

    `missing` is the number of answers that suppressed it: the figures are without them.
    """

    group: Annotated[tuple[Column, ...], Field(max_length=4)]
    suppressed: bool
    missing: Count
    columns: Annotated[tuple[CellColumn, ...], Field(max_length=64)]


class ZoneAnswer(Wire):
    """One zone's part.

    Attributes:
        zone: its site.
        order: its order.
        waiting: what it is waited for.
        code: why it gives no answer, or waits for officers; None otherwise.
        crossing: the release that brought the answer, None while there is none.
        answer: what crossed, as it crossed.
        cells: the same as figures with their intervals.
    """

    zone: SiteId
    order: OrderId
    waiting: Literal["order", "answer", "approval", "nothing"]
    code: Code | None
    crossing: CrossingId | None
    answer: Answer | None
    cells: Annotated[tuple[CellView, ...], Field(max_length=MAX_CELLS)]


class QueryView(Wire):
    """A question and what it has brought.

    Attributes:
        id: its job.
        name: its short name.
        submitted_by: who asked.
        state: `done` when every zone has answered or declined and one has answered; `failed` where none has.
        code: why it failed.
        sql: the specification as SQL.
        plan: what every order carries.
        columns: the answer's columns, in the order asked for.
        units: the unit of each column, empty for numbers and shares.
        kinds: the figure of each column.
        zones: each zone's part.
        whole: the answers added up, over the zones of `answered`; none before one has answered.
        answered: the zones that the whole is made of.
    """

    id: JobId
    name: Name
    submitted_by: PersonId
    state: JobState
    code: Code | None
    sql: Annotated[str, Field(max_length=16_384)]
    plan: QueryPlan
    columns: Annotated[tuple[AnswerColumn, ...], Field(max_length=64)]
    units: Annotated[tuple[str, ...], Field(max_length=64)]
    kinds: Annotated[tuple[FigureKind, ...], Field(max_length=64)]
    zones: tuple[ZoneAnswer, ...]
    whole: Annotated[tuple[CellView, ...], Field(max_length=MAX_CELLS)]
    answered: tuple[SiteId, ...]
    created_at: UnixSeconds
    finished_at: UnixSeconds | None


class QueryItem(Wire):
    """A question in the list."""

    id: JobId
    name: Name
    submitted_by: PersonId
    state: JobState
    code: Code | None
    sql: Annotated[str, Field(max_length=16_384)]
    mode: Mode
    created_at: UnixSeconds
    finished_at: UnixSeconds | None


class QueryList(Wire):
    """All questions, newest first."""

    items: tuple[QueryItem, ...]


class ExpectedError(Wire):
    """Half of a column's 95 % interval in one cell of one zone, in millionths of its unit.

    Counts, sums and bins have it whatever the data. Means, variances and quantiles depend on how much data there is,
    which a dry run does not look at: theirs is for a cell of `rows` rows in the middle of the measure's bounds.
    """

    label: Label
    unit: str
    half_width_micro: Count | None
    rows: Count | None


class ZoneCost(Wire):
    """What an answer costs in one zone.

    Attributes:
        zone: its site.
        budget: the zone's whole budget as far as it is known here; it never renews.
        spent_ppm: what part of it is gone for answers and private trainings that have come here, in millionths, as its
            filter counts; None where no budget is known. Questions that are open, or failed once data was touched, are
            not in it.
        share_ppm: what part of it this answer would take on top of that; None where no budget is known.
        repeated: the zone has given this answer before: it gives the same one, for nothing.
        fits: whether the budget has room for it after what is known here; where not, the zone is bound to refuse. None
            where no budget is known.
    """

    zone: SiteId
    budget: PrivacyBudget | None
    spent_ppm: Count | None
    share_ppm: Count | None
    repeated: bool
    fits: bool | None


class Explanation(Wire):
    """A dry run: what would be checked and spent, from public things alone. No zone is asked.

    Attributes:
        sql: the specification as SQL.
        plan: what the orders would carry.
        cells: number of cells of the answer.
        mechanisms: for each primitive, the noise that would be added.
        checks: what each zone's border would check, by name.
        costs: what it costs in each zone.
        expected: how wide the bars would be, column by column.
    """

    sql: Annotated[str, Field(max_length=16_384)]
    plan: QueryPlan
    cells: Count
    mechanisms: tuple[str, ...]
    checks: tuple[str, ...]
    costs: tuple[ZoneCost, ...]
    expected: tuple[ExpectedError, ...]
