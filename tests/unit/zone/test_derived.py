"""Derived tables: what each figure says of a drive made for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.analytics.stored import DRAW, PLACE, VEHICLE, schema_of
from isthmus.contracts.raw_table import Group
from isthmus.contracts.tables import TABLES, TableName
from isthmus.fleet import simulate
from isthmus.zone.derived import derived_tables, together
from isthmus.zone.drives import batches, vehicles_of
from isthmus.zone.leaders import find_leaders
from isthmus.zone.validation import all_validated, validated
from unit.zone.raw import drive

Row = dict[str, Any]


def derived(*tables: pa.Table) -> dict[Group, list[Row]]:
    (batch,) = batches(all_validated(tables))
    named = {vehicle: f"p-{vehicle}" for vehicle in vehicles_of(batch)}
    return {group: table.to_pylist() for group, table in derived_tables(batch, named).items()}


def only(*tables: pa.Table) -> Row:
    (row,) = derived(*tables)[Group.DRIVES]
    return row


def followed(gaps: list[float], *, speed: float = 10.0, left: float = 0.0, **changed: Any) -> pa.Table:
    """A drive along x at `speed`; one car as many metres ahead of it, centre to centre, as `gaps` says."""
    steps = len(gaps)
    x = [v for i, gap in enumerate(gaps) for v in (speed * 0.2 * i, speed * 0.2 * i + gap)]
    values = {"x": x, "y": [0.0, left] * steps, "vx": [speed] * (2 * steps), "length": [5.0] * (2 * steps)}
    return drive("scene", instants=steps, **{**values, **changed})


def test_way_time_and_speed_are_the_egos() -> None:
    row = only(followed([50.0] * 11))
    assert (row["distance_km"], row["duration_s"], row["speed_mps"]) == (20, 22, 1_000)
    assert row[VEHICLE] == "p-car-1"


def test_headway_is_gap_over_speed_and_the_short_ones_are_counted() -> None:
    row = only(followed([25.0, 25.0, 25.0, 10.0]))
    assert row["headway_s"] == round((2.0 + 2.0 + 2.0 + 0.5) / 4 * 100)
    assert row["headway_below_1s_share"] == 250


@pytest.mark.parametrize(
    "nobody",
    [
        {"gaps": [120.0] * 4},
        {"gaps": [-20.0] * 4},
        {"gaps": [20.0] * 4, "left": 1.9},
        {"gaps": [20.0] * 4, "speed": 2.0},
        {"gaps": [20.0] * 4, "type": ["car", "pedestrian"] * 4},
        {"gaps": [20.0] * 4, "heading": [0.0, math.pi] * 4},
    ],
    ids=["too far", "behind", "beside", "too slow", "no vehicle", "oncoming"],
)
def test_without_a_vehicle_ahead_there_is_no_headway(nobody: dict[str, Any]) -> None:
    row = only(followed(**nobody))
    assert row["headway_s"] is None
    assert row["headway_below_1s_share"] is None
    assert row["cut_ins"] == 0


def test_ahead_is_ahead_whichever_way_the_road_leads() -> None:
    turned = followed([25.0] * 4)
    columns = {name: np.array(turned.column(name)) for name in ("x", "y", "vx", "vy")}
    cos, sin = math.cos(2.0), math.sin(2.0)
    for a, b in (("x", "y"), ("vx", "vy")):
        along, across = columns[a].copy(), columns[b].copy()
        columns[a], columns[b] = cos * along - sin * across, sin * along + cos * across
    changed = {name: values.tolist() for name, values in columns.items()}
    row = only(drive("scene", heading=[2.0] * 8, length=[5.0] * 8, **changed))
    assert (row["headway_s"], row["speed_mps"]) == (200, 1_000)


def test_a_vehicle_that_moves_into_the_gap_is_one_cut_in() -> None:
    beside_then_ahead = [0.0, 3.0, 0.0, 2.5, 0.0, 1.0, 0.0, 0.5, 0.0, 3.0, 0.0, 1.0]
    assert only(followed([20.0] * 6, y=beside_then_ahead))["cut_ins"] == 1
    assert only(followed([20.0] * 6))["cut_ins"] == 0


def test_braking_is_a_share_of_steps_and_a_lost_sample_is_no_step() -> None:
    slowing = [v for speed in (10.0, 9.5, 9.5, 9.5, 9.5) for v in (speed, 10.0)]
    assert only(followed([50.0] * 5, vx=slowing))["braking_share"] == 2_500
    lost = [t for t in (0.0, 0.6, 0.8, 1.0, 1.2) for _ in range(2)]
    assert only(followed([50.0] * 5, vx=slowing, t=lost))["braking_share"] == 0


def test_a_hand_back_is_counted_once_and_not_where_nothing_is_said() -> None:
    engaged = [v for now in (1, 1, 0, 0, 1, 0) for v in (now, now)]
    assert only(followed([50.0] * 6, engaged=engaged))["disengagements"] == 2
    assert only(followed([50.0] * 6, engaged=None))["disengagements"] == 0


def test_traffic_and_road_are_those_of_most_of_the_time() -> None:
    assert [only(drive("s", others=n, instants=3))["traffic"] for n in (0, 1, 2, 5, 6)] == [
        "free", "free", "moderate", "moderate", "dense",
    ]  # fmt: skip
    mixed = only(followed([50.0] * 5, road_type=["freeway"] * 6 + ["roundabout"] * 4))
    assert (mixed["road_type"], mixed["road_class"]) == ("freeway", "interurban")


def test_a_row_a_drive_and_a_row_a_started_minute() -> None:
    made = derived(drive("one", others=0, instants=301), drive("two", others=0, instants=300), drive("three", "other"))
    assert len(made[Group.DRIVES]) == 3
    minutes = [row for row in made[Group.MINUTES] if row[VEHICLE] == "p-car-1"]
    assert sorted(row["duration_s"] for row in minutes) == [2, 600, 600]
    whole = [row for row in made[Group.DRIVES] if row[VEHICLE] == "p-car-1"]
    assert sum(row["distance_km"] for row in whole) == pytest.approx(sum(r["distance_km"] for r in minutes), abs=2)


def test_rows_stand_by_vehicle_and_draw_and_name_no_scene() -> None:
    tables = [drive(f"scene-{n}", f"car-{n % 3}", instants=3 + n) for n in range(12)]
    for rows in derived(*tables).values():
        assert [row[VEHICLE] for row in rows] == sorted(row[VEHICLE] for row in rows)
        for vehicle in {row[VEHICLE] for row in rows}:
            own = [row for row in rows if row[VEHICLE] == vehicle]
            assert [row[PLACE] for row in own] == list(range(len(own)))
            assert [row[DRAW] for row in own] == sorted(row[DRAW] for row in own)
        assert not any("scene" in str(value) for row in rows for value in row.values())


def test_a_row_is_the_same_whatever_else_is_in_its_file() -> None:
    mine = drive("mine", "car-7", instants=20)
    alone = only(mine)
    beside = derived(*(drive(f"s{n}", f"car-{n}") for n in range(5)), mine)[Group.DRIVES]
    assert alone in beside


@pytest.mark.parametrize("site", ["cn-shanghai", "us-texas"])
def test_a_fleets_rows_are_within_the_public_bounds(site: str) -> None:
    (batch,) = batches(all_validated(simulate(site, 15, 3, 1)))
    made = derived_tables(batch, {vehicle: vehicle for vehicle in vehicles_of(batch)})
    for name in TableName:
        spec = TABLES[name]
        table = made[spec.group]
        assert table.schema == schema_of(spec)
        assert table.num_rows == 45
        for measure in spec.measures:
            values = [value for value in table.column(measure.name).to_pylist() if value is not None]
            assert values
            assert measure.low <= min(values)
            assert max(values) <= measure.high
    assert sum(made[Group.DRIVES].column("cut_ins").to_pylist()) > 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=12))
def test_tables_of_several_batches_are_together_what_one_batch_would_have_made(drives: list[tuple[int, int]]) -> None:
    """Rows, their order, their places and even the order of texts, whichever batch a vehicle's drives are in."""
    tables = [drive(f"s{n}", f"car-{vehicle}", instants=400) for n, (vehicle, _) in enumerate(drives)]
    parts = [[t for t, (_, part) in zip(tables, drives, strict=True) if part == number] for number in range(5)]
    named = {f"car-{n}": f"p-{3 - n}" for n in range(4)}
    made = [derived_tables(batch, named) for part in parts if part for batch in batches(all_validated(part))]
    (batch,) = batches(all_validated(tables))
    for group, whole in derived_tables(batch, named).items():
        joined = together([tables[group] for tables in made])
        assert joined.equals(whole)
        for name in ("vehicle_pseudonym", "road_type"):
            assert joined.column(name).chunk(0).dictionary.equals(whole.column(name).chunk(0).dictionary)


def test_a_batch_of_one_row_a_drive_has_rows_too() -> None:
    table = validated(drive("s", instants=1, others=0))
    made = derived_tables(table, {"car-1": "p"})
    assert [len(made[group]) for group in (Group.DRIVES, Group.MINUTES)] == [1, 1]
    assert made[Group.DRIVES].column("braking_share").to_pylist() == [0]


def ahead_of(ego: Row, other: Row) -> tuple[float, float]:
    """Return how far ahead and how far left of the ego another stands, m."""
    cos, sin = math.cos(ego["heading"]), math.sin(ego["heading"])
    dx, dy = other["x"] - ego["x"], other["y"] - ego["y"]
    return cos * dx + sin * dy, cos * dy - sin * dx


def leader_at(rows: list[Row]) -> tuple[float, int]:
    """Return gap and track of the vehicle ahead at one instant, the ego's row first."""
    ego, *others = rows
    found = [(math.inf, -1)]
    for other in others:
        ahead, left = ahead_of(ego, other)
        motor = other["type"] in {"car", "truck", "bus"} and math.cos(other["heading"] - ego["heading"]) > 0
        if motor and abs(left) < 1.8 and 0 < ahead <= 100:
            lengths = [4.5 if row["length"] is None else row["length"] for row in (ego, other)]
            found.append((ahead - sum(lengths) / 2, other["track_id"]))
    return min(found)


@pytest.mark.parametrize("turned", [False, True])
def test_a_vehicle_at_the_very_edge_is_judged_in_double_precision(*, turned: bool) -> None:
    """At 100 m, at 1.8 m beside and just ahead, single precision alone would say otherwise of some."""
    rng = np.random.default_rng(5)
    ahead, left = (np.array(v).ravel() for v in np.meshgrid([100.0, 50.0, 2e-6], [0.0, np.float32(1.8), -1.79999]))
    ahead, left = np.tile(ahead, 100), np.tile(left, 100)
    heading = (rng.uniform(-3, 3, len(ahead)) if turned else np.zeros(len(ahead))).astype(np.float32)
    cos, sin = np.cos(heading.astype(float)), np.sin(heading.astype(float))
    egos = rng.uniform(-50, 50, (2, len(ahead))) if turned else np.zeros((2, len(ahead)))
    x, y = egos[0] + cos * ahead - sin * left, egos[1] + sin * ahead + cos * left
    table = validated(
        drive(
            "scene",
            instants=len(ahead),
            x=np.column_stack([egos[0], x]).ravel(),
            y=np.column_stack([egos[1], y]).ravel(),
            heading=np.repeat(heading, 2),
        )
    )
    rows = table.to_pylist()
    expected = [leader_at(rows[start : start + 2])[1] for start in range(0, len(rows), 2)]
    assert 1 in expected[0 : len(expected) : 9]  # at 100 m
    found = find_leaders(table, np.arange(len(ahead)) * 2, np.arange(len(ahead)) > 0)
    assert found.track.tolist() == expected


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 6), st.sampled_from([0.0, 1e3, 9e5]))
def test_who_is_ahead_is_found_as_by_looking_at_each_row(seed: int, instants: int, others: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    count = instants * (others + 1)
    table = validated(
        drive(
            "scene",
            instants=instants,
            others=others,
            x=far + rng.choice([0.0, 5.0, 20.0, 99.9, 100.1, 400.0], count) * rng.choice([1, 1, 1, -1], count),
            y=rng.choice([0.0, 0.5, 1.79, 1.81, 3.0, -2.0], count) - far,
            heading=rng.choice([0.0, 0.01, 1.5, 3.1], count),
            length=pa.array(rng.choice([4.5, 12.0], count), mask=rng.random(count) < 0.2),
            type=rng.choice(["car", "bus", "pedestrian"], count),
        )
    )
    rows = table.to_pylist()
    frames = [rows[start : start + others + 1] for start in range(0, count, others + 1)]
    expected = [leader_at(frame) for frame in frames]
    came = [
        now[1] >= 0 and now[1] != before[1] and abs(ahead_of(frame[0], frame[now[1]])[1]) >= 1.8
        for before, now, frame in zip(expected, expected[1:], frames, strict=False)
    ]
    next_to = np.array([False] + [True] * (instants - 1))
    found = find_leaders(table, np.arange(instants) * (others + 1), next_to)
    assert found.gap.tolist() == pytest.approx([gap for gap, _ in expected], abs=1e-6)
    assert found.track.tolist() == [track for _, track in expected]
    assert found.cut_in.tolist() == [False, *came]
