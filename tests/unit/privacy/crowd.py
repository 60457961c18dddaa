"""Made-up vehicles, and the exact sums that a zone's compute would hand its border for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.identifiers import Digest
from isthmus.contracts.queries import (
    Answer,
    CellAnswer,
    CellPartial,
    Condition,
    Figure,
    FigureKind,
    Mode,
    Noise,
    Partials,
    PrimitiveKind,
    QueryPlan,
    QuerySpec,
    in_order,
    primitives,
)
from isthmus.contracts.tables import TABLES, TableName
from isthmus.proof.ids import question_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isthmus.contracts.queries import Primitive

CATALOGUE = Digest.of(b"catalogue")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: values in steps, None where there is none."""

    vehicle: int
    dimensions: Mapping[str, str]
    measures: Mapping[str, int | None] = field(default_factory=dict)


def figure(kind: FigureKind, measure: str | None = None, *, bins: int | None = None, at: Iterable[int] = ()) -> Figure:
    return Figure(kind=kind, measure=measure, bins=bins, quantiles_ppm=tuple(at))


def question(
    *figures: Figure,
    by: Sequence[str] = (),
    where: Sequence[Condition] = (),
    rows: int | None = None,
    groups: int | None = None,
    table: TableName = TableName.DRIVES,
) -> QuerySpec:
    rows = rows or TABLES[table].rows_per_vehicle
    spec = {
        "version": 1,
        "table": table,
        "group_by": tuple(sorted(by)),
        "where": tuple(sorted(where, key=lambda c: c.column)),
        "figures": tuple(in_order(figures)),
        "rows_per_vehicle": rows,
    }
    cells = QuerySpec.model_validate({**spec, "groups_per_vehicle": 1}).domain_size()
    return QuerySpec.model_validate({**spec, "groups_per_vehicle": groups or min(cells, rows)})


HEADLINE = {
    "vehicles": question(figure(FigureKind.VEHICLES)),
    "kilometres by road type": question(figure(FigureKind.SUM, "distance_km"), by=["road_type"]),
    "mean speed": question(figure(FigureKind.MEAN, "speed_mps")),
    "share of headway under 1 s": question(figure(FigureKind.MEAN, "headway_below_1s_share")),
    "braking share": question(figure(FigureKind.MEAN, "braking_share")),
}
"""The figures that fleets are asked for first."""


def plan(spec: QuerySpec, epsilon: float = 1.0, *, delta_exponent: int = 6, mode: Mode = Mode.DP) -> QueryPlan:
    private = mode is Mode.DP
    return QueryPlan(
        spec=spec,
        catalogue=CATALOGUE,
        mode=mode,
        epsilon_micro=round(epsilon * 1e6) if private else 0,
        delta_exponent=delta_exponent if private else 0,
        slot_s=1,
    )


def partials(spec: QuerySpec, rows: Sequence[Row]) -> Partials:
    """Add rows up as compute would: conditions, the first rows of each vehicle, its first cells, clamped values."""
    index = {cell: place for place, cell in enumerate(spec.cells())}
    needed = primitives(spec)
    kept: dict[int, list[tuple[int, Row]]] = {}
    for row in rows:
        mine = kept.setdefault(row.vehicle, [])
        cell = index.get(tuple(row.dimensions[name] for name in spec.group_by))
        if cell is None or len(mine) >= spec.rows_per_vehicle or not _holds(spec, row):
            continue
        cells = {place for place, _ in mine}
        if cell in cells or len(cells) < spec.groups_per_vehicle:
            mine.append((cell, row))
    totals = [[np.zeros(p.width, dtype=np.int64) for p in needed] for _ in index]
    largest: list[list[list[int]]] = [[[0, 0] for _ in needed] for _ in index]
    vehicles = [0] * len(index)
    for mine in kept.values():
        for cell in {place for place, _ in mine}:
            own = [row for place, row in mine if place == cell]
            vehicles[cell] += 1
            for place, primitive in enumerate(needed):
                added = contribution(spec, primitive, own)
                totals[cell][place] += added
                top = largest[cell][place]
                weight = int(np.abs(added).sum())
                if primitive.kind is PrimitiveKind.SUM:
                    weight = abs(sum(v for row in own if (v := row.measures[primitive.measure or ""]) is not None))
                top[:] = sorted([*top, weight], reverse=True)[:2]
    return Partials(
        version=1,
        question=question_digest(spec),
        vehicles=sum(1 for mine in kept.values() if mine),
        cells=tuple(
            CellPartial(
                vehicles=vehicles[cell],
                values=tuple(tuple(int(n) for n in numbers) for numbers in totals[cell]),
                largest=tuple((top[0], top[1]) for top in largest[cell]),
            )
            for cell in range(len(index))
        ),
    )


def contribution(spec: QuerySpec, primitive: Primitive, own: Sequence[Row]) -> np.ndarray:
    """Return what one vehicle's rows of one cell add to a primitive."""
    if primitive.kind is PrimitiveKind.VEHICLES:
        return np.ones(1, dtype=np.int64)
    if primitive.measure is None:
        return np.array([len(own)])
    measure = TABLES[spec.table].measure(primitive.measure)
    assert measure is not None
    centre = (measure.low + measure.high) // 2
    values = [min(max(v, measure.low), measure.high) for row in own if (v := row.measures[measure.name]) is not None]
    match primitive.kind:
        case PrimitiveKind.COUNT:
            return np.array([len(values)])
        case PrimitiveKind.SUM:
            return np.array([sum(v - centre for v in values)])
        case PrimitiveKind.SQUARES:
            return np.array([sum((v - centre) ** 2 for v in values)])
        case _:
            bins = np.zeros(primitive.width, dtype=np.int64)
            for v in values:
                bins[
                    min(primitive.width - 1, (v - measure.low) * primitive.width // (measure.high - measure.low + 1))
                ] += 1
            return bins


def _holds(spec: QuerySpec, row: Row) -> bool:
    for condition in spec.where:
        if condition.values:
            if row.dimensions[condition.column] not in condition.values:
                return False
            continue
        measure = TABLES[spec.table].measure(condition.column)
        value = row.measures[condition.column]
        assert measure is not None
        if value is None:
            return False
        value = min(max(value, measure.low), measure.high)
        low = measure.low if condition.low is None else condition.low
        high = measure.high if condition.high is None else condition.high
        if not low <= value <= high:
            return False
    return True


ROADS = ("urban_intersection", "roundabout", "arterial", "freeway")
MIX = {"cn": (0.45, 0.08, 0.30, 0.17), "us": (0.25, 0.05, 0.35, 0.35)}
SPEED = (5.2, 5.1, 11.0, 25.0)
CLOSE = {"cn": 0.147, "us": 0.032}
BRAKING = {"cn": 0.0057, "us": 0.010}


def fleet(zone: str = "cn", vehicles: int = 2_000, drives: int = 2, seed: int = 1) -> list[Row]:
    """Drives of about a minute with the road mix and the calibrated figures of a zone's simulated fleet."""
    rng = np.random.default_rng(seed)
    road = rng.choice(4, size=(vehicles, drives), p=MIX[zone])
    speed = np.clip(rng.normal(np.array(SPEED)[road], 0.3 * np.array(SPEED)[road]), 0.2, 39)
    ahead = rng.random((vehicles, drives)) < 0.6
    close = np.clip(rng.beta(0.4, 0.4 * (1 / CLOSE[zone] - 1), size=(vehicles, drives)), 0, 1)
    braking = np.clip(rng.exponential(BRAKING[zone], size=(vehicles, drives)), 0, 0.1)
    traffic = rng.choice(3, size=(vehicles, drives), p=(0.4, 0.4, 0.2))
    return [
        Row(
            vehicle,
            {
                "road_type": ROADS[road[vehicle, drive]],
                "road_class": "urban" if road[vehicle, drive] < 2 else "interurban",
                "traffic": ("free", "moderate", "dense")[traffic[vehicle, drive]],
            },
            {
                "distance_km": round(speed[vehicle, drive] * 60),
                "duration_s": 600,
                "speed_mps": round(speed[vehicle, drive] * 100),
                "headway_s": round(100 * (1.2 + close[vehicle, drive])) if ahead[vehicle, drive] else None,
                "headway_below_1s_share": round(close[vehicle, drive] * 1_000) if ahead[vehicle, drive] else None,
                "braking_share": round(braking[vehicle, drive] * 10_000),
                "cut_ins": 0,
                "disengagements": 0,
            },
        )
        for vehicle in range(vehicles)
        for drive in range(drives)
    ]


def exact_answer(sums: Partials) -> Answer:
    """Return the answer that would tell everything: what figures are held against."""
    return Answer(
        version=1,
        question=sums.question,
        mode=Mode.DISCLOSURE_CONTROLLED,
        noise=tuple(Noise(mechanism="none", scale_micro=0) for _ in sums.cells[0].values),
        cells=tuple(CellAnswer(suppressed=False, values=cell.values) for cell in sums.cells),
        repeated=False,
        epsilon_micro=0,
        delta_exponent=0,
    )
