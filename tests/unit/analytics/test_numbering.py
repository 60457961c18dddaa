"""Rows in blocks: all of them, once, in their order, each of the vehicle that its file names."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.analytics.numbering import SMALL, Blocks
from isthmus.analytics.stored import DRAW, TEXT, VEHICLE

WORDS = st.sampled_from(["a", "b", "c", "d"])
FILES = st.lists(
    st.tuples(st.lists(WORDS, min_size=1, max_size=5), st.lists(st.integers(0, 4), max_size=12)), max_size=9
)


def file_of(words: list[str], places: list[int], first: int) -> pa.Table:
    """A file with a dictionary of its own, whose words may be there twice or be no row's."""
    codes = pa.array([place % len(words) for place in places], pa.int32())
    vehicle = pa.DictionaryArray.from_arrays(codes, pa.array(words))
    return pa.table({VEHICLE: vehicle, DRAW: pa.array(range(first, first + len(places)), pa.int64())})


def none() -> pa.Table:
    return pa.schema([(VEHICLE, TEXT), (DRAW, pa.int64())]).empty_table()


def named(cut: Blocks) -> list[tuple[str, int]]:
    """Each row's vehicle, by its number, and its draw."""
    found = []
    for block, numbers in zip(cut.blocks, cut.numbers, strict=True):
        places = block.column(VEHICLE).indices.to_numpy()
        vehicle = places if numbers is None else numbers.take(places)
        words = cut.vehicles.take(pa.array(vehicle)).to_pylist()
        found += zip(words, block.column(DRAW).to_pylist(), strict=True)
    return found


@settings(max_examples=200, deadline=None)
@given(FILES, st.integers(12, 40), st.sampled_from([0, 1]))
def test_small_files_are_put_together_and_no_row_is_lost_or_anothers(
    files: list[tuple[list[str], list[int]]], most: int, skipped: int
) -> None:
    tables, first = [], 0
    for words, places in files:
        tables.append(file_of(words, places, first).slice(skipped))
        first += len(places)
    rows = pa.concat_tables([none(), *tables])
    cut = Blocks.of(rows, len(files), most)
    assert named(cut) == list(zip(*(rows.column(name).to_pylist() for name in (VEHICLE, DRAW)), strict=True))
    assert all(0 < block.num_rows <= most for block in cut.blocks)
    assert len(set(cut.vehicles.to_pylist())) == len(cut.vehicles)
    lying = [set(block.column(DRAW).to_pylist()) for block in cut.blocks]
    for table in tables:  # whole, in one block
        assert sum(not draws.isdisjoint(table.column(DRAW).to_pylist()) for draws in lying) == min(1, table.num_rows)
    filled = [one.num_rows + two.num_rows for one, two in zip(cut.blocks, cut.blocks[1:], strict=False)]
    assert all(each > most for each in filled)


def test_a_large_file_stays_where_it_lies_between_small_ones() -> None:
    small, large = file_of(["a"], [0] * 10, 0), file_of(["b", "a"], [0, 1] * SMALL, 10)
    cut = Blocks.of(pa.concat_tables([small, small, large, small]), 4, 4 * SMALL)
    assert [block.num_rows for block in cut.blocks] == [20, 2 * SMALL, 10]
    theirs, ours = (column.buffers()[1] for column in (large.column(DRAW).chunk(0), cut.blocks[1].column(DRAW)))
    assert theirs.address == ours.address
