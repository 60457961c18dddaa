"""What the fleets hand over is the raw table, and nothing in it gives the vehicle away where it should not."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.raw_table import RAW_COLUMNS, ROAD_TYPES, ROAD_USER_TYPES
from isthmus.fleet import PARAMETERS, simulate
from isthmus.fleet.handovers import draw_engaged
from isthmus.fleet.place import metres_per_degree
from isthmus.fleet.vin import check_digit, is_valid

Columns = dict[str, np.ndarray]


def test_tables_have_exactly_the_contracts_columns_types_and_no_nulls(tables: tuple[pa.Table, ...]) -> None:
    for table in tables:
        assert table.column_names == [column.name for column in RAW_COLUMNS]
        assert [
            str(field.type).replace("float", "float32") if field.type == pa.float32() else str(field.type)
            for field in table.schema
        ] == [
            {"float64": "double", "float32": "float32"}.get(column.dtype.value, column.dtype.value)
            for column in RAW_COLUMNS
        ]
        assert sum(table[name].null_count for name in table.column_names) == 0


def test_every_value_is_within_what_ingest_accepts(columns: Columns) -> None:
    for column in RAW_COLUMNS:
        values = columns[column.name]
        if column.values is not None:
            assert set(values) <= set(column.values)
        if column.low is not None and column.high is not None:
            assert np.isfinite(values).all()
            assert values.min() >= column.low
            assert values.max() <= column.high


def test_rows_are_ordered_and_unique(tables: tuple[pa.Table, ...]) -> None:
    for table in tables:
        rows = list(zip(*(table[name].to_pylist() for name in ("scene_id", "t", "track_id")), strict=True))
        assert rows == sorted(set(rows))


def test_the_ego_is_in_every_instant_of_every_drive(tables: tuple[pa.Table, ...]) -> None:
    for table in tables:
        assert pc.count_distinct(table["vehicle"]).as_py() == 1
        assert pc.count_distinct(table["scene_id"]).as_py() == 3
        for scene in pc.unique(table["scene_id"]):
            drive = table.filter(pc.equal(table["scene_id"], scene))
            ego = drive.filter(pc.equal(drive["track_id"], 0))
            assert np.allclose(ego["t"].to_numpy(), np.arange(300) / 5, atol=1e-12)
            assert set(drive["t"].to_pylist()) == set(ego["t"].to_pylist())
            assert ego["type"].unique().to_pylist() == ["car"]
            assert len(drive["road_type"].unique()) == 1


def test_every_road_type_and_road_user_occurs_where_it_should(site: str, columns: Columns) -> None:
    assert set(columns["road_type"]) == set(ROAD_TYPES)
    assert set(columns["type"]) == set(ROAD_USER_TYPES)
    on_freeway = columns["type"][columns["road_type"] == "freeway"]
    assert set(on_freeway) <= {"car", "truck", "bus"}


def test_others_are_recorded_within_the_view_and_the_nearest_first(site: str, columns: Columns) -> None:
    sensors = PARAMETERS[site].sensors
    is_ego = columns["track_id"] == 0
    instant = np.cumsum(is_ego) - 1
    away = np.hypot(*(columns[axis] - columns[axis][is_ego][instant] for axis in ("x", "y")))
    assert away.max() < sensors.view + 6 * (sensors.position + sensors.position_growth * sensors.view)
    counts = np.bincount(instant) - 1
    assert counts.max() <= sensors.most
    assert (counts >= 6).mean() > 0.2


def test_vins_are_well_formed_and_one_per_vehicle(site: str, tables: tuple[pa.Table, ...]) -> None:
    vins = [table["vin"].unique().to_pylist() for table in tables]
    assert all(len(each) == 1 for each in vins)
    assert len({each[0] for each in vins}) == len(tables)
    assert all(is_valid(each[0]) and each[0].startswith(PARAMETERS[site].wmi) for each in vins)


@pytest.mark.parametrize(("vin", "digit"), [("1M8GDM9AXKP042788", "X"), ("11111111111111111", "1")])
def test_check_digits_agree_with_published_examples(vin: str, digit: str) -> None:
    assert check_digit(vin) == digit
    assert is_valid(vin)


@pytest.mark.parametrize("bad", ["1M8GDM9A1KP042788", "1M8GDM9AXKP04278", "1M8GDM9AXKP0427I8", "1M8GDM9AXKP042789"])
def test_a_wrong_vin_is_told(bad: str) -> None:
    assert not is_valid(bad)


def test_places_follow_the_motion_within_the_receivers_error(site: str, columns: Columns) -> None:
    sensors = PARAMETERS[site].sensors
    starts = np.flatnonzero(np.r_[True, columns["scene_id"][1:] != columns["scene_id"][:-1]])
    ends = np.r_[starts[1:], len(columns["t"])]
    error = math.hypot(sensors.gps_drift, sensors.gps_jitter)
    for start, end in zip(starts, ends, strict=True):
        lat, lon, x, y = (columns[name][start:end].astype(np.float64) for name in ("lat", "lon", "x", "y"))
        per_north, per_east = metres_per_degree(lat[:1])
        north, east = (lat - lat[0]) * per_north, (lon - lon[0]) * per_east
        off = np.hypot(east - (x - x[0]), north - (y - y[0]))
        assert off.max() < 10 * error
        assert off.max() > 0.01


def test_drives_lie_near_the_fleets_cities(site: str, columns: Columns) -> None:
    low, high = ((30.8, 121.0), (31.6, 122.1)) if site == "cn-shanghai" else ((29.3, -98.2), (33.2, -95.0))
    assert columns["lat"].min() > low[0]
    assert columns["lat"].max() < high[0]
    assert columns["lon"].min() > low[1]
    assert columns["lon"].max() < high[1]


def test_motion_does_not_name_the_vehicle(tables: tuple[pa.Table, ...]) -> None:
    for table in tables:
        number = table["vehicle"][0].as_py().rsplit("-", 1)[1]
        assert all(number not in scene for scene in table["scene_id"].unique().to_pylist())


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(site: str, tables: tuple[pa.Table, ...]) -> None:
    again = next(simulate(site, 1, 3, 11))
    assert _bytes(again) == _bytes(tables[0])
    other = next(simulate(site, 1, 3, 12))
    assert _bytes(other) != _bytes(tables[0])
    assert other["vin"][0] == again["vin"][0]


def test_a_vehicle_does_not_depend_on_how_many_are_asked_for(site: str) -> None:
    few, many = list(simulate(site, 2, 0.2, 5)), list(simulate(site, 42, 0.2, 5))
    assert len(few) == 2
    assert len(many) == 42
    assert [_bytes(table) for table in few] == [_bytes(table) for table in many[:2]]


def test_the_two_fleets_share_no_drive(site: str, columns: Columns) -> None:
    other = next(simulate(next(name for name in PARAMETERS if name != site), 1, 0.2, 11))
    assert not set(other["scene_id"].to_pylist()) & set(columns["scene_id"])


@pytest.mark.parametrize(("minutes", "drives", "instants"), [(0.2, 1, 60), (1.0, 1, 300), (2.4, 2, 360)])
def test_minutes_are_cut_into_drives_of_about_a_minute(minutes: float, drives: int, instants: int) -> None:
    table = next(simulate("us-texas", 1, minutes, 1))
    assert len(table["scene_id"].unique()) == drives
    assert pc.sum(pc.equal(table["track_id"], 0)).as_py() == drives * instants


@pytest.mark.parametrize(
    ("site", "vehicles", "minutes", "seed"),
    [
        ("de-bayern", 1, 1, 1),
        ("us-texas", -1, 1, 1),
        ("us-texas", 1, 0, 1),
        ("us-texas", 1, math.nan, 1),
        ("us-texas", 1, 1, -1),
        ("us-texas", 2_000_000, 1, 1),
    ],
)
def test_what_cannot_be_simulated_is_refused_at_once(site: str, vehicles: int, minutes: float, seed: int) -> None:
    with pytest.raises(Refusal) as refused:
        simulate(site, vehicles, minutes, seed)
    assert refused.value.code is Code.INPUT_INVALID
    assert refused.value.remedy


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def test_the_driver_takes_over_seldom_and_the_whole_instant_says_so(columns: Columns) -> None:
    is_ego = columns["track_id"] == 0
    engaged = columns["engaged"]
    assert set(engaged) == {0, 1}
    assert (engaged == engaged[is_ego][np.cumsum(is_ego) - 1]).all()
    _, scene = np.unique(columns["scene_id"][is_ego], return_inverse=True)
    falls = (np.diff(engaged[is_ego]) < 0) & (np.diff(scene) == 0)
    hours = is_ego.sum() / 5 / 3600
    assert 0.5 < falls.sum() / hours < 12
    assert (engaged[columns["t"] == 0] == 1).all()


def test_denser_traffic_hands_back_more_often() -> None:
    near = np.stack([np.zeros(200_000, np.int64), np.full(200_000, 12)])
    engaged = draw_engaged(near, np.random.default_rng(1))
    few, many = (np.diff(engaged) < 0).sum(axis=1)
    assert many > 3 * few > 0
