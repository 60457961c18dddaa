from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.raw_table import RAW_COLUMNS, Dtype
from isthmus.zone.columns import ARROW_TYPES, MAX_TEXT
from isthmus.zone.validation import CHECKED_AT_ONCE, all_validated, validated
from unit.zone.raw import drive, with_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GOOD = pa.concat_tables([drive("s1"), drive("s2", "car-2")])


def refusal_of(table: pa.Table) -> Refusal:
    with pytest.raises(Refusal) as caught:
        validated(table, name="drives.parquet")
    assert caught.value.code is Code.INPUT_INVALID
    return caught.value


def test_a_good_table_comes_back_canonical() -> None:
    checked = validated(GOOD)
    assert checked.schema == pa.schema([(c.name, ARROW_TYPES[c.dtype]) for c in RAW_COLUMNS])
    assert checked.column("x").to_pylist() == pytest.approx(GOOD.column("x").to_pylist())
    assert checked.column("vehicle").to_pylist() == GOOD.column("vehicle").to_pylist()


@settings(deadline=None)
@given(st.permutations(range(GOOD.num_rows)))
def test_rows_may_come_in_any_order(order: list[int]) -> None:
    assert validated(GOOD.take(pa.array(order))).to_pydict() == validated(GOOD).to_pydict()


def test_drives_are_sorted_by_scene_as_text() -> None:
    table = pa.concat_tables([drive("s2"), drive("s10"), drive("s1")])
    assert list(dict.fromkeys(validated(table).column("scene_id").to_pylist())) == ["s1", "s10", "s2"]


def test_encodings_of_one_type_are_equal() -> None:
    encoded = GOOD
    for name in ("vehicle", "scene_id", "type"):
        index = GOOD.schema.get_field_index(name)
        encoded = encoded.set_column(index, name, GOOD.column(name).cast(pa.large_string()).dictionary_encode())
    encoded = encoded.set_column(encoded.schema.get_field_index("x"), "x", GOOD.column("x").cast(pa.float32()))
    assert validated(encoded).equals(validated(GOOD))


@pytest.mark.parametrize("name", [c.name for c in RAW_COLUMNS if not c.required])
def test_an_optional_column_may_be_missing_or_empty(name: str) -> None:
    missing = validated(drive("s1", **{name: None}))
    empty = validated(drive("s1", **{name: pa.nulls(8)}))
    assert missing.column(name).null_count == missing.num_rows
    assert missing.equals(empty)


@pytest.mark.parametrize("name", [c.name for c in RAW_COLUMNS if c.required])
def test_a_required_column_may_not_be_missing(name: str) -> None:
    assert name in refusal_of(drive("s1", **{name: None})).what


@pytest.mark.parametrize("name", [c.name for c in RAW_COLUMNS if c.required])
def test_a_null_in_a_required_column_is_named(name: str) -> None:
    what = refusal_of(with_value(GOOD, name, 5, None)).what
    assert "Row 5" in what
    assert f"column {name}" in what


def with_null_word(table: pa.Table, name: str, row: int) -> pa.Table:
    """Encode a column as a dictionary that has a null among its words, and let one row point to it."""
    encoded = table.column(name).combine_chunks().dictionary_encode()
    words, codes = encoded.dictionary.to_pylist(), encoded.indices.to_pylist()
    codes[row] = len(words)
    column = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array([*words, None], pa.string()))
    return table.set_column(table.schema.get_field_index(name), name, column)


@pytest.mark.parametrize("name", [c.name for c in RAW_COLUMNS if c.required and c.dtype is Dtype.STRING])
@pytest.mark.parametrize("row", [0, 5, 8])
def test_a_null_among_a_dictionarys_words_is_a_null(name: str, row: int) -> None:
    what = refusal_of(with_null_word(GOOD, name, row)).what
    assert f"Row {row} of drives.parquet, column {name}: it is empty" in what
    with pytest.raises(Refusal) as caught:
        list(all_validated([drive("s0"), with_null_word(drive("s1"), name, row % 8), drive("s2")]))
    assert f"Row {row % 8} of table 1, column {name}: it is empty" in caught.value.what


def test_an_optional_text_may_be_a_null_among_its_dictionarys_words() -> None:
    assert validated(with_null_word(GOOD, "vin", 5)).equals(validated(with_value(GOOD, "vin", 5, None)))


def test_a_column_that_is_not_of_the_table_is_refused_without_its_name() -> None:
    what = str(refusal_of(GOOD.append_column("LSVCANARY", pa.nulls(GOOD.num_rows))))
    assert f"Column number {len(RAW_COLUMNS)}" in what
    assert "LSVCANARY" not in what


def test_a_column_twice_is_refused() -> None:
    assert "more than once" in refusal_of(GOOD.append_column("x", GOOD.column("x"))).what


def test_an_empty_table_is_refused() -> None:
    assert "no rows" in refusal_of(GOOD.slice(0, 0)).what


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("t", -0.2),
        ("t", 86_400.2),
        ("t", math.nan),
        ("x", math.inf),
        ("x", -1_000_001.0),
        ("y", math.nan),
        ("vx", 100.5),
        ("vy", -math.inf),
        ("heading", 6.4),
        ("heading", math.nan),
        ("length", -0.1),
        ("length", math.nan),
        ("width", 11.0),
        ("lat", 90.5),
        ("lon", -180.5),
        ("lat", math.nan),
        ("track_id", -1.0),
        ("track_id", 1.5),
        ("track_id", 2.0**31),
        ("type", "unicorn"),
        ("type", "Car"),
        ("road_type", "motorway"),
        ("vehicle", ""),
        ("scene_id", "x" * 129),
        ("vin", ""),
        ("vin", "a\u0301"),
        ("vehicle", "line\nbreak"),
    ],
)
def test_a_value_out_of_range_is_named_by_row_and_column_and_never_told(column: str, value: Any) -> None:
    refusal = refusal_of(with_value(GOOD, column, 3, value))
    assert "Row 3 of drives.parquet" in refusal.what
    assert f"column {column}:" in refusal.what
    if isinstance(value, str) and value:
        assert value not in str(refusal)


@pytest.mark.parametrize(("column", "values"), [("x", ["a"] * 8), ("vehicle", [7] * 8), ("t", [True] * 8)])
def test_a_column_of_another_type_is_refused(column: str, values: list[Any]) -> None:
    assert f"column {column}" in refusal_of(drive("s1", **{column: values})).what


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_the_first_text_that_is_no_number_is_named(type_: pa.DataType) -> None:
    values = pa.array(["1", None, "-2.5e3", " 4 ", "inf", "canary", "7", "other"], pa.string()).cast(type_)
    refusal = refusal_of(drive("s1", length=values))
    assert "Row 5 of drives.parquet, column length" in refusal.what
    assert "canary" not in str(refusal)
    assert "Row 0" in refusal_of(drive("s1", length=pa.array(["1"] * 8).cast(type_))).what


def test_bytes_that_are_not_text_are_refused() -> None:
    bad = pa.Array.from_buffers(pa.string(), 8, pa.array([b"\xff\xfe"] * 8, pa.binary()).buffers())
    assert "vin" in refusal_of(drive("s1", vin=bad)).what


@settings(deadline=None)
@given(st.integers(0, 7), st.integers(0, 8))
def test_a_repeated_row_is_found_wherever_it_stands(row: int, place: int) -> None:
    table = drive("s1")
    order = list(range(8))
    order.insert(place, row)
    positions = [n for n, r in enumerate(order) if r == row]
    what = refusal_of(table.take(pa.array(order))).what
    assert f"Row {positions[1]} " in what
    assert "twice" in what


def test_two_egos_at_one_instant_are_a_repeat() -> None:
    assert "Row 3 " in refusal_of(with_value(GOOD, "track_id", 3, 0)).what


def test_an_instant_without_an_ego_is_named() -> None:
    what = refusal_of(with_value(GOOD, "track_id", 2, 7)).what
    assert "column track_id" in what
    assert "no ego" in what


def test_a_scene_with_two_vehicles_is_named() -> None:
    what = refusal_of(with_value(GOOD, "vehicle", 6, "car-9")).what
    assert "Row 6 " in what
    assert "vehicle" in what
    assert "car-9" not in what


def test_a_scene_that_goes_on_in_another_drive_is_two_vehicles() -> None:
    assert (
        "vehicle"
        in refusal_of(pa.concat_tables([drive("s1"), drive("s1", "car-2", t=np.arange(8) // 2 * 0.2 + 2)])).what
    )


@pytest.mark.parametrize("step", [0.1, 0.17, 0.25, 0.3, 0.04])
def test_another_rate_than_5_hz_is_named(step: float) -> None:
    table = drive("s1", others=0, instants=4, t=[0.0, 0.2, 0.2 + step, 1.0])
    what = refusal_of(table).what
    assert "Row 2 " in what
    assert "column t" in what
    assert "5 Hz" in what


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.floats(-0.004, 0.004))
def test_lost_samples_and_jitter_are_fine(steps: list[int], jitter: float) -> None:
    t = np.concatenate([[0], np.cumsum(steps)]) * 0.2
    t[1::2] += jitter
    assert validated(drive("s1", others=0, instants=len(t), t=t)).num_rows == len(t)


def test_of_several_bad_tables_the_first_is_told() -> None:
    bad = with_value(drive("s2"), "x", 3, math.nan)
    worse = with_value(drive("s3"), "vx", 1, 1e9)
    with pytest.raises(Refusal) as caught:
        list(all_validated([drive("s1"), bad, worse]))
    assert "Row 3 of table 1, column x" in caught.value.what


def first_told(tables: Iterable[pa.Table], **bounds: int) -> str:
    with pytest.raises(Refusal) as caught:
        list(all_validated(tables, **bounds))
    return caught.value.what


@pytest.mark.parametrize("row", [2, 6, 8])
def test_a_scene_may_not_be_divided_between_two_tables_of_a_heap(row: int) -> None:
    whole = drive("s1", instants=6)
    told = first_told([drive("s0"), whole.slice(0, row), whole.slice(row), drive("s2")])
    assert told.startswith("Row 0 of table 2, column scene_id: an earlier table holds this scene")


@pytest.mark.parametrize("heap_rows", [8, 16, 1000])
def test_a_scene_may_not_stand_in_a_later_heap_again(heap_rows: int) -> None:
    tables = [drive("s0"), drive("s1"), drive("s2"), drive("s3"), drive("s1", "car-9"), drive("s5")]
    told = first_told(tables, heap_rows=heap_rows)
    assert told.startswith("Row 0 of table 4, column scene_id: an earlier table holds this scene")


def test_tables_of_several_schemas_may_follow_each_other() -> None:
    plain = [drive(f"s{number}") for number in range(6)]
    place = plain[0].schema.get_field_index("x")
    mixed = list(plain)
    mixed[1] = plain[1].drop_columns(["vin"])
    mixed[3] = plain[3].set_column(place, "x", plain[3].column("x").cast(pa.float32()))
    mixed[4] = plain[4].select(plain[4].schema.names[::-1])
    assert [t.to_pydict() for t in all_validated(mixed)] == [validated(t).to_pydict() for t in mixed]
    mixed[4] = with_value(mixed[4], "vx", 2, 1e9)
    assert first_told(mixed).startswith("Row 2 of table 4, column vx")


@pytest.mark.parametrize("good", [1, 2, 3, 20])
@pytest.mark.parametrize("heap_rows", [8, 24, 1000])
def test_what_is_wrong_with_a_table_is_told_before_what_is_wrong_with_taking_a_later_one(
    good: int, heap_rows: int
) -> None:
    def tables(*first: pa.Table) -> Iterator[pa.Table]:
        yield from first
        yield from (drive(f"s{number:02}") for number in range(1, good))
        raise Refusal(Code.INPUT_INVALID, "The file breaks off.")

    bad = with_value(drive("s00"), "x", 3, 1e9)
    assert first_told(tables(bad), heap_rows=heap_rows).startswith("Row 3 of table 0, column x")
    assert first_told(tables(drive("s00")), heap_rows=heap_rows) == "The file breaks off."


def test_a_table_without_rows_is_refused_before_many_more_are_taken() -> None:
    taken = []

    def tables() -> Iterator[pa.Table]:
        for number in range(1_000):
            taken.append(number)
            yield GOOD.slice(0, 0)

    assert "table 0 has no rows" in first_told(tables())
    assert len(taken) <= CHECKED_AT_ONCE + 2


@pytest.mark.parametrize(("rows", "tables_in_a_heap"), [(8, 1), (24, 3), (4, 1)])
def test_no_more_tables_are_taken_than_are_checked_side_by_side(rows: int, tables_in_a_heap: int) -> None:
    taken = []

    def tables() -> Iterator[pa.Table]:
        for number in range(20):
            taken.append(number)
            yield drive(f"s{number:02}")

    checked = all_validated(tables(), heap_rows=rows)
    next(checked)
    assert len(taken) <= (CHECKED_AT_ONCE + 1) * tables_in_a_heap + 1
    assert len(list(checked)) == 19


def first_wrong(table: pa.Table) -> tuple[int, str] | None:
    """Return row and column of the first rule that a table breaks, read row by row, or None."""
    rows = table.to_pylist()
    for column in RAW_COLUMNS:
        values = [row[column.name] for row in rows]
        present = [(row, value) for row, value in enumerate(values) if value is not None]
        missing = [row for row, value in enumerate(values) if value is None and column.required]
        low = -math.inf if column.low is None else column.low
        high = 2**31 - 1 if column.high is None else column.high
        if column.dtype is Dtype.STRING:
            broken = [
                [row for row, value in present if not 0 < len(value) <= MAX_TEXT],
                [row for row, value in present if column.values is not None and value not in column.values],
            ]
        else:
            broken = [
                [row for row, value in present if math.isnan(value)],
                [row for row, value in present if not low <= value <= high],
            ]
        for bad in (missing, *broken):
            if bad:
                return bad[0], column.name
    return first_wrong_in_drives(rows)


def first_wrong_in_drives(rows: list[dict[str, Any]]) -> tuple[int, str] | None:
    order = sorted(range(len(rows)), key=lambda n: (rows[n]["scene_id"], rows[n]["t"], rows[n]["track_id"]))
    repeated, foreign, alone, uneven = [], [], [], []
    vehicle_of: dict[str, str] = {}
    before: dict[str, Any] | None = None
    for number in order:
        row = rows[number]
        new_scene = before is None or before["scene_id"] != row["scene_id"]
        new_instant = new_scene or before is None or before["t"] != row["t"]
        if not new_instant and before is not None and before["track_id"] == row["track_id"]:
            repeated.append(number)
        if vehicle_of.setdefault(row["scene_id"], row["vehicle"]) != row["vehicle"]:
            foreign.append(number)
        if new_instant and row["track_id"] != 0:
            alone.append(number)
        if new_instant and not new_scene and before is not None:
            step = row["t"] - before["t"]
            if abs(step - max(round(step / 0.2), 1) * 0.2) > 0.01:
                uneven.append(number)
        before = row
    for bad, column in ((repeated, "track_id"), (foreign, "vehicle"), (alone, "track_id"), (uneven, "t")):
        if bad:
            return min(bad), column
    return None


def first_refusal(tables: list[pa.Table]) -> str | None:
    """Return how the refusal of several tables begins, read table by table and row by row, or None."""
    seen: set[str] = set()
    for number, table in enumerate(tables):
        wrong = first_wrong(table)
        scenes = table.column("scene_id").to_pylist()
        if wrong is None and (again := [row for row, scene in enumerate(scenes) if scene in seen]):
            wrong = again[0], "scene_id"
        if wrong is not None:
            return f"Row {wrong[0]} of table {number}, column {wrong[1]}:"
        seen |= set(scenes)
    return None


FAULTS = st.sampled_from(
    [
        *((column.name, None) for column in RAW_COLUMNS),
        *((name, math.nan) for name in ("t", "x", "lat", "length")),
        ("x", 1e7), ("vy", -101.0), ("t", 0.3), ("t", 0.4), ("t", 86_401.0), ("lon", 180.5), ("width", -0.5),
        ("track_id", 0), ("track_id", 1), ("track_id", 2), ("track_id", 5), ("track_id", -1), ("engaged", 2),
        ("scene_id", "s0"), ("scene_id", "s1"), ("scene_id", "s3"), ("scene_id", ""), ("vehicle", "car-9"),
        ("vehicle", "car-00001"), ("type", "bus"), ("type", "tram"), ("road_type", "freeway"), ("road_type", "x" * 200),
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(
    faults=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 11), FAULTS), max_size=3),
    shuffles=st.none() | st.integers(0, 9),
    heap_rows=st.sampled_from([1, 20, 36, 1000]),
)
def test_whatever_is_wrong_the_refusal_is_that_of_reading_row_by_row(
    faults: list[tuple[int, int, tuple[str, Any]]], shuffles: int | None, heap_rows: int
) -> None:
    tables = [drive(f"s{number}", f"car-{number}", others=2) for number in range(5)]
    tables[2] = pa.concat_tables([tables[2], drive("s25", "car-7", others=2)])
    for number, row, (column, value) in faults:
        tables[number] = with_value(tables[number], column, row, value)
    if shuffles is not None:
        orders = [np.random.default_rng(shuffles).permutation(table.num_rows) for table in tables]
        tables = [table.take(pa.array(order)) for table, order in zip(tables, orders, strict=True)]
    expected = first_refusal(tables)
    if expected is None:
        checked = list(all_validated(tables, heap_rows=heap_rows))
        assert [table.to_pydict() for table in checked] == [validated(table).to_pydict() for table in tables]
        return
    with pytest.raises(Refusal) as caught:
        list(all_validated(tables, heap_rows=heap_rows))
    assert caught.value.what.startswith(expected)


@pytest.mark.parametrize("type_", [pa.int64(), pa.uint8(), pa.float32(), pa.float64()])
def test_numbers_may_come_in_any_type_that_holds_them(type_: pa.DataType) -> None:
    for name in ("track_id", "x", "engaged"):
        rounded = GOOD.column(name).cast(pa.float64()).to_numpy().astype(int)
        index = GOOD.schema.get_field_index(name)
        whole = GOOD.set_column(index, name, pa.array(rounded))
        other = GOOD.set_column(index, name, pa.array(rounded).cast(type_))
        assert validated(other).equals(validated(whole))
