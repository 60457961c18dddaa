"""A question to both fleets, the whole way: drives ingested, counted in each zone, noised at its border, added up."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Literal

import pytest

from isthmus.contracts.answers import QueryRequest
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Name, SiteId
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState, ZoneData
from isthmus.contracts.ledger import Log
from world.world import CN, DATASET, HQ, US, ZONES, World, drives, running

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.answers import QueryView, ZoneAnswer
    from isthmus.contracts.inside import PrivacyView

VEHICLES = {CN: 50, US: 40}
"""Enough that noise hides the cell that all of them are in less than once in a million answers."""
FLEET = "SELECT road_class, count(DISTINCT vehicle), avg(speed_mps) FROM drives GROUP BY road_class"
OTHER = "SELECT count(*) FROM minutes"
MICRO = 1_000_000
MOST_AT_ONCE = 10 * MICRO


def request(sql: str, *zones: SiteId, **changes: Any) -> QueryRequest:
    values: dict[str, Any] = {
        "sql": sql,
        "zones": tuple(ZoneData(zone=zone, dataset=DATASET) for zone in zones or ZONES),
        "purpose": Name("fleet-statistics"),
        "recipients": tuple(sorted((HQ, *(zones or ZONES)))),
        "epsilon_micro": 4 * MICRO,
        "slot_s": 1,
    }
    return QueryRequest(**{**values, **changes})


async def answered(world: World, asked: QueryRequest) -> QueryView:
    jobs = world.jobs()
    return await jobs.answered((await jobs.ask(asked)).id)


async def budgets(world: World) -> dict[SiteId, PrivacyView]:
    return {zone: await world.client(zone, InsideRole.AUDITOR).privacy() for zone in ZONES}


def numbers(cells: Any, place: int, column: int) -> int:
    value: int = cells[place].columns[column].points[0].value_micro
    return value


def part(view: QueryView, zone: SiteId) -> ZoneAnswer:
    return next(one for one in view.zones if one.zone == zone)


@pytest.mark.parametrize("halves", [1, 2], ids=["one-process", "gate-and-keeper"])
def test_both_fleets_answer_one_question(tmp_path: Path, halves: Literal[1, 2]) -> None:
    async def scenario() -> None:
        async with running(World(tmp_path / "home", halves=halves)) as world:
            for seed, zone in enumerate(ZONES):
                await world.ingest(zone, drives(VEHICLES[zone], seed))
            await world.jobs().explain(request(FLEET))
            assert {view.epsilon_micro for view in (await budgets(world)).values()} == {0}

            first = await answered(world, request(FLEET))
            assert (first.state, set(first.answered)) == (JobState.DONE, set(ZONES)), first
            added_up(first)
            paid = await budgets(world)
            assert {zone: view.epsilon_micro for zone, view in paid.items()} == pytest.approx(
                dict.fromkeys(ZONES, 4 * MICRO), rel=1e-5
            )
            assert {(view.answered, view.open) for view in paid.values()} == {(1, 0)}

            again = await answered(world, request(FLEET))
            for zone in ZONES:
                one, other = part(first, zone).answer, part(again, zone).answer
                assert one is not None
                assert other is not None
                assert other.cells == one.cells
                assert (other.repeated, other.epsilon_micro) == (True, 0)
            assert again.whole == first.whole
            now = await budgets(world)
            assert [now[zone].epsilon_micro for zone in ZONES] == [paid[zone].epsilon_micro for zone in ZONES]

            await answered(world, request(OTHER, US, epsilon_micro=MOST_AT_ONCE))
            alone = await answered(world, request(OTHER, epsilon_micro=5 * MICRO))
            assert (alone.state, alone.answered) == (JobState.DONE, (CN,))
            assert (part(alone, US).code, part(alone, US).answer) == (Code.BUDGET_EXHAUSTED, None)
            assert alone.whole == part(alone, CN).cells
            spent = {zone: view.epsilon_micro for zone, view in (await budgets(world)).items()}
            assert spent == pytest.approx({CN: 9 * MICRO, US: 14 * MICRO}, rel=1e-5)
            for site in (HQ, *ZONES):
                assert not (await world.client(site, InsideRole.AUDITOR).ledger()).halted

    asyncio.run(asyncio.wait_for(scenario(), 120))


def added_up(view: QueryView) -> None:
    """Hold the whole to the zones' parts, and both to the fleets that there are: all of them drive in town."""
    town, country = 0, 1
    assert [cell.group for cell in view.whole] == [("urban",), ("interurban",)]
    assert view.whole[country].suppressed
    parts = [part(view, zone).cells for zone in ZONES]
    vehicles = [numbers(cells, town, 0) for cells in parts]
    assert numbers(view.whole, town, 0) == sum(vehicles)
    assert abs(sum(vehicles) / MICRO - sum(VEHICLES.values())) < 20  # some ten times the noise's scale
    speeds = sorted(numbers(cells, town, 1) for cells in parts)
    assert speeds[0] <= numbers(view.whole, town, 1) <= speeds[1]
    for cells in (view.whole, *parts):
        for column in cells[town].columns:
            (point,) = column.points
            assert point.low_micro < point.value_micro < point.high_micro


def test_a_zone_that_dies_in_the_middle_goes_on_and_charges_once(tmp_path: Path) -> None:
    """All of it dies, worker and border, once it has accepted: what was reserved is spent by one answer, or stands."""

    async def scenario() -> None:
        async with running(World(tmp_path / "home")) as world:
            for seed, zone in enumerate(ZONES):
                await world.ingest(zone, drives(VEHICLES[zone], seed))
            jobs = world.jobs()
            asked = await jobs.ask(request(FLEET, slot_s=2))
            await accepted(world, CN)
            await world.stop(CN)
            await world.start(CN)
            view = await jobs.answered(asked.id)
            assert (view.state, set(view.answered)) == (JobState.DONE, set(ZONES))
            events = [json.loads(text) for text in await internal(world, CN)]
            settled = [e["outcome"] for e in events if e["event"] == "privacy_settled"]
            reserved = [e["order"] for e in events if e["event"] == "privacy_reserved"]
            assert (settled, len(reserved)) == (["spent"], 1)
            assert (await budgets(world))[CN].epsilon_micro == pytest.approx(4 * MICRO, rel=1e-5)

    asyncio.run(asyncio.wait_for(scenario(), 120))


async def accepted(world: World, zone: SiteId) -> None:
    """Wait until a zone's border has taken a question in."""
    while not (await world.client(zone, InsideRole.AUDITOR).privacy()).open:
        ticket = world.sites[zone].border.bell.ticket()
        await world.sites[zone].border.bell.wait(ticket, 1)


async def internal(world: World, zone: SiteId) -> tuple[str, ...]:
    return (await world.client(zone, InsideRole.AUDITOR).entries(Log.INTERNAL, 0)).entries
