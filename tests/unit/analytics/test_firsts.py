"""A vehicle's first rows, in one pass over rows in any order: exactly those with the smallest draws."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.analytics.firsts import FEW, are_first

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST = 2**63 - 1
DRAWS = st.one_of(
    st.integers(0, LARGEST),
    st.integers(0, 3),
    st.integers(LARGEST - 3, LARGEST),
    st.integers(-LARGEST - 1, -LARGEST + 3),
)


def taken(rows: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    vehicle = np.array([v for v, _ in rows], np.int32)
    draw = np.array([d for _, d in rows], np.int64)
    first = are_first(vehicle, draw, most)
    return sorted(row for row, taken in zip(rows, first.tolist(), strict=True) if taken)


def by_hand(rows: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    draws: dict[int, list[int]] = defaultdict(list)
    for vehicle, draw in rows:
        draws[vehicle].append(draw)
    return [(vehicle, draw) for vehicle in sorted(draws) for draw in sorted(draws[vehicle])[:most]]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), DRAWS), max_size=120), st.integers(1, 6), st.sampled_from([0, 1 << FEW]))
@example([(vehicle, draw) for draw in range(40) for vehicle in (1, 0)], 3, 0)
@example([(0, LARGEST - draw) for draw in range(40)], 3, 0)
@example([(0, draw) for draw in (-LARGEST - 1, LARGEST, *range(40))], 3, 1 << FEW)
def test_each_vehicles_smallest_draws_are_taken(rows: list[tuple[int, int]], most: int, others: int) -> None:
    """Whether or not so many other vehicles are numbered before them that numbers are sorted as 64 bits."""
    numbered = [(vehicle + others, draw) for vehicle, draw in rows]
    assert taken(numbered, most) == by_hand(numbered, most)


@pytest.mark.parametrize("spread", [1, 2**20, LARGEST // 50], ids=["bunched", "close", "wide"])
def test_a_large_fleets_files_are_merged_however_draws_lie(spread: int) -> None:
    """Files of many vehicles, some with hundreds of rows and some with one, and draws that no hash would give."""
    rng = np.random.default_rng(7)
    rows = [
        (int(vehicle), int(draw) * spread)
        for vehicle, count in enumerate(rng.geometric(0.05, size=2_000))
        for draw in rng.integers(0, 50, size=count)
    ]
    files = [sorted(rows[start::3]) for start in range(3)]
    together = [row for file in files for row in file]
    assert taken(together, 10) == by_hand(together, 10)
