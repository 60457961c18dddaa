"""Rows that can count: none that counts is left out, wherever blocks end and however rows stand."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.analytics.choosing import chosen_rows, columns_read, first_rows
from isthmus.analytics.stored import DRAW, VEHICLE
from isthmus.contracts.queries import Condition
from unit.analytics.rows import figure, question, row, stored

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

VEHICLES = st.lists(st.integers(0, 3), max_size=60)
SHORT = (Condition(column="headway_s", low=0, high=500),)


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
    for table in (in_order, shuffled):
        chosen = chosen_rows(spec, table.select(columns_read(spec)), block=block)
        draws = set(chosen.column(DRAW).to_pylist())
        assert expected <= draws <= {draw for draw, _ in passing}
    whole = chosen_rows(spec, in_order.select(columns_read(spec)))
    assert set(whole.column(DRAW).to_pylist()) == expected


def _earlier(passing: list[tuple[int, str]], place: int, vehicle: str) -> int:
    return sum(other == vehicle for _, other in passing[:place])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40),
    st.integers(1, 5),
    st.sampled_from([sorted, list]),
)
def test_rows_said_to_be_all_are_at_most_so_many_of_a_vehicle(
    rows: list[tuple[int, int]], most: int, order: Callable[[list[tuple[int, int]]], list[tuple[int, int]]]
) -> None:
    placed = order(rows)
    vehicle = np.array([v for v, _ in placed], np.int32)
    draw = np.array([d for _, d in placed], np.int64)
    can, settled = first_rows(vehicle, draw, most)
    assert settled or placed != sorted(rows)
    if settled:
        assert all(count <= most for count in Counter(vehicle[can].tolist()).values())
    by_vehicle: dict[int, list[int]] = defaultdict(list)
    for v, d in placed:
        by_vehicle[v].append(d)
    kept: dict[int, list[int]] = defaultdict(list)
    for v, d in zip(vehicle[can].tolist(), draw[can].tolist(), strict=True):
        kept[v].append(d)
    for v, draws in by_vehicle.items():
        assert sorted(kept[v])[:most] == sorted(draws)[:most]
