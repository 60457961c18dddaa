"""Stored rows to count, made up."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from isthmus.analytics.stored import DRAW, PLACE, VEHICLE, schema_of
from isthmus.contracts.queries import Condition, Figure, FigureKind, QuerySpec, in_order
from isthmus.contracts.tables import TABLES, TableName

if TYPE_CHECKING:
    from collections.abc import Sequence

DRIVES = TABLES[TableName.DRIVES]


def row(vehicle: str, number: int = 0, **said: Any) -> dict[str, Any]:
    """One drive of a vehicle. Rows that say the same are the same row, so a number tells them apart."""
    values: dict[str, Any] = {
        "road_type": "arterial", "road_class": "interurban", "traffic": "free", "distance_km": 1_000,
        "duration_s": 600, "speed_mps": 1_500, "headway_s": 200, "headway_below_1s_share": 0, "braking_share": 0,
        "cut_ins": 0, "disengagements": 0, **said,
    }  # fmt: skip
    draw = hashlib.sha256(repr((vehicle, number, sorted(values.items()))).encode()).digest()
    return {VEHICLE: vehicle, DRAW: int.from_bytes(draw[:8]) >> 1, **values}


def stored(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A file's table: rows by vehicle and draw, with their places."""
    ordered = sorted(rows, key=lambda r: (r[VEHICLE], r[DRAW]))
    places: dict[str, int] = {}
    placed = []
    for each in ordered:
        place = places.setdefault(each[VEHICLE], 0)
        places[each[VEHICLE]] += 1
        placed.append({**each, PLACE: place})
    return pa.Table.from_pylist(placed, schema=schema_of(DRIVES))


def figure(kind: str, measure: str | None = None, **more: Any) -> Figure:
    return Figure(kind=FigureKind(kind), measure=measure, **more)


EVERYTHING = (
    figure("rows"),
    figure("vehicles"),
    figure("mean", "headway_s"),
    figure("variance", "speed_mps"),
    figure("sum", "distance_km"),
    figure("histogram", "distance_km", bins=7),
)


def question(
    *figures: Figure,
    group_by: tuple[str, ...] = (),
    where: tuple[Condition, ...] = (),
    rows: int = 2,
    groups: int = 1,
) -> QuerySpec:
    return QuerySpec(
        version=1,
        table=TableName.DRIVES,
        group_by=group_by,
        where=where,
        figures=tuple(in_order(figures or EVERYTHING)),
        rows_per_vehicle=rows,
        groups_per_vehicle=groups,
    )
