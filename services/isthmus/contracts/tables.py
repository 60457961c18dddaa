"""The catalogue of what may be asked about: derived tables, their dimensions, measures and bounds. All of it is public.

Both tables are made from the raw table at ingest, inside the zone. Nothing here depends on data: a dimension's values,
a measure's bounds and a vehicle's most rows are fixed before a drive is recorded, so that an empty group, a clamped
value or a dropped row says nothing about a vehicle.

Measures are whole numbers of `step`: speed in steps of 0.01 m/s is an integer, and so is every sum of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, unique
from types import MappingProxyType
from typing import TYPE_CHECKING

from isthmus.contracts.raw_table import ROAD_TYPES, Group

if TYPE_CHECKING:
    from collections.abc import Mapping

VEHICLE = "vehicle"
"""The privacy unit's column: it can be counted (`count(DISTINCT vehicle)`) and nothing else."""

TRAFFIC = ("free", "moderate", "dense")
"""How many other road users are near (mean over the row's time): under 2, under 6, 6 or more."""

ROAD_CLASSES: Mapping[str, str] = {
    "urban_intersection": "urban",
    "roundabout": "urban",
    "arterial": "interurban",
    "freeway": "interurban",
}
"""The declared hierarchy of roads: each type's class."""


@unique
class TableName(StrEnum):
    """The tables that can be asked about."""

    DRIVES = "drives"
    MINUTES = "minutes"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A column to group and select by.

    Attributes:
        name: its name.
        values: its public domain, in order of display.
        within: for each value, the value of the coarser dimension `parent` that holds it; empty where there is none.
        parent: the coarser dimension of the declared hierarchy, None at its top.
    """

    name: str
    values: tuple[str, ...]
    parent: str | None = None
    within: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measure:
    """A column to add up, average and select by.

    A stored value is `round(x / step)`; values outside [low, high] are clamped to it before they count.

    Attributes:
        name: its name.
        unit: SI unit, or empty for a share or a number of events.
        steps_per_unit: how many steps make one unit.
        low: smallest value that counts, in steps.
        high: largest value that counts, in steps.
        optional: true where a row may have none (no car ahead, so no headway): such rows count nowhere in it.
        about: what it measures.
    """

    name: str
    unit: str
    steps_per_unit: int
    low: int
    high: int
    about: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table.

    Attributes:
        name: its name.
        group: the column group under whose keys it is stored.
        dimensions: what it can be grouped by.
        measures: what can be added up.
        rows_per_vehicle: how many rows of one vehicle count in an answer unless the question says otherwise.
    """

    name: TableName
    group: Group
    dimensions: tuple[Dimension, ...]
    measures: tuple[Measure, ...]
    rows_per_vehicle: int

    def dimension(self, name: str) -> Dimension | None:
        """Return the dimension of this name, None where there is none."""
        return next((d for d in self.dimensions if d.name == name), None)

    def measure(self, name: str) -> Measure | None:
        """Return the measure of this name, None where there is none."""
        return next((m for m in self.measures if m.name == name), None)


_DIMENSIONS = (
    Dimension("road_type", ROAD_TYPES, "road_class", ROAD_CLASSES),
    Dimension("road_class", ("urban", "interurban")),
    Dimension("traffic", TRAFFIC),
)


def _measures(distance_high_km: int, seconds_high: int) -> tuple[Measure, ...]:
    return (
        Measure("distance_km", "km", 1_000, 0, distance_high_km * 1_000, "way of the recording vehicle"),
        Measure("duration_s", "s", 10, 0, seconds_high * 10, "time recorded"),
        Measure("speed_mps", "m/s", 100, 0, 4_000, "mean speed of the recording vehicle"),
        Measure(
            "headway_s", "s", 100, 0, 1_000,
            "mean time headway to the vehicle ahead in its lane, while there is one within 100 m", optional=True,
        ),
        Measure(
            "headway_below_1s_share", "", 1_000, 0, 1_000,
            "share of the time with a vehicle ahead in which the headway is under 1 s", optional=True,
        ),
        Measure("braking_share", "", 10_000, 0, 1_000, "share of the time with an acceleration below -2 m/s2"),
        Measure("cut_ins", "", 1, 0, 20, "vehicles that moved into the gap ahead"),
        Measure("disengagements", "", 1, 0, 10, "times the driving function handed back to the driver"),
    )  # fmt: skip


TABLES: Mapping[TableName, TableSpec] = MappingProxyType(
    {
        TableName.DRIVES: TableSpec(TableName.DRIVES, Group.DRIVES, _DIMENSIONS, _measures(3, 600), 2),
        TableName.MINUTES: TableSpec(TableName.MINUTES, Group.MINUTES, _DIMENSIONS, _measures(3, 60), 10),
    }
)
"""All that can be asked about."""
