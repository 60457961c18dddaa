"""The fleets are what `docs/explanation/fleet.md` says they are."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pyarrow as pa
import pytest

from isthmus.fleet import PARAMETERS, SCHEMA, FleetStatistics, frozen, parameters_digest, simulate, statistics

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "fleet.md"


@pytest.fixture(scope="module")
def china() -> FleetStatistics:
    return statistics(simulate("cn-shanghai", 200, 3, 1))


@pytest.fixture(scope="module")
def texas() -> FleetStatistics:
    return statistics(simulate("us-texas", 200, 3, 1))


@pytest.mark.parametrize("site", PARAMETERS)
def test_the_page_names_the_digest_of_the_frozen_parameters(site: str) -> None:
    assert f"| `{site}` | `{parameters_digest(site)}` |" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("site", PARAMETERS)
def test_any_change_of_a_parameter_changes_the_digest(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, parameters = parameters_digest(site), PARAMETERS[site]
    changed = dataclasses.replace(parameters.roads[0].idm, time_gap=math.nextafter(parameters.roads[0].idm.time_gap, 9))
    roads = (dataclasses.replace(parameters.roads[0], idm=changed), *parameters.roads[1:])
    monkeypatch.setattr(frozen, "PARAMETERS", {site: dataclasses.replace(parameters, roads=roads)})
    assert parameters_digest(site) != digest


def test_parameters_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PARAMETERS["us-texas"].wmi = "XXX"  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError):
        PARAMETERS["us-texas"] = PARAMETERS["cn-shanghai"]  # type: ignore[index]  # the point of the test


def test_headways_are_the_calibrations(china: FleetStatistics, texas: FleetStatistics) -> None:
    assert 1.45 < china.headway_median < 1.7
    assert 1.95 < texas.headway_median < 2.35
    assert 0.11 < china.headway_short < 0.17
    assert 0.015 < texas.headway_short < 0.05


def test_hard_braking_is_the_calibrations(china: FleetStatistics, texas: FleetStatistics) -> None:
    assert 0.0045 < china.hard_braking < 0.007
    assert 0.0085 < texas.hard_braking < 0.0125


@pytest.mark.parametrize("road", ["urban_intersection", "roundabout"])
def test_speeds_at_junctions_are_the_calibrations(china: FleetStatistics, texas: FleetStatistics, road: str) -> None:
    assert 4.0 < china.roads[road].moving_speed_median < 6.0
    assert 4.0 < texas.roads[road].moving_speed_median < 8.0


def test_two_wheelers_are_the_calibrations(china: FleetStatistics, texas: FleetStatistics) -> None:
    mixed = china.roads["urban_intersection"]
    assert 0.25 < mixed.two_wheelers < 0.36
    assert 0.38 < mixed.two_wheelers_high < 0.52
    assert texas.roads["urban_intersection"].two_wheelers < 0.08


def test_road_types_occur_as_the_page_says(china: FleetStatistics, texas: FleetStatistics) -> None:
    for site, measured in (("cn-shanghai", china), ("us-texas", texas)):
        assert measured.vehicles == 200
        assert measured.drives == 600
        for road, wanted in zip(measured.roads.values(), PARAMETERS[site].roads, strict=True):
            assert abs(road.share - wanted.share) < 0.06


def test_a_headway_is_net_distance_over_speed_and_braking_is_counted() -> None:
    # The ego at 10 m/s, then at 9; a car of its length 20 m ahead, centre to centre; an oncoming one, one beside.
    rows = [
        _row(0.0, 0, 0.0, 0.0, 10.0),
        _row(0.0, 1, 20.0, 0.5, 10.0),
        _row(0.0, 2, 10.0, 0.0, -10.0),
        _row(0.0, 3, 10.0, 3.5, 10.0),
        _row(0.2, 0, 2.0, 0.0, 9.0),
    ]
    measured = statistics([pa.Table.from_pylist(rows, schema=SCHEMA)])
    assert measured.headway_median == pytest.approx(1.5)
    assert measured.headway_short == 0.0
    assert measured.hard_braking == 1.0
    assert measured.roads["arterial"].neighbours_mean == 1.5
    assert list(measured.roads) == ["arterial"]


def test_no_recordings_give_no_figures() -> None:
    measured = statistics([])
    assert measured.drives == 0
    assert math.isnan(measured.headway_median)


def _row(t: float, track: int, x: float, y: float, vx: float) -> dict[str, object]:
    return {
        "vehicle": "v", "vin": "v", "lat": 0.0, "lon": 0.0, "scene_id": "s", "track_id": track, "t": t,
        "x": x, "y": y, "vx": vx, "vy": 0.0, "heading": 0.0 if vx > 0 else math.pi, "length": 5.0, "width": 2.0,
        "type": "car", "road_type": "arterial",
    }  # fmt: skip
