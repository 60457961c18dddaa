"""Kill -9 in the middle of a question: one answer, charged once, and every ledger says so.

The points are those of a question's way: every state that its crossings come to at each border, before and after its
transaction (an answer's are all in the one transaction of its slot), every call of the zone's worker (with keys out),
every call and every write of the coordinator (asked, ordered, with one zone's answer in, before the result is kept).
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from typing import TYPE_CHECKING

import pytest

from isthmus.border.keeper.states import Inbound, Outbound
from isthmus.border.slots import at_slots
from isthmus.cli import federation
from isthmus.contracts.errors import Fault
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.jobs import JobState
from isthmus.contracts.ledger import INTERNAL_ENTRY, KeysReleased, Log, OrderClosed, PrivacyReserved, PrivacySettled
from isthmus.contracts.roster import Roots
from isthmus.coordinator.plans import default_recipes
from isthmus.proof import accounting, canonical
from world import account
from world.dooms import AFTER, BEFORE, AtCall, AtMove, AtWrite, Doom, points
from world.mortal import Life, MortalWorld
from world.test_asking import FLEET, VEHICLES, part, request
from world.world import CN, HQ, US, ZONES, World, drives, running

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from isthmus.contracts.answers import QueryRequest, QueryView
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import Evidence, PrivacyView

pytestmark = pytest.mark.usefixtures("quiet")

SITES = (HQ, CN, US)
HELD = {Outbound.HELD, Outbound.APPROVED}
"""States that an answer under dp does not come to: no officer is asked."""
TOGETHER = {
    *(Outbound.DRAFTED, Outbound.CHECKED, Outbound.SEALED, Outbound.LOGGED),
    *(Inbound.RECEIVED, Inbound.VERIFIED, Inbound.ACCEPTED),
}
"""States whose moves are durable together with others: a border that dies after one never comes to the rest."""
WORKER = ("deliveries", "payload", "keys", "candidates", "close", "delivered")
COORDINATOR = ("deliveries", "payload", "candidates", "delivered")
WRITES = 12
"""More changes of its own database than a coordinator makes for one question, where it dies at every other one."""
WITHIN_S = 120


class AskingWorld(MortalWorld):
    """A mortal world of the shipped algorithms, whose borders let answers out at their slots."""

    recipes = default_recipes()

    def _begin_border(self, life: Life) -> None:
        super()._begin_border(life)
        assert life.border is not None
        statistics = life.border.keeper.statistics
        life.cut.append(statistics.bell.close)
        life.tasks.append(asyncio.create_task(at_slots(statistics, self.clock, asyncio.Event())))

    async def asked(self, question: QueryRequest) -> QueryView:
        """Ask, again until somebody takes it, and wait for the end, whoever dies meanwhile."""
        while True:
            try:
                return await self.jobs().answered((await self.jobs().ask(question, "once")).id)
            except Fault:
                await self._risen()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template") / "home"
    federation.create(home, dataclasses.replace(federation.demo_plan(), minimum_slot_s=1))

    async def ingest() -> None:
        async with running(World(home)) as world:
            for seed, zone in enumerate(ZONES):
                await world.ingest(zone, drives(VEHICLES[zone], seed, seconds=3))

    asyncio.run(ingest())
    return home


def ask_and_die(template: Path, folder: Path, dooms: Iterable[Doom]) -> AskingWorld:
    """Ask both zones, kill at `dooms`, and hold ledgers, budgets and the answer to each other; return the world."""
    shutil.copytree(template, folder / "home")
    world = AskingWorld(folder / "home", SITES, dooms)

    async def scenario() -> None:
        async with world.living():
            question = request(FLEET)
            view = await world.asked(question)
            assert (view.state, set(view.answered)) == (JobState.DONE, set(ZONES)), view
            await world.settled()
            auditors = {site: world.client(site, InsideRole.AUDITOR) for site in SITES}
            evidence = {site: await auditor.evidence() for site, auditor in auditors.items()}
            account.check(evidence, canonical.load(Roots, (world.home / "roots.json").read_bytes()))
            for zone in ZONES:
                paid_once(evidence[zone], await auditors[zone].privacy())
                sent = world.rows(zone, "SELECT id, plaintext FROM crossing WHERE kind = 'aggregate'")
                answer = part(view, zone).answer
                assert answer is not None
                assert [row["plaintext"] for row in sent] == [canonical.digest(answer)]
            assert await world.asked(question) == view  # by its key: the same question, not another one
            assert len(world.rows(HQ, "SELECT 1 FROM crossing WHERE kind = 'aggregate'")) == len(ZONES)

    asyncio.run(asyncio.wait_for(scenario(), WITHIN_S))
    return world


def paid_once(evidence: Evidence, view: PrivacyView) -> None:
    """Hold a zone's internal log and its budget to one question, reserved once and spent once."""
    internal = [INTERNAL_ENTRY.validate_json(entry) for entry in evidence.entries[Log.INTERNAL]]
    (reserved,) = [entry for entry in internal if isinstance(entry, PrivacyReserved)]
    assert [entry.outcome for entry in internal if isinstance(entry, PrivacySettled)] == ["spent"]
    assert [entry.reason for entry in internal if isinstance(entry, OrderClosed)] == ["complete"]
    assert any(isinstance(entry, KeysReleased) for entry in internal)
    assert view.budget is not None
    assert view.epsilon_micro == accounting.spent_micro(reserved.curve, view.budget)
    assert (view.answered, view.open) == (1, 0)


def on_the_way(site: SiteId) -> set[AtMove]:
    """Return every move of a question's crossings at a border."""
    return {
        AtMove(site, direction, state, moment)
        for direction, state in points(site)
        if state not in HELD
        for moment in (BEFORE, AFTER)
    }


@pytest.mark.parametrize("site", [HQ, CN])
def test_a_border_killed_at_every_state_of_a_question(template: Path, tmp_path: Path, site: SiteId) -> None:
    """At a zone's border that is the transaction of the slot too, before and after it is durable."""
    left = ask_and_die(template, tmp_path, on_the_way(site)).dooms
    # What did not strike: the border had died after another move of the same transaction.
    assert {(doom.moment, doom.state in TOGETHER) for doom in left if isinstance(doom, AtMove)} <= {(AFTER, True)}


@pytest.mark.parametrize("first", [BEFORE, AFTER])
def test_a_worker_killed_at_every_call_of_a_question(template: Path, tmp_path: Path, first: str) -> None:
    """It dies before it asks for keys, with keys out, as it hands its sums in, as it says that it is done."""
    turns = (BEFORE, AFTER) if first == BEFORE else (AFTER, BEFORE)
    dooms = {AtCall(CN, call, number, moment) for call in WORKER for number, moment in enumerate(turns, start=1)}
    left = ask_and_die(template, tmp_path, dooms).dooms
    assert {doom.call for doom in dooms - left if isinstance(doom, AtCall)} >= {"keys", "candidates", "payload"}


@pytest.mark.parametrize("first", [BEFORE, AFTER])
def test_a_coordinator_killed_at_every_call_of_a_question(template: Path, tmp_path: Path, first: str) -> None:
    """It dies as it gives each zone its order, and as it fetches each zone's answer: so with one in and one to come."""
    turns = (BEFORE, AFTER) if first == BEFORE else (AFTER, BEFORE)
    dooms = {AtCall(HQ, call, 2 * n + 1, turns[n % 2]) for call in COORDINATOR for n in range(2)}
    left = ask_and_die(template, tmp_path, dooms).dooms
    assert {doom.call for doom in dooms - left if isinstance(doom, AtCall)} >= {"candidates", "payload"}


@pytest.mark.parametrize("odd", [0, 1])
def test_a_coordinator_killed_at_every_write_of_a_question(template: Path, tmp_path: Path, odd: int) -> None:
    """Every other change of its database is broken off as it begins: the question, its orders, each answer, the end."""
    dooms = {AtWrite(HQ, 2 * n + 1 + odd) for n in range(WRITES)}
    world = ask_and_die(template, tmp_path, dooms)
    assert len(dooms - world.dooms) >= 3
    assert all(doom.number > world.writes[HQ] for doom in world.dooms if isinstance(doom, AtWrite))
