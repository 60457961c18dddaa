"""Rows that can count: none that counts is left out, wherever blocks end and however rows stand."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.analytics.choosing import Candidates, chosen_schema, columns_read, guessed_limit
from isthmus.analytics.numbering import Blocks
from isthmus.analytics.stored import DRAW, VEHICLE
from isthmus.contracts.queries import Condition
from unit.analytics.rows import figure, question, row, stored

if TYPE_CHECKING:
    import random

    from isthmus.contracts.queries import QuerySpec

VEHICLES = st.lists(st.integers(0, 3), max_size=60)
SHORT = (Condition(column="headway_s", low=0, high=500),)


def chosen(spec: QuerySpec, table: pa.Table, block: int, limit: int | None = None) -> list[Candidates]:
    cut = Blocks.of(table.select(columns_read(spec)), 1, block)
    return [Candidates.of(spec, each, numbers, limit) for each, numbers in zip(cut.blocks, cut.numbers, strict=True)]


@settings(max_examples=60, deadline=None)
@given(VEHICLES, st.integers(1, 4), st.integers(1, 17), st.randoms(use_true_random=False))
def test_of_rows_that_pass_each_vehicles_first_are_chosen(
    vehicles: list[int], most: int, block: int, chance: random.Random
) -> None:
    rows = [
        row(f"v{vehicle}", number, headway_s=chance.choice([None, 200, 500, 501, 5_000]))
        for number, vehicle in enumerate(vehicles)
    ]
    spec = question(figure("sum", "headway_s"), where=SHORT, rows=most)
    in_order = stored(rows)
    shuffled = in_order.take(pa.array(chance.sample(range(len(rows)), len(rows)), pa.int64()))
    passing = sorted((r[DRAW], r[VEHICLE]) for r in rows if r["headway_s"] is not None and r["headway_s"] <= 500)
    expected = {draw for n, (draw, vehicle) in enumerate(passing) if _earlier(passing, n, vehicle) < most}
    limit = passing[len(passing) // 2][0] if passing else 0
    for table in (in_order, shuffled):
        found = chosen(spec, table, block)
        draws = {draw for part in found for draw in part.draw.tolist()}
        assert expected <= draws <= {draw for draw, _ in passing}
        for part in found:
            assert all(count <= most for count in Counter(part.vehicle.tolist()).values())
            assert part.vehicle.tolist() == sorted(part.vehicle.tolist())
            assert part.read(spec).column(DRAW).to_pylist() == part.draw.tolist()
        whole = chosen(spec, table, 1_000)
        assert {draw for part in whole for draw in part.draw.tolist()} == expected
        within = chosen(spec, table, 1_000, limit)
        assert {draw for part in within for draw in part.draw.tolist()} == {d for d in expected if d <= limit}


def _earlier(passing: list[tuple[int, str]], place: int, vehicle: str) -> int:
    return sum(other == vehicle for _, other in passing[:place])


def test_rows_are_read_with_their_cells_and_values_and_those_chosen_before_are_read_again() -> None:
    rows = [row("a", 1, road_type="freeway", headway_s=3), row("a", 2, traffic="dense", headway_s=None)]
    spec = question(figure("sum", "headway_s"), group_by=("road_type", "traffic"), rows=2)
    (found,) = chosen(spec, stored(rows), 10)
    read = found.read(spec)
    assert read.schema == chosen_schema(spec)
    cells = {
        (cell, value) for cell, value in zip(*(read.column(n).to_pylist() for n in ("cell", "headway_s")), strict=True)
    }
    named = spec.cells()
    assert cells == {(named.index(("freeway", "free")), 3), (named.index(("arterial", "dense")), None)}
    words = pa.DictionaryArray.from_arrays(read.column(VEHICLE), pa.array(["a"]))
    (again,) = Blocks.of(pa.table(read).set_column(0, VEHICLE, words), 1).blocks
    assert Candidates.of(spec, again, None).read(spec).equals(read)


def test_a_limit_is_guessed_where_files_share_vehicles_and_leaves_nearly_each_enough() -> None:
    rows = [row(f"v{vehicle}", number) for vehicle in range(60) for number in range(80)]
    spec = question(figure("sum", "distance_km"), rows=10)
    files = [stored(rows[start::4]).select(columns_read(spec)) for start in range(4)]
    limit = guessed_limit(spec, Blocks.of(pa.concat_tables(files), len(files)))
    assert limit is not None
    within = Counter(r[VEHICLE] for r in rows if r[DRAW] <= limit)
    assert sum(within[f"v{vehicle}"] >= 10 for vehicle in range(60)) >= 55
    assert sum(within.values()) < 60 * 40 * 0.8
    assert guessed_limit(spec, Blocks.of(stored(rows).select(columns_read(spec)), 1)) is None
    assert guessed_limit(spec, Blocks.of(stored([]).select(columns_read(spec)), 0)) is None
