"""Kill -9 anywhere: the job finishes as if nothing had happened, and every ledger says so.

The points are generated: every state that a border's tables hold, before and after its transaction; every call and
every write of what stands behind a border. A state that no run comes to is named here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from isthmus.border.keeper.states import Inbound, Outbound
from isthmus.cli import federation
from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Digest, Name, SiteId
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobRequest, JobState, ZoneData
from isthmus.contracts.orders import DatasetRef, EvaluationPlan
from isthmus.contracts.roster import Roots
from isthmus.kit.clock import ManualClock
from isthmus.proof import canonical
from isthmus.zone.results import model_path
from world import account, tiny
from world.dooms import AFTER, BEFORE, CALLS, AtCall, AtMove, AtWrite, Doom, killed_around, moves, points
from world.mortal import MortalWorld
from world.world import CN, HQ, US, ZONES, World, drives, request, running

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from isthmus.border.keeper.desk import Direction, Moment
    from isthmus.kit.clock import Clock

pytestmark = pytest.mark.usefixtures("quiet")

SITES = (HQ, CN, US)
ROUNDS = 2
WITHIN_S = 120


@dataclass(frozen=True)
class Outcome:
    """What a run brought: the final model, and every zone's own."""

    model: Digest
    adapted: dict[SiteId, Digest]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a federation's home with a frozen dataset in each zone, to be copied."""
    home = tmp_path_factory.mktemp("template") / "home"
    federation.create(home, dataclasses.replace(federation.demo_plan(), algorithms=(tiny.ALGORITHM,)))

    async def ingest() -> None:
        async with running(World(home)) as world:
            for zone in ZONES:
                await world.ingest(zone, drives(2, 1, seconds=3))

    asyncio.run(ingest())
    return home


@pytest.fixture(scope="module")
def undisturbed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[MortalWorld, Outcome]:
    world = home_of(template, tmp_path_factory.mktemp("undisturbed"))
    return world, finish(world)


def home_of(
    template: Path,
    folder: Path,
    dooms: Iterable[Doom] = (),
    *,
    whole: bool = False,
    sites: tuple[SiteId, ...] = SITES,
    clock: Clock | None = None,
) -> MortalWorld:
    shutil.copytree(template, folder / "home")
    return MortalWorld(folder / "home", sites, dooms, whole=whole, clock=clock)


def job_request(at_slots: tuple[int, ...], zones: tuple[SiteId, ...] = ZONES) -> JobRequest:
    plan = EvaluationPlan(at_slots=at_slots, band_um=20_000, minimum_vehicles=10)
    return request(ROUNDS, zones, algorithm=tiny.ALGORITHM.name, evaluation=plan)


def finish(world: MortalWorld, *, standing: bool = True, at_slots: tuple[int, ...] = (0, ROUNDS)) -> Outcome:
    """Run one job to its end, whoever dies meanwhile, and hold the ledgers to it."""

    async def scenario() -> Outcome:
        async with world.living():
            zones = tuple(zone for zone in ZONES if zone in world.chosen)
            officers = [asyncio.create_task(world.officers(zone, standing=standing)) for zone in zones]
            job = await world.submitted(job_request(at_slots, zones))
            done = await world.finished(job)
            assert done.state is JobState.DONE, done
            await world.settled()
            for officer in officers:
                officer.cancel()
            await hold_to_account(world)
            assert done.model is not None
            adapted = {zone: model_path(world.folder(zone, "behind") / "results", job).read_bytes() for zone in zones}
            return Outcome(done.model, {zone: Digest.of(model) for zone, model in adapted.items()})

    return asyncio.run(asyncio.wait_for(scenario(), WITHIN_S))


async def hold_to_account(world: MortalWorld, *, refused: bool = False) -> None:
    auditors = {site: world.client(site, InsideRole.AUDITOR) for site in world.chosen}
    roots = canonical.load(Roots, (world.home / "roots.json").read_bytes())
    account.check({site: await auditor.evidence() for site, auditor in auditors.items()}, roots, refused=refused)
    for site in world.chosen:
        assert (await auditors[site].ledger()).halted == {}
        assert world.sealed_left(site) == [], "a sealed payload is kept that nobody needs"
        for order in world.rows(site, "SELECT * FROM orders"):
            charges = world.rows(site, "SELECT order_id, bits FROM charge")
            charged = sum(charge["bits"] for charge in charges if charge["order_id"] == order["id"])
            assert charged == order["spent_bits"] <= order["reserved_bits"]


def test_every_state_is_reached_or_named(undisturbed: tuple[MortalWorld, Outcome]) -> None:
    world, _ = undisturbed
    assert world.moves == set().union(*(moves(site) for site in SITES))


def test_the_model_is_the_one_that_the_zones_alone_make(undisturbed: tuple[MortalWorld, Outcome]) -> None:
    assert undisturbed[1].model == tiny.final_model(job_request((0,)).training.seed, ROUNDS, ZONES)


@pytest.mark.parametrize(
    ("site", "direction", "state"),
    [pytest.param(site, *point, id=f"{site}-{'-'.join(point)}") for site in (HQ, CN) for point in points(site)],
)
def test_border_killed_at(
    site: SiteId,
    direction: Direction,
    state: Outbound | Inbound,
    template: Path,
    undisturbed: tuple[MortalWorld, Outcome],
    tmp_path: Path,
) -> None:
    """The border dies before the move is durable, comes back, and dies again right after."""
    dooms = [AtMove(site, direction, state, moment) for moment in (BEFORE, AFTER)]
    world = home_of(template, tmp_path, dooms)
    assert finish(world) == undisturbed[1]
    assert not world.dooms


@pytest.mark.parametrize("sites", [(HQ,), (CN,), SITES], ids=["hq", "cn-shanghai", "all"])
def test_sites_killed_at_every_point_of_one_job(
    sites: tuple[SiteId, ...], template: Path, undisturbed: tuple[MortalWorld, Outcome], tmp_path: Path
) -> None:
    """A whole site dies at each of its points in turn, while it still recovers from the one before.

    Officers sign every release on its own, so that each is held.
    """
    world = home_of(template, tmp_path, set().union(*(moves(site) for site in sites)), whole=True)
    assert finish(world, standing=False, at_slots=(0, 1)) == undisturbed[1]
    assert not world.dooms


def test_every_call_is_named(undisturbed: tuple[MortalWorld, Outcome]) -> None:
    world, _ = undisturbed
    assert set(world.calls) == {(site, call) for site in SITES for call in CALLS[HQ if site == HQ else CN]}


@pytest.mark.parametrize("first", [BEFORE, AFTER])
@pytest.mark.parametrize(
    ("site", "call"),
    [pytest.param(site, call, id=f"{site}-{call}") for site, calls in CALLS.items() for call in calls],
)
def test_worker_or_coordinator_killed_at_each_call(
    site: SiteId,
    call: str,
    first: Moment,
    template: Path,
    undisturbed: tuple[MortalWorld, Outcome],
    tmp_path: Path,
) -> None:
    """What stands behind the border dies at every other call of one kind, by turns before and after its answer.

    Every other call, since the next one is the same again.
    """
    expected = undisturbed[0].calls[site, call]
    turns = (first, AFTER if first == BEFORE else BEFORE)
    dooms = {AtCall(site, call, 2 * n + 1, turns[n % 2]) for n in range(expected)}
    world = home_of(template, tmp_path, dooms)
    assert finish(world) == undisturbed[1]
    assert dooms - world.dooms, "nobody was killed"
    if site != HQ and call != "deliveries":
        # A worker calls one at a time, so every planned kill must have struck; how often it asks for news differs from
        # run to run. The coordinator calls concurrently: a kill may meet the next call too, and shift the count.
        assert all(doom.number > expected for doom in dooms & world.dooms)


@pytest.mark.parametrize("site", [HQ, CN])
def test_worker_or_coordinator_killed_at_each_write(
    site: SiteId, template: Path, undisturbed: tuple[MortalWorld, Outcome], tmp_path: Path
) -> None:
    expected = undisturbed[0].writes[site]
    dooms = {AtWrite(site, 2 * n + 1) for n in range(expected)}
    world = home_of(template, tmp_path, dooms)
    assert finish(world) == undisturbed[1]
    assert all(doom.number > expected for doom in dooms & world.dooms)


def test_worker_killed_as_it_closes_an_order_that_waited_for_officers(template: Path, tmp_path: Path) -> None:
    """The last evaluation is approved late, so that no delivery comes any more that could remind the worker."""
    world = home_of(template, tmp_path, [AtCall(CN, "close", 1, BEFORE)], sites=(HQ, CN))

    async def scenario() -> None:
        async with world.living():
            updates = asyncio.create_task(world.officers(CN, kinds=frozenset({Kind.MODEL_UPDATE})))
            job = await world.submitted(job_request((ROUNDS,), zones=(CN,)))
            await world.until(CN, "SELECT 1 FROM crossing WHERE slot = 2 AND state = 'delivered'")
            aggregates = asyncio.create_task(world.officers(CN))
            assert (await world.finished(job)).state is JobState.DONE
            world.strike(CN, "behind")
            await world.settled()
            updates.cancel()
            aggregates.cancel()
            await hold_to_account(world)

    asyncio.run(asyncio.wait_for(scenario(), WITHIN_S))
    assert not world.dooms


@pytest.mark.parametrize(
    "dooms",
    [(), (AtCall(CN, "close", 1, BEFORE), *killed_around(CN, "out", Outbound.EXPIRED))],
    ids=["nobody", "worker-and-border"],
)
def test_killed_as_an_order_runs_out_of_time(dooms: tuple[Doom, ...], template: Path, tmp_path: Path) -> None:
    """The worker dies as it gives the order up, the border as what was held for officers expires."""
    clock = ManualClock(int(time.time()))
    world = home_of(template, tmp_path, dooms, sites=(HQ, CN), clock=clock)

    async def scenario() -> None:
        async with world.living():
            await world.submitted(job_request((ROUNDS,), zones=(CN,)))
            await world.until(CN, "SELECT 1 FROM crossing WHERE kind = 'model' AND state = 'delivered'")
            clock.advance(2 * 86_400)
            world.strike(CN, "behind")
            await world.until(CN, "SELECT 1 FROM orders WHERE state = 'failed'")
            officers = asyncio.create_task(world.officers(CN))
            await world.settled()
            officers.cancel()
            await hold_to_account(world, refused=True)

    asyncio.run(asyncio.wait_for(scenario(), WITHIN_S))
    assert not world.dooms


def test_border_killed_as_officers_reject(template: Path, tmp_path: Path) -> None:
    """The no is taken once, costs what a yes costs, and reaches headquarters as a code."""
    world = home_of(template, tmp_path, killed_around(CN, "out", Outbound.REFUSED), sites=(HQ, CN))

    async def scenario() -> None:
        async with world.living():
            officers = asyncio.create_task(world.officers(CN, reject=True))
            job = await world.submitted(job_request((ROUNDS,), zones=(CN,)))
            done = await world.finished(job)
            assert (done.state, done.code) == (JobState.FAILED, Code.NOT_RELEASED)
            await world.settled(closed=False)  # the zone hears of no failed job: its order ends with its time
            officers.cancel()
            await hold_to_account(world, refused=True)

    asyncio.run(asyncio.wait_for(scenario(), WITHIN_S))
    assert not world.dooms


def test_border_killed_as_it_refuses(template: Path, tmp_path: Path) -> None:
    """An order that the zone does not accept is refused once, with its reason, and gives no right to anything."""
    world = home_of(template, tmp_path, killed_around(CN, "in", Inbound.REFUSED), sites=(HQ, CN))

    async def scenario() -> None:
        async with world.living():
            wanted = job_request((ROUNDS,), zones=(CN,))
            unknown = ZoneData(zone=CN, dataset=DatasetRef(dataset=Name("drives"), snapshot=Name("2031q1")))
            job = await world.submitted(wanted.model_copy(update={"zones": (unknown,)}))
            done = await world.finished(job)
            assert (done.state, done.code) == (JobState.FAILED, Code.DATASET_UNKNOWN)
            await world.settled()
            await hold_to_account(world, refused=True)
            assert world.rows(CN, "SELECT 1 FROM orders") == []

    asyncio.run(asyncio.wait_for(scenario(), WITHIN_S))
    assert not world.dooms


def test_what_a_dead_border_still_had_on_its_way_is_no_fork(template: Path, tmp_path: Path) -> None:
    """Headquarters is slow with a crossing; meanwhile its sender logs on, dies, comes back and shows its new head.

    The head that came with the slow crossing is then an old one. It must not pass for another history.
    """
    world = home_of(template, tmp_path, sites=(HQ, CN))

    def meanwhile() -> None:
        while not world.rows(CN, "SELECT 1 FROM crossing WHERE kind = 'model_update' AND state = 'logged'"):
            pass
        shown = world.answered[CN, "heads"]
        shown.clear()
        world.strike(CN, "border")
        shown.wait(1)  # in vain where what came first is dealt with first

    world.meanwhile[AtMove(HQ, "in", Inbound.RECEIVED, AFTER)] = meanwhile
    finish(world)
    assert not world.meanwhile
