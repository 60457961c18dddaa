from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.raw_table import RAW_COLUMNS, Group
from isthmus.zone.drives import VEHICLES_PER_FILE, batches, drives_of, group_columns, raw_bytes, vehicles_of
from isthmus.zone.validation import validated
from unit.zone.raw import drive


def rows_of(tables: list[pa.Table]) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values()) for table in tables for row in table.to_pylist())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=30), min_size=1, max_size=6))
def test_batches_keep_every_row_once_and_no_more_vehicles_than_a_file_takes(inputs: list[list[int]]) -> None:
    tables = [
        validated(
            pa.concat_tables([drive(f"s{n}-{m}", f"car-{vehicle}", instants=1) for m, vehicle in enumerate(part)])
        )
        for n, part in enumerate(inputs)
    ]
    made = list(batches(tables))
    assert rows_of(made) == rows_of(tables)
    assert all(1 <= len(vehicles_of(batch)) <= VEHICLES_PER_FILE for batch in made)
    for batch in made:
        keys = list(zip(*(batch.column(name).to_pylist() for name in ("scene_id", "t", "track_id")), strict=True))
        assert keys == sorted(keys)


def test_a_batch_knows_only_the_names_of_its_own_vehicles() -> None:
    table = validated(pa.concat_tables([drive(f"s{n:02}", f"car-{n:02}", instants=1) for n in range(30)]))
    first, second = batches([table])
    assert set(first.column("vehicle").chunk(0).dictionary.to_pylist()).isdisjoint(vehicles_of(second))


def test_a_heavy_drive_has_a_file_of_its_own() -> None:
    light, heavy = drive("s1", "car-1", instants=2), drive("s2", "car-2", instants=300)
    size = raw_bytes(validated(heavy))
    many = [validated(light), validated(heavy), validated(drive("s3", "car-3", instants=300))]
    made = list(batches(many, weight_limit=size))
    assert [vehicles_of(batch) for batch in made] == [("car-1",), ("car-2",), ("car-3",)]


def test_groups_have_the_same_rows_and_only_identity_names_the_vehicle() -> None:
    table = validated(pa.concat_tables([drive("s1", "car-1"), drive("s2", "car-2")]))
    parts = group_columns(table, {"car-1": "p-one", "car-2": "p-two"})
    assert {part.num_rows for part in parts.values()} == {16}
    assert parts[Group.IDENTITY].column_names == ["vehicle", "vin"]
    assert parts[Group.PLACE].column_names == ["lat", "lon"]
    motion = parts[Group.MOTION]
    assert motion.column_names == ["vehicle_pseudonym", *(c.name for c in RAW_COLUMNS if c.group is Group.MOTION)]
    assert motion.column("vehicle_pseudonym").to_pylist() == ["p-one"] * 8 + ["p-two"] * 8
    assert "car-" not in str(motion.to_pydict())


def test_raw_bytes_are_those_of_plain_arrow_columns() -> None:
    table = validated(drive("scene-é", instants=7))
    plain = {
        field.name: pa.array(column.to_pylist(), pa.string() if pa.types.is_dictionary(field.type) else field.type)
        for field, column in zip(table.schema, table.columns, strict=True)
    }
    assert raw_bytes(table) == pa.table(plain).nbytes


def test_drives_and_vehicles_are_counted() -> None:
    table = validated(pa.concat_tables([drive("s1", "b"), drive("s2", "a"), drive("s3", "b")]))
    assert drives_of(table) == 3
    assert vehicles_of(table) == ("b", "a")


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)), st.sampled_from([1, 40]))
def test_short_and_long_drives_come_out_in_order_and_say_nothing_of_the_inputs_order(
    order: list[int], instants: int
) -> None:
    tables = [validated(drive(f"s{n}", f"car-{n % 3}", instants=instants, others=2)) for n in order]
    (batch,) = batches(tables)
    assert rows_of([batch]) == rows_of(tables)
    keys = list(zip(*(batch.column(name).to_pylist() for name in ("scene_id", "t", "track_id")), strict=True))
    assert keys == sorted(keys)
    for name in ("vehicle", "vin", "scene_id"):
        column = batch.column(name).combine_chunks()
        assert column.dictionary.to_pylist() == list(dict.fromkeys(column.to_pylist()))


def test_texts_that_are_missing_stay_so() -> None:
    tables = [validated(drive("s2", vin=None)), validated(drive("s1", "car-2", vin=["A", None] * 4))]
    (batch,) = batches(tables)
    assert batch.column("vin").to_pylist() == ["A", None] * 4 + [None] * 8
    assert batch.column("vin").combine_chunks().dictionary.to_pylist() == ["A"]
    assert vehicles_of(batch) == ("car-2", "car-1")
