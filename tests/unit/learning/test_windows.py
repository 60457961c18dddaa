from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.learning.windows import Windows, concatenate, extract, split_by_vehicle
from unit.learning.tracks import SCHEMA, Mover, drive


def replace_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def refused_with(table: pa.Table) -> str:
    with pytest.raises(Refusal) as refusal:
        extract(table)
    assert refusal.value.code is Code.INPUT_INVALID
    return refusal.value.what


def test_the_inputs_of_a_straight_drive_are_those_of_the_task_in_order_and_unit() -> None:
    # The ego goes north at 10 m/s; one neighbour 4 m to its left, 20 m/s faster and 2 m ahead when history ends.
    ego = Mover(speed=10.0, heading=math.pi / 2)
    neighbour = Mover(speed=30.0, heading=math.pi / 2, x=-4.0, y=2.0 - 40.0)
    (inputs,) = extract(drive(ego, neighbour)).inputs
    earlier, velocities, neighbours = (
        inputs[:20].reshape(10, 2),
        inputs[20:42].reshape(11, 2),
        inputs[42:].reshape(6, 5),
    )
    np.testing.assert_allclose(earlier[:, 0], np.arange(-10, 0) * 2.0 / 10.0, atol=1e-5)
    np.testing.assert_allclose(earlier[:, 1], 0.0, atol=1e-5)
    np.testing.assert_allclose(velocities, [[10.0, 0.0]] * 11, atol=1e-5)
    np.testing.assert_allclose(neighbours[0], [2.0 / 10.0, 4.0 / 10.0, 20.0 / 5.0, 0.0, 1.0], atol=1e-5)
    assert not neighbours[1:].any()


def test_the_six_nearest_of_many_neighbours_are_kept_nearest_first() -> None:
    distances = [90.0, 20.0, 50.0, 10.0, 70.0, 30.0, 60.0, 40.0]
    others = [Mover(x=d) for d in distances]
    (inputs,) = extract(drive(Mover(), *others)).inputs
    np.testing.assert_allclose(inputs[42:].reshape(6, 5)[:, 0] * 10.0, [10, 20, 30, 40, 50, 60], atol=1e-4)


def test_a_target_is_what_lies_beside_constant_velocity_in_the_frame_of_now() -> None:
    ego = Mover(speed=10.0, turn_rate=0.2, x=500.0, y=-300.0, heading=2.0)
    (residual,) = extract(drive(ego)).residuals
    t = np.arange(1, 16) * 0.2
    np.testing.assert_allclose(residual[:, 0], 50.0 * np.sin(0.2 * t) - 10.0 * t, atol=1e-3)
    np.testing.assert_allclose(residual[:, 1], 50.0 * (1 - np.cos(0.2 * t)), atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-1000, 1000), y=st.floats(-1000, 1000), heading=st.floats(-3, 3), turn_rate=st.floats(-0.5, 0.5))
def test_where_a_drive_happened_does_not_show(x: float, y: float, heading: float, turn_rate: float) -> None:
    def windows_at(x: float, y: float, heading: float) -> Windows:
        c, s = math.cos(heading), math.sin(heading)
        other = Mover(speed=5.0, x=x + 7 * c - 3 * s, y=y + 7 * s + 3 * c, heading=heading)
        return extract(drive(Mover(turn_rate=turn_rate, x=x, y=y, heading=heading), other))

    here, there = windows_at(0.0, 0.0, 0.0), windows_at(x, y, heading)
    np.testing.assert_allclose(there.inputs, here.inputs, atol=2e-3)
    np.testing.assert_allclose(there.residuals, here.residuals, atol=5e-3)


def test_the_inputs_know_nothing_of_the_future() -> None:
    table = drive(Mover(turn_rate=0.1), Mover(x=5.0), samples=26)
    future = table["t"].to_numpy() > 2.05
    x = np.where(future, 777.0, table["x"].to_numpy()).astype(np.float32)
    heading = np.where(future, 1.5, table["heading"].to_numpy()).astype(np.float32)
    other = replace_column(replace_column(table, "x", pa.array(x)), "heading", pa.array(heading))
    np.testing.assert_array_equal(extract(other).inputs, extract(table).inputs)
    np.testing.assert_array_equal(extract(other).turn_rate, extract(table).turn_rate)
    assert not np.array_equal(extract(other).residuals, extract(table).residuals)


@pytest.mark.parametrize(("samples", "expected"), [(25, 0), (26, 1), (30, 1), (31, 2), (900, 175)])
def test_a_window_starts_every_second_while_five_seconds_are_left(samples: int, expected: int) -> None:
    assert len(extract(drive(Mover(), samples=samples))) == expected


def test_no_window_spans_a_gap_or_two_drives() -> None:
    assert len(extract(drive(Mover(), samples=52, missing=(26,)))) == 1
    assert len(extract(drive(Mover(), Mover(x=5.0), samples=53, missing=(26,)))) == 2
    assert len(extract(drive(Mover(), samples=50, missing=(25,)))) == 0
    two = pa.concat_tables([drive(Mover(), scene="s1", samples=20), drive(Mover(), scene="s2", samples=20)])
    assert len(extract(two)) == 0
    # the second drive goes on where the first ended, in another car
    first = drive(Mover(), vehicle="v1", samples=40)
    halves = pa.array(["v1"] * 20 + ["v2"] * 20)
    assert len(extract(replace_column(first, "vehicle_pseudonym", halves))) == 0


def test_neighbours_come_from_the_same_instant_of_the_same_drive() -> None:
    lonely = drive(Mover(), scene="s1", vehicle="v1")
    crowded = drive(Mover(), Mover(x=5.0), scene="s2", vehicle="v2")
    present = extract(pa.concat_tables([lonely, crowded])).inputs[:, 42 + 4 :: 5]
    assert present.sum(axis=1).tolist() == [0.0, 1.0]


def test_the_turn_rate_is_that_of_the_circle_and_one_wild_heading_does_not_move_it() -> None:
    table = drive(Mover(turn_rate=0.3, heading=3.0))
    heading = table["heading"].to_numpy().copy()
    heading[4] += 1.0
    (rate,) = extract(replace_column(table, "heading", pa.array(heading))).turn_rate
    assert rate == pytest.approx(0.3, abs=0.02)
    (clean,) = extract(table).turn_rate
    assert clean == pytest.approx(0.3, abs=1e-4)


def test_dictionary_encoded_and_chunked_columns_give_the_same_windows() -> None:
    parts = [
        drive(Mover(), vehicle="v2", scene="a", road_type="freeway"),
        drive(Mover(speed=3.0), vehicle="v1", scene="b", road_type="roundabout"),
    ]
    plain = extract(pa.concat_tables(parts).combine_chunks())
    for name in ("vehicle_pseudonym", "scene_id", "type", "road_type"):
        parts = [replace_column(part, name, part[name].combine_chunks().dictionary_encode()) for part in parts]
    encoded = extract(pa.concat_tables(parts))
    assert encoded.vehicle_names == plain.vehicle_names == ("v1", "v2")
    assert encoded.vehicles.tolist() == plain.vehicles.tolist() == [1, 0]
    assert encoded.road_types.tolist() == plain.road_types.tolist() == [3, 1]
    np.testing.assert_array_equal(encoded.inputs, plain.inputs)


def test_an_empty_table_has_no_windows() -> None:
    windows = extract(pa.Table.from_pylist([], schema=SCHEMA))
    assert len(windows) == 0
    assert windows.inputs.shape == (0, 72)
    assert windows.vehicle_names == ()


def test_rows_out_of_order_or_repeated_are_refused_by_row() -> None:
    table = drive(Mover(), Mover(x=5.0))
    assert "Row 1 " in refused_with(table.take([1, 0, *range(2, 52)]))
    assert "Row 1 " in refused_with(table.take([0, 0, *range(1, 52)]))
    assert "Row 2 " in refused_with(table.take([2, 3, 0, 1, *range(4, 52)]))


def test_columns_that_are_missing_or_hold_no_values_are_refused_by_name() -> None:
    table = drive(Mover())
    assert "heading" in refused_with(table.drop_columns(["heading"]))
    nulls = pa.nulls(table.num_rows, pa.float32())
    assert "vx" in refused_with(replace_column(table, "vx", nulls))
    nan = pa.array(np.full(table.num_rows, np.nan, np.float32))
    assert "x" in refused_with(replace_column(table, "x", nan))
    assert "y" in refused_with(replace_column(table, "y", table["scene_id"]))
    assert "scene_id" in refused_with(replace_column(table, "scene_id", table["x"]))
    hidden = pa.DictionaryArray.from_arrays(pa.array([0] * 26, pa.int32()), pa.array([None], pa.string()))
    assert "vehicle_pseudonym" in refused_with(replace_column(table, "vehicle_pseudonym", hidden))
    assert "road types" in refused_with(drive(Mover(), road_type="canal"))


def fleet(count: int, samples: int = 31) -> pa.Table:
    return pa.concat_tables(
        [drive(Mover(speed=1.0 + k), vehicle=f"v{k:02d}", scene=f"s{k:02d}", samples=samples) for k in range(count)]
    )


def test_a_split_shares_no_vehicle_and_loses_no_window() -> None:
    windows = extract(fleet(10))
    train, test = split_by_vehicle(windows, 3, "2026q3")
    assert len(test.vehicle_names) == 3
    assert not set(train.vehicle_names) & set(test.vehicle_names)
    assert set(train.vehicle_names) | set(test.vehicle_names) == set(windows.vehicle_names)
    for part in (train, test):
        speeds = part.velocity[:, 0]  # vehicle number k drives at 1 + k m/s
        assert [part.vehicle_names[v] for v in part.vehicles] == [f"v{round(float(s)) - 1:02d}" for s in speeds]
    assert len(train) + len(test) == len(windows) == 20


def test_a_split_goes_by_salt_and_pseudonyms_and_not_by_what_else_is_there() -> None:
    windows = extract(fleet(12))
    backwards = concatenate([extract(fleet(12, samples=26)), windows])
    chosen = split_by_vehicle(windows, 4, "a")[1].vehicle_names
    assert split_by_vehicle(backwards, 4, "a")[1].vehicle_names == chosen
    assert any(split_by_vehicle(windows, 4, salt)[1].vehicle_names != chosen for salt in "bcd")
    assert set(split_by_vehicle(windows, 3, "a")[1].vehicle_names) < set(chosen)


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    windows = extract(fleet(3))
    assert len(split_by_vehicle(windows, 0, "a")[1]) == 0
    for held_out in (3, 4, -1):
        with pytest.raises(Refusal):
            split_by_vehicle(windows, held_out, "a")


def test_joined_windows_keep_their_vehicles() -> None:
    one = extract(drive(Mover(speed=1.0), vehicle="b"))
    two = extract(
        pa.concat_tables([drive(Mover(speed=2.0), vehicle="c"), drive(Mover(speed=1.0), vehicle="b", scene="z")])
    )
    joined = concatenate([two, one])
    assert joined.vehicle_names == ("b", "c")
    assert [joined.vehicle_names[v] for v in joined.vehicles] == ["c", "b", "b"]
    np.testing.assert_allclose(joined.velocity[:, 0], [2.0, 1.0, 1.0], atol=1e-5)
    with pytest.raises(Refusal):
        concatenate([])
