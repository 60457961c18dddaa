from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from isthmus.contracts.errors import Code, Refusal
from isthmus.learning import metrics, windows
from isthmus.zone.drives import batches, group_columns, vehicles_of
from isthmus.zone.sources import tables_of
from isthmus.zone.tracks import drives_from_tracks
from isthmus.zone.validation import all_validated, validated

TRACKS = "ISTHMUS_TRACKS"


def track(name: str, *, seconds: float = 8.0, rate: float = 10.0, begin: float = 0.0, **changed: Any) -> pa.Table:
    """One road user that goes along x at 10 m/s from x = 1000."""
    t = begin + np.arange(round(seconds * rate) + 1) / rate
    columns: dict[str, Any] = {
        "country": ["CN"] * len(t),
        "scene_id": ["crossroad"] * len(t),
        "track_id": [name] * len(t),
        "t": t.astype(np.float32),
        "x": 1000 + 10 * (t - begin),
        "y": np.zeros(len(t)),
        "vx": np.full(len(t), 10.0),
        "vy": np.zeros(len(t)),
        "heading": np.zeros(len(t)),
        "length": np.full(len(t), np.nan, np.float32),
        "width": np.full(len(t), np.nan, np.float32),
        "type": ["car"] * len(t),
        "road_type": ["intersection"] * len(t),
    }
    columns.update({key: [value] * len(t) if np.isscalar(value) else value for key, value in changed.items()})
    return pa.table({key: value for key, value in columns.items() if value is not None})


def drives(*tracks: pa.Table) -> list[pa.Table]:
    return [validated(drive) for drive in drives_from_tracks(pa.concat_tables(tracks))]


def refusal_of(*tracks: pa.Table) -> Refusal:
    with pytest.raises(Refusal) as caught:
        list(drives_from_tracks(pa.concat_tables(tracks), name="tracks.csv"))
    assert caught.value.code is Code.INPUT_INVALID
    return caught.value


def test_every_long_track_is_the_ego_of_a_drive_and_the_others_its_neighbours() -> None:
    first, second = drives(track("a"), track("b", y=20.0))
    for drive in (first, second):
        assert set(drive.column("track_id").to_pylist()) in ({0, 1}, {0, 2})
        assert drive.num_rows == 82
    ego = first.filter(pa.compute.equal(first.column("track_id"), 0))
    assert ego.column("x").to_pylist() == pytest.approx([2.0 * n for n in range(41)], abs=1e-4)
    assert first.column("vehicle")[0] != second.column("vehicle")[0]


def test_time_starts_at_zero_and_place_at_the_origin() -> None:
    (drive,) = drives(track("a", begin=1234.5, y=-77.0))
    assert drive.column("t").to_pylist() == pytest.approx([0.2 * n for n in range(41)])
    assert (drive.column("x")[0].as_py(), drive.column("y")[0].as_py()) == (0.0, 0.0)


@pytest.mark.parametrize("rate", [2.0, 4.0, 5.0, 7.0, 10.0, 25.0, 29.97])
def test_any_rate_comes_to_5_hz(rate: float) -> None:
    (drive,) = drives(track("a", rate=rate))
    t = np.array(drive.column("t").to_pylist())
    assert np.diff(t) == pytest.approx(0.2)
    assert np.array(drive.column("x").to_pylist()) == pytest.approx(10 * t, abs=0.1)


def test_nothing_is_invented_in_a_gap() -> None:
    whole = track("a")
    gap = pa.compute.invert(pa.compute.and_(pa.compute.greater(whole["t"], 3.05), pa.compute.less(whole["t"], 3.95)))
    (drive,) = drives(whole.filter(gap))
    t = drive.column("t").to_pylist()
    assert t == pytest.approx([0.2 * n for n in range(41) if not 3.0 < 0.2 * n < 3.99])


def test_headings_go_along_the_shorter_arc_and_are_wrapped() -> None:
    heading = [math.pi - 0.05 if n % 2 == 0 else -math.pi + 0.05 for n in range(17)]
    (drive,) = drives(track("a", rate=2.0, heading=heading))
    assert np.abs(drive.column("heading").to_pylist()).min() >= math.pi - 0.06
    (drive,) = drives(track("a", heading=7 * math.pi + 1))
    assert drive.column("heading").to_pylist() == pytest.approx([1 - math.pi] * 41)


def test_short_tracks_and_those_on_two_wheels_are_neighbours_only() -> None:
    tracks = (track("a"), track("b", seconds=5.0, y=5.0), track("c", type="bicycle", y=9.0))
    (drive,) = drives(*tracks)
    assert set(drive.column("track_id").to_pylist()) == {0, 2, 3}
    assert set(drive.column("type").to_pylist()) == {"car", "two_wheeler"}


@pytest.mark.parametrize(("away", "seen"), [(49.9, True), (50.1, False)])
def test_a_neighbour_is_within_50_m(away: float, *, seen: bool) -> None:
    first, _ = drives(track("a"), track("b", y=away))
    assert (1 in first.column("track_id").to_pylist() or 2 in first.column("track_id").to_pylist()) is seen


def test_tracks_of_another_scene_are_not_near() -> None:
    assert [drive.num_rows for drive in drives(track("a"), track("a", scene_id="other"))] == [41, 41]


def test_nothing_of_the_source_s_names_is_kept() -> None:
    (drive,) = drives(track("VIN-canary", scene_id="plate-canary"))
    assert "canary" not in str(drive.to_pydict())
    for name in ("vin", "lat", "lon", "length", "width"):
        assert drive.column(name).null_count == drive.num_rows


def test_missing_types_are_defaulted_and_known_ones_mapped() -> None:
    (drive,) = drives(track("a", type=None, road_type=None))
    assert (drive.column("type")[0].as_py(), drive.column("road_type")[0].as_py()) == ("car", "urban_intersection")
    (drive,) = drives(track("a", type="Van", road_type="highway"))
    assert (drive.column("type")[0].as_py(), drive.column("road_type")[0].as_py()) == ("car", "freeway")


@pytest.mark.parametrize(
    ("column", "value"),
    [("type", "unicorn"), ("road_type", "corridor"), ("vx", 1e4), ("x", np.nan), ("heading", -90.0)],
)
def test_what_is_wrong_is_named_by_row_and_column_and_never_told(column: str, value: Any) -> None:
    good = track("a")
    values = good.column(column).to_pylist()
    values[7] = value
    refusal = refusal_of(good.set_column(good.schema.get_field_index(column), column, pa.array(values)))
    assert f"Row 7 of tracks.csv, column {column}" in refusal.what
    assert str(value) not in str(refusal)


def test_a_repeated_instant_is_named() -> None:
    whole = track("a")
    assert "Row 81 of tracks.csv, column t" in refusal_of(whole, whole.slice(3, 1)).what


def test_a_missing_column_is_named() -> None:
    assert "heading" in refusal_of(track("a", heading=None)).what


@pytest.mark.parametrize("tracks", [[track("a", seconds=3.0)], [track("a", type="pedestrian")], [track("a", rate=1.0)]])
def test_no_drive_at_all_is_refused(tracks: list[pa.Table]) -> None:
    assert "6 s" in refusal_of(*tracks).what


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_of_tracks_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"tracks.{kind}"
    table = pa.concat_tables([track("1"), track("2", y=5.0)])
    (pa.csv.write_csv if kind == "csv" else pq.write_table)(table, path)
    assert [validated(drive).num_rows for drive in tables_of(path)] == [82, 82]


@pytest.mark.parametrize(("name", "content"), [("a.parquet", b"PAR1canary"), ("a.csv", b"canary,b\n1\n2,3,4\n")])
def test_a_file_that_is_no_table_is_refused_without_its_content(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        list(tables_of(tmp_path / name))
    assert refusal.value.code is Code.INPUT_INVALID
    assert "canary" not in str(refusal.value)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_without_rows_is_refused_by_its_name(tmp_path: Path, kind: str, *, raw: bool) -> None:
    path = tmp_path / f"tracks.{kind}"
    table = track("a", vehicle="v" if raw else None).slice(0, 0)
    (pa.csv.write_csv if kind == "csv" else pq.write_table)(table, path)
    with pytest.raises(Refusal) as refusal:
        list(tables_of(path))
    assert refusal.value.code is Code.INPUT_INVALID
    assert refusal.value.what == f"tracks.{kind} has no rows."
    assert refusal.value.remedy


def test_a_table_without_rows_is_refused() -> None:
    assert refusal_of(track("a").slice(0, 0)).what == "tracks.csv has no rows."


@pytest.mark.parametrize("word", ["canary", "1.0.0", "1,5", "0x10", "\N{FULLWIDTH DIGIT ONE}", "-", "ca\udcffnary"])
def test_a_word_among_a_file_s_numbers_is_named_by_its_row_and_never_told(tmp_path: Path, word: str) -> None:
    rows = [f'scene,a,{0.1 * n},{n}.5,0,10,-1e-3," +.5 ",car' for n in range(70)]
    for row in (41, 60):
        rows[row] = f'scene,a,{0.1 * row},"{word}",0,10,0,0,car'
    content = "\n".join(["scene_id,track_id,t,x,y,vx,vy,heading,type", *rows])
    (tmp_path / "tracks.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(Refusal) as refusal:
        list(tables_of(tmp_path / "tracks.csv"))
    assert refusal.value.code is Code.INPUT_INVALID
    assert refusal.value.what.startswith("Row 41 of tracks.csv, column x: ")
    if len(word) > 1:
        assert word not in str(refusal.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal):
        list(tables_of(tmp_path / "none.parquet"))


@pytest.mark.skipif(TRACKS not in os.environ, reason=f"{TRACKS} names no file of recorded tracks")
def test_recorded_tracks_make_windows_to_learn_from() -> None:
    tables = all_validated(tables_of(Path(os.environ[TRACKS])))
    parts = [
        windows.extract(next(part for group, part in groups.items() if group == "motion"))
        for batch in batches(tables)
        if (groups := group_columns(batch, {vehicle: vehicle for vehicle in vehicles_of(batch)}))
    ]
    found = windows.concatenate(parts)
    assert len(found.vehicle_names) >= 100
    assert len(found) >= 1000
    assert 0.1 < metrics.constant_velocity(found).ade_m < 3.0
