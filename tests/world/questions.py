"""Questions and sums as compute would hand them in: made up, small, and known to the last vehicle."""

from __future__ import annotations

from typing import Any

from isthmus.contracts.identifiers import Digest, Name
from isthmus.contracts.orders import Algorithm
from isthmus.contracts.queries import (
    CellPartial,
    Condition,
    Figure,
    FigureKind,
    Mode,
    Partials,
    PrimitiveKind,
    QueryPlan,
    QuerySpec,
    in_order,
    primitives,
)
from isthmus.contracts.tables import TableName
from isthmus.proof.ids import catalogue_digest, question_digest

STATISTICS = Algorithm(name=Name("statistics"), digest=Digest.of(b"statistics"))
SLOT_S = 5
VEHICLES = Figure(kind=FigureKind.VEHICLES, measure=None)
SPEED = Figure(kind=FigureKind.MEAN, measure="speed_mps")


def spec(*figures: Figure, group_by: tuple[str, ...] = ("road_class",), where: tuple[Condition, ...] = ()) -> QuerySpec:
    """Return a question on the table of drives."""
    return QuerySpec(
        version=1,
        table=TableName.DRIVES,
        group_by=group_by,
        where=where,
        figures=tuple(in_order(figures or (VEHICLES, SPEED))),
        rows_per_vehicle=2,
        groups_per_vehicle=1,
    )


def plan(question: QuerySpec | None = None, **changes: Any) -> QueryPlan:
    """Return a plan at epsilon 1."""
    values: dict[str, Any] = {
        "spec": question or spec(),
        "catalogue": catalogue_digest(),
        "mode": Mode.DP,
        "epsilon_micro": 1_000_000,
        "delta_exponent": 9,
        "slot_s": SLOT_S,
    }
    return QueryPlan(**{**values, **changes})


def controlled(question: QuerySpec | None = None) -> QueryPlan:
    """Return a plan whose answer is disclosure-controlled."""
    return plan(question, mode=Mode.DISCLOSURE_CONTROLLED, epsilon_micro=0, delta_exponent=0)


def sums(query: QueryPlan, vehicles: int = 400, cells: tuple[int, ...] | None = None) -> Partials:
    """Return sums of made-up vehicles: those of each cell have two rows each, a little above the centre."""
    shares = cells or tuple(vehicles // query.spec.domain_size() for _ in range(query.spec.domain_size()))
    value = {PrimitiveKind.ROWS: 2, PrimitiveKind.VEHICLES: 1, PrimitiveKind.COUNT: 2, PrimitiveKind.SUM: 40}
    wanted = primitives(query.spec)
    return Partials(
        version=1,
        question=question_digest(query.spec),
        vehicles=sum(shares),
        cells=tuple(
            CellPartial(
                vehicles=n,
                values=tuple((n * value[p.kind],) for p in wanted),
                largest=tuple((value[p.kind] * (n > 0), value[p.kind] * (n > 1)) for p in wanted),
            )
            for n in shares
        ),
    )
