"""A World whose processes can be killed at any point: nothing that a dead process would still do has an effect.

A kill closes the process's database without a commit and cuts its connections at once; whatever its threads still write
goes to the files that it had, while the next process starts from a copy of them. What a site was asked before its
caller died it still does, as a server does whose client is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import httpx2

from isthmus.border import app as border_app
from isthmus.border.gate.dialer import Dialer
from isthmus.border.settings import BorderSettings
from isthmus.cli import federation
from isthmus.client.border import BorderClient
from isthmus.contracts.approvals import REJECTION_TYPE, Rejection
from isthmus.contracts.crossings import RELEASES, Kind
from isthmus.contracts.errors import Fault, Refusal
from isthmus.contracts.inside import InsideRole, ReviewItem, SignedStatement
from isthmus.contracts.jobs import JobRequest, JobState, JobView
from isthmus.coordinator import app as coordinator_app
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.kit.tokens import read_token
from isthmus.proof import canonical
from isthmus.zone import app as zone_app
from isthmus.zone.settings import ZoneSettings
from world import remains, tiny
from world.dooms import AtCall, AtMove, AtWrite, Doom
from world.world import HQ, OFFICERS, SiteProcesses, World, http_to, with_certificate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from fastapi import FastAPI

    from isthmus.border.keeper.desk import Moment, Move
    from isthmus.contracts.identifiers import JobId, PersonId, SiteId
    from isthmus.kit.clock import Clock
    from world.remains import Part

FINAL = {"receipted", "delivered", "refused", "withdrawn", "expired"}


class Killed(BaseException):
    """What the code of a dead process meets when it tries to go on."""


@dataclass(eq=False)
class Life:
    """One process from its start to its end."""

    site: SiteId
    part: Part
    folder: Path
    alive: bool = True
    border: border_app.Border | None = None
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    cut: list[Callable[[], None]] = field(default_factory=list)


class MortalWorld(World):
    """A World of the tiny algorithm that kills at `dooms`, one after the other, and starts again what it killed.

    Args:
        home: a federation's home, with `tiny.ALGORITHM` registered and datasets frozen.
        sites: the sites that live.
        dooms: where to kill: each the first time that somebody comes there.
        whole: a border takes what stands behind it along.

    Attributes:
        dooms: those that have not struck.
        moves: every move that was seen.
        calls, writes: how often what stands behind a border called it, and changed its own database.
        meanwhile: what happens, once, while a border makes a move.
        answered: set when a call of one name was answered to a site.
        recipes: the algorithms that the coordinator knows.
    """

    recipes = tiny.RECIPES

    def __init__(
        self,
        home: Path,
        sites: tuple[SiteId, ...],
        dooms: Iterable[Doom] = (),
        *,
        whole: bool = False,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(home, clock=clock)
        self.dooms = set(dooms)
        self.moves: set[AtMove] = set()
        self.meanwhile: dict[AtMove, Callable[[], None]] = {}
        self.calls: Counter[tuple[SiteId, str]] = Counter()
        self.writes: Counter[SiteId] = Counter()
        self.answered: defaultdict[tuple[SiteId, str], threading.Event] = defaultdict(threading.Event)
        self.chosen = sites
        self._whole = whole
        self._lives: dict[tuple[SiteId, Part], Life] = {}
        self._handlers: set[asyncio.Task[Any]] = set()
        self._generation = Counter[tuple[str, str]]()

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Start every site; raise again what falls; in the end stop everything."""
        self._loop = asyncio.get_running_loop()
        self._fallen: asyncio.Queue[Life] = asyncio.Queue()
        self._calm = asyncio.Event()
        self._calm.set()
        for site in self.chosen:
            self._begin(site, "border")
        for site in self.chosen:
            self._begin(site, "behind")
        self._undertaker = asyncio.create_task(self._raise_again())
        try:
            yield
        finally:
            self._undertaker.cancel()
            await asyncio.gather(self._undertaker, return_exceptions=True)
            for life in self._lives.values():
                self._end(life)
                await self._bury(life)
            await asyncio.gather(*self._handlers, return_exceptions=True)

    # ---- life and death

    def _begin(self, site: SiteId, part: Part) -> None:
        """Start a process from the files that its last life left."""
        old = self._lives.get((site, part))
        while True:
            self._generation[site, part] += 1
            folder = self.home / "lives" / f"{site}-{part}-{self._generation[site, part]}"
            remains.copy(old.folder if old else self.home / site, folder, part)
            life = self._lives[site, part] = Life(site, part, folder)
            try:
                self._begin_border(life) if part == "border" else self._begin_behind(life)
            except Killed:  # it died while it was starting
                old = life
            else:
                return

    def _begin_border(self, life: Life) -> None:
        settings = BorderSettings.load(life.folder)
        border = border_app.build(settings, self.clock, lambda move: self._observed(life, move))
        life.border = border
        life.cut += [border.store.close, border.bell.close]
        self.sites[life.site] = SiteProcesses(border)
        if life.site != HQ:
            app = self._reached(HQ, lambda hub: with_certificate(hub.outside, self.certificate(life.site)), life)
            dialer = Dialer(border.half, life.site, HQ, http_to(app), border.bell, cadence_s=3600)
            life.tasks.append(asyncio.create_task(dialer.run()))

    def _begin_behind(self, life: Life) -> None:
        if life.site == HQ:
            settings = CoordinatorSettings.load(life.folder)
            client = self.client(HQ, InsideRole.SUBMITTER, life)
            coordinator = coordinator_app.assemble(settings, client, self.clock, self.recipes)
            self.coordinator = coordinator
            life.cut += [coordinator.store.close, coordinator.bell.close]
            self._watch_writes(life, coordinator.store._db)
            life.tasks.append(asyncio.create_task(coordinator.runner.run()))
        else:
            zone = zone_app.build(ZoneSettings.load(life.folder), self.clock)
            life.cut.append(zone.close)
            self._watch_writes(life, zone.database._connection)
            worker = zone.worker(self.client(life.site, InsideRole.COMPUTE, life), tiny.TinyCompute())
            life.tasks.append(asyncio.create_task(worker.run(asyncio.Event())))

    def _kill(self, life: Life) -> NoReturn:
        """Kill a process, here and now; called from any of its threads."""
        doomed = [life]
        if self._whole and life.part == "border":
            doomed.append(self._lives[life.site, "behind"])
        for each in doomed:
            self._end(each)
        self._loop.call_soon_threadsafe(self._fell, doomed)
        raise Killed

    def _end(self, life: Life) -> None:
        life.alive = False
        for cut in life.cut:
            with contextlib.suppress(sqlite3.ProgrammingError):  # closed before
                cut()

    def _fell(self, lives: list[Life]) -> None:
        self._calm.clear()
        for life in lives:
            self._fallen.put_nowait(life)

    async def _raise_again(self) -> None:
        while True:
            life = await self._fallen.get()
            await self._bury(life)
            self._begin(life.site, life.part)
            if self._fallen.empty():
                self._calm.set()

    async def _bury(self, life: Life) -> None:
        for task in life.tasks:
            task.cancel()
        await asyncio.gather(*life.tasks, return_exceptions=True)

    def _observed(self, life: Life, move: Move) -> None:
        if not life.alive:
            raise Killed
        here = AtMove(life.site, move.direction, move.state, move.moment)
        self.moves.add(here)
        if happens := self.meanwhile.pop(here, None):
            happens()
        if here in self.dooms:
            self.dooms.remove(here)
            self._kill(life)

    def _watch_writes(self, life: Life, database: sqlite3.Connection) -> None:
        """Count the changes of a database; from where a doom strikes on, its every statement is broken off."""

        def started(statement: str) -> None:
            if life.alive and statement.startswith("BEGIN IMMEDIATE"):
                self.writes[life.site] += 1
                if (here := AtWrite(life.site, self.writes[life.site])) in self.dooms:
                    self.dooms.remove(here)
                    life.alive = False
                    self._loop.call_soon_threadsafe(self._struck, life)

        database.set_trace_callback(started)
        database.set_progress_handler(lambda: not life.alive, 1)

    def _struck(self, life: Life) -> None:
        self._end(life)
        self._fell([life])

    # ---- connections

    def _reached(self, site: SiteId, face: Callable[[border_app.Border], FastAPI | Any], caller: Life | None) -> Any:
        """Return a border's face as others reach it: through a connection that ends with either side's life."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            call = _name_of(scope)
            number = self._count(caller, call)
            await self._passing(caller, call, number, "before")
            life = self._lives[site, "border"]
            if not life.alive or life.border is None:
                raise httpx2.ConnectError("nobody listens")
            handling = asyncio.create_task(face(life.border)(scope, receive, send))
            self._handlers.add(handling)
            handling.add_done_callback(_looked_at)
            try:
                await asyncio.shield(handling)
            except asyncio.CancelledError:
                raise
            except BaseException:
                if life.alive:
                    raise
            if not life.alive:
                raise httpx2.ReadError("the connection was reset")
            if caller is not None:
                self.answered[caller.site, call].set()
            await self._passing(caller, call, number, "after")

        return app

    async def _passing(self, caller: Life | None, call: str, number: int, moment: Moment) -> None:
        """Kill the caller where that is due; the dead call nobody."""
        if caller is None:
            return
        if caller.alive and (here := AtCall(caller.site, call, number, moment)) in self.dooms:
            self.dooms.remove(here)
            with contextlib.suppress(Killed):
                self._kill(caller)
        if not caller.alive:
            await asyncio.Future()  # until it is buried

    def _count(self, caller: Life | None, call: str) -> int:
        """Count a call of what stands behind a border; a border's own calls, or people's, are number 0."""
        if caller is None or caller.part == "border" or not caller.alive:
            return 0
        self.calls[caller.site, call] += 1
        return self.calls[caller.site, call]

    def client(self, site: SiteId, role: InsideRole, caller: Life | None = None) -> BorderClient:
        app = self._reached(site, lambda border: border.inside, caller)
        return BorderClient(http_to(app), read_token(self.home / site / "tokens" / role.value))

    # ---- what people do

    async def submitted(self, request: JobRequest) -> JobId:
        """Hand a job in, again until somebody takes it."""
        while True:
            try:
                return (await self.jobs().submit(request, "once")).id
            except Fault:
                await self._risen()

    async def finished(self, job: JobId) -> JobView:
        """Wait until a job is over, whoever dies meanwhile."""
        while True:
            try:
                async for _ in self.jobs().watch(job):
                    pass
                view = await self.jobs().job(job)
            except Fault:
                await self._risen()
                continue
            if view.state is not JobState.RUNNING:
                return view

    def strike(self, site: SiteId, part: Part) -> None:
        """Kill a process now; from any thread."""
        self._loop.call_soon_threadsafe(self._struck, self._lives[site, part])

    async def officers(
        self, site: SiteId, *, standing: bool = True, kinds: frozenset[Kind] = RELEASES, reject: bool = False
    ) -> None:
        """Approve (or reject) what is held in a zone, class by class or one by one."""
        client = self.client(site, InsideRole.OFFICER)
        while True:
            bell = self.sites[site].border.bell
            ticket = bell.ticket()
            try:
                for item in (await client.review()).items:
                    if item.manifest.kind not in kinds:
                        continue
                    if reject:
                        await client.reject(self._rejected(OFFICERS[site][0], item))
                        continue
                    for person in OFFICERS[site]:
                        await client.approve(self.signed(person, item, standing=standing))
            except Refusal:  # it has been let go meanwhile
                continue
            except Fault:
                await self._risen()
                continue
            await bell.wait(ticket, 30)

    def _rejected(self, person: PersonId, item: ReviewItem) -> SignedStatement:
        manifest = item.manifest
        body = Rejection(version=1, zone=manifest.sender, crossing=manifest.crossing, sealed=manifest.payload.digest)
        envelope = federation.officer_key(self.home, person).sign(REJECTION_TYPE, canonical.dump(body))
        return SignedStatement(envelope=envelope.decode())

    async def settled(self, *, closed: bool = True) -> None:
        """Wait until every crossing has come to its end everywhere and, if `closed`, each zone's orders have."""
        for site in self.chosen:
            while not await self._is_quiet(site, closed=closed):
                bell = self.sites[site].border.bell
                await bell.wait(bell.ticket(), 0.02)
        await self._risen()

    async def _is_quiet(self, site: SiteId, *, closed: bool) -> bool:
        await self._risen()
        try:
            rows = self.rows(site, "SELECT direction, state FROM crossing")
            opened = self.rows(site, "SELECT 1 FROM orders WHERE direction = 'in' AND state = 'open'")
        except sqlite3.ProgrammingError:
            return False
        return not (opened and closed) and all(row["state"] in FINAL for row in rows)

    async def until(self, site: SiteId, query: str) -> None:
        """Wait until a border's ledger has an answer to a query."""
        bell = self.sites[site].border.bell
        ticket = bell.ticket()
        while not self.rows(site, query):
            await bell.wait(ticket, 30)
            ticket = bell.ticket()

    async def _risen(self) -> None:
        """Wait until nobody is dead."""
        await asyncio.sleep(0)  # a kill in a thread is heard of when the loop runs
        if self._undertaker.done():
            self._undertaker.result()
        await self._calm.wait()

    def rows(self, site: SiteId, query: str) -> list[sqlite3.Row]:
        """Read from a border's ledger."""
        with self.sites[site].border.store.transaction() as tx:
            return tx.execute(query).fetchall()

    def sealed_left(self, site: SiteId) -> list[str]:
        """Return the sealed payloads that a border still keeps."""
        blobs = self.folder(site, "border") / "blobs"
        return [path.name for path in blobs.iterdir() if not path.name.startswith("free-")]

    def folder(self, site: SiteId, part: Part) -> Path:
        """Return where a process keeps its files in this life."""
        return self._lives[site, part].folder


def _name_of(scope: Any) -> str:
    """Return what a call asks for: the last word of its path."""
    return str(scope["path"]).rsplit("/", 1)[-1]


def _looked_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
