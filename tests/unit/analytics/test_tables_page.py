"""The page on tables says what the catalogue says: each table, dimension, value, measure, unit, step and bound."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest

from isthmus.analytics.stored import DRAW, PLACE, VEHICLE
from isthmus.contracts.tables import TABLES, TableName
from isthmus.zone import derived, leaders

TEXT = (Path(__file__).parents[3] / "docs" / "reference" / "tables.md").read_text("utf-8")
ROWS = {line.split("|")[1].strip().strip("`"): line.split("|")[2:-1] for line in TEXT.splitlines() if line[:3] == "| `"}


def cells(name: str) -> list[str]:
    return [cell.strip() for cell in ROWS[name]]


@pytest.mark.parametrize("name", TableName)
def test_each_table_has_its_row(name: TableName) -> None:
    assert cells(name.value)[1:] == [str(TABLES[name].rows_per_vehicle), f"`{TABLES[name].group.value}`"]


def test_each_dimension_has_its_values_in_order() -> None:
    for table in TABLES.values():
        for dimension in table.dimensions:
            assert re.findall(r"`([a-z_]+)`", cells(dimension.name)[0]) == list(dimension.values)


def test_each_measure_has_its_unit_step_and_bounds() -> None:
    named = {measure.name for table in TABLES.values() for measure in table.measures}
    assert len(named) == 8
    for number, table in enumerate((TABLES[TableName.DRIVES], TABLES[TableName.MINUTES])):
        for measure in table.measures:
            unit, step, *bounds = cells(measure.name)
            assert (unit, Fraction(step)) == (measure.unit, Fraction(1, measure.steps_per_unit))
            low, high = (Fraction(bound) * measure.steps_per_unit for bound in bounds[number].split(" to "))
            assert (low, high) == (measure.low, measure.high)
            assert ("may be missing" in cells(measure.name)[-1]) is measure.optional


def test_the_page_names_the_stored_columns_and_the_definitions_numbers() -> None:
    assert all(f"`{name}`" in TEXT for name in (VEHICLE, DRAW, PLACE))
    for said in (
        f"{leaders.BESIDE_M} m beside",
        f"{leaders.AHEAD_M:.0f} m ahead",
        f"{leaders.USUAL_LENGTH_M} m",
        f"{derived.HEADWAY_FROM:.0f} m/s or more",
        f"at most {derived.LONGEST_HEADWAY:.0f} s",
        f"more than {-derived.BRAKING:.0f} m/s2",
        f"under {derived.FREE_BELOW:.0f}, under {derived.MODERATE_BELOW:.0f}",
    ):
        assert said in TEXT.replace("\n  ", " ")
