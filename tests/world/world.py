"""The World: every site of a federation in one process, over ASGI, with real ledgers, keys and files.

Borders, zones and the coordinator are the shipped ones, put together by their own composition roots; only sockets are
missing. A site's processes can be stopped and built again from disk, which is what a crash leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import numpy as np
import pyarrow as pa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from isthmus.border import app as border_app
from isthmus.border.bridge.client import RemoteKeeper
from isthmus.border.bridge.server import Bridge
from isthmus.border.gate.dialer import Dialer
from isthmus.border.gate.identity import EXTENSION
from isthmus.border.gate_app import build_gate
from isthmus.border.keeper.desk import Move, unobserved
from isthmus.border.settings import BorderSettings, load_genesis
from isthmus.border.slots import at_slots
from isthmus.cli import federation
from isthmus.client.border import BorderClient
from isthmus.client.jobs import JobsClient
from isthmus.contracts.approvals import APPROVAL_TYPE, STANDING_APPROVAL_TYPE
from isthmus.contracts.crossings import Kind
from isthmus.contracts.identifiers import Name, PersonId, SiteId
from isthmus.contracts.inside import InsideRole, ReviewItem, SignedStatement
from isthmus.contracts.jobs import JobRequest, ZoneData
from isthmus.contracts.orders import DatasetRef, EvaluationPlan, TrainingPlan, Weighting
from isthmus.coordinator import app as coordinator_app
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.kit.bell import Bell
from isthmus.kit.clock import Clock, SystemClock
from isthmus.kit.tokens import read_token
from isthmus.proof import canonical
from isthmus.zone import app as zone_app
from isthmus.zone.settings import ZoneSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from isthmus.zone.compute import Compute

HQ, CN, US = SiteId("hq"), SiteId("cn-shanghai"), SiteId("us-texas")
ZONES = (CN, US)
OFFICERS = {
    CN: (PersonId("lin.officer"), PersonId("wu.officer")),
    US: (PersonId("carter.officer"), PersonId("diaz.officer")),
}
ENGINEER = PersonId("maya.engineer")
DATASET = DatasetRef(dataset=Name("drives"), snapshot=Name("2026q4"))
PURPOSE = Name("forecast-training")


def with_certificate(app: Any, certificate: bytes) -> Any:
    """Wrap an app so that every request shows `certificate`, as the TLS layer would."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {**scope.get("extensions", {}), EXTENSION: certificate}}, receive, send)

    return wrapped


def http_to(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://site")


@dataclass
class SiteProcesses:
    """What runs of one site."""

    border: border_app.Border
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    closers: list[Callable[[], None]] = field(default_factory=list)


class World:
    """A federation in `home`."""

    def __init__(
        self,
        home: Path,
        *,
        clock: Clock | None = None,
        compute: dict[SiteId, Compute] | None = None,
        halves: Literal[1, 2] = 1,
    ) -> None:
        self.home = home
        self.halves = halves
        self.clock = clock or SystemClock()
        self.compute = compute or {}
        self.observers: dict[SiteId, Callable[[Move], None]] = {}
        self.sites: dict[SiteId, SiteProcesses] = {}
        if not (home / "roots.json").exists():
            federation.create(home, dataclasses.replace(federation.demo_plan(), minimum_slot_s=1), self.clock)

    # ---- starting and stopping

    def start_border(self, site: SiteId) -> border_app.Border:
        border = border_app.build(
            BorderSettings.load(self.home / site), self.clock, self.observers.get(site, unobserved)
        )
        self.sites[site] = SiteProcesses(border)
        if self.halves == 2:
            self._part(site)
        return self.sites[site].border

    def _part(self, site: SiteId) -> None:
        """Put a socket between a site's keeper and its gate."""
        processes = self.sites[site]
        whole = processes.border
        settings = BorderSettings.load(self.home / site)
        bell = Bell()
        near = RemoteKeeper(settings.keeper, bell)
        apart = contextlib.ExitStack()
        apart.enter_context(Bridge(whole.half, whole.bell, settings.keeper))
        apart.enter_context(near)
        gate = build_gate(near, load_genesis(settings.home).roster, bell)
        processes.border = dataclasses.replace(whole, gate=gate)
        processes.closers += [whole.bell.close, apart.close]

    def dial(self, site: SiteId) -> Dialer:
        certificate = self.certificate(site)
        hub = self

        async def outside(scope: Any, receive: Any, send: Any) -> None:
            await with_certificate(hub.sites[HQ].border.outside, certificate)(scope, receive, send)

        border = self.sites[site].border
        return Dialer(border.half, site, HQ, http_to(outside), border.bell, cadence_s=3600)

    def certificate(self, site: SiteId) -> bytes:
        pem = (self.home / site / "keys" / "link.pem").read_bytes()
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)

    async def start(self, *sites: SiteId) -> None:
        """Start the borders, then what stands behind them, then the links."""
        chosen = sites or (HQ, *ZONES)
        for site in chosen:
            self.start_border(site)
        for site in chosen:
            self.start_site(site)
        for site in chosen:
            self.start_link(site)

    def start_site(self, site: SiteId) -> None:
        processes = self.sites[site]
        if site == HQ:
            settings = CoordinatorSettings.load(self.home / site)
            coordinator = coordinator_app.assemble(settings, self.client(site, InsideRole.SUBMITTER), self.clock)
            self.coordinator = coordinator
            processes.tasks.append(asyncio.create_task(coordinator.runner.run()))
            processes.closers += [coordinator.bell.close, coordinator.store.close]
        else:
            zone = zone_app.build(ZoneSettings.load(self.home / site), self.clock)
            worker = zone.worker(self.client(site, InsideRole.COMPUTE), self.compute.get(site))
            processes.tasks.append(asyncio.create_task(worker.run(asyncio.Event())))
            processes.closers.append(zone.close)

    def start_link(self, site: SiteId) -> None:
        if site != HQ:
            statistics = self.sites[site].border.keeper.statistics
            self.sites[site].tasks.append(asyncio.create_task(at_slots(statistics, self.clock, asyncio.Event())))
            self.sites[site].tasks.append(asyncio.create_task(self.dial(site).run()))

    async def stop(self, site: SiteId) -> None:
        """End a site's tasks and drop what it had in memory; its files stay as they are."""
        processes = self.sites.pop(site)
        processes.border.bell.close()
        for task in processes.tasks:
            task.cancel()
        await asyncio.gather(*processes.tasks, return_exceptions=True)
        for close in processes.closers:
            close()
        processes.border.store.close()

    async def close(self) -> None:
        for site in [s for s in self.sites if s != HQ] + [s for s in self.sites if s == HQ]:
            await self.stop(site)

    # ---- clients

    def client(self, site: SiteId, role: InsideRole) -> BorderClient:
        world = self

        async def inside(scope: Any, receive: Any, send: Any) -> None:
            await world.sites[site].border.inside(scope, receive, send)

        return BorderClient(http_to(inside), read_token(self.home / site / "tokens" / role.value))

    def jobs(self, person: PersonId = ENGINEER) -> JobsClient:
        return JobsClient(http_to(self.coordinator.app), read_token(self.home / "people" / person / "token"))

    # ---- what people do

    async def ingest(self, site: SiteId, tables: list[pa.Table], dataset: DatasetRef = DATASET) -> Any:
        zone = zone_app.build(ZoneSettings.load(self.home / site), self.clock)
        try:
            return await zone.ingest(tables, dataset=dataset, border=self.client(site, InsideRole.INGEST))
        finally:
            zone.close()

    async def held(self, site: SiteId, kind: Kind = Kind.MODEL_UPDATE) -> ReviewItem:
        """Wait until the zone's border holds a release of `kind`."""
        officer = self.client(site, InsideRole.OFFICER)
        while True:
            ticket = self.sites[site].border.bell.ticket()
            for item in (await officer.review()).items:
                if item.manifest.kind is kind:
                    return item
            await self.sites[site].border.bell.wait(ticket, 30)

    def signed(self, person: PersonId, item: ReviewItem, *, standing: bool = True) -> SignedStatement:
        body = item.standing if standing else item.single
        payload_type = STANDING_APPROVAL_TYPE if standing else APPROVAL_TYPE
        envelope = federation.officer_key(self.home, person).sign(payload_type, canonical.dump(body))
        return SignedStatement(envelope=envelope.decode())

    async def approve(self, site: SiteId, kind: Kind = Kind.MODEL_UPDATE, *, standing: bool = True) -> None:
        """Both officers of a zone approve the next held release of `kind`."""
        item = await self.held(site, kind)
        officer = self.client(site, InsideRole.OFFICER)
        for person in OFFICERS[site]:
            await officer.approve(self.signed(person, item, standing=standing))


@contextlib.asynccontextmanager
async def running(world: World, *sites: SiteId) -> AsyncIterator[World]:
    await world.start(*sites)
    try:
        yield world
    finally:
        await world.close()


def drives(
    vehicles: int, seed: int, *, seconds: float = 20.0, radius: float = 30.0, vin: str | None = None
) -> list[pa.Table]:
    """Small made-up drives: each vehicle goes round a circle of its own, with one road user ahead of it."""
    return list(_drives(vehicles, seed, seconds, radius, vin))


def _drives(vehicles: int, seed: int, seconds: float, radius: float, vin: str | None) -> Iterator[pa.Table]:
    rng = np.random.default_rng(seed)
    t = np.arange(0.0, seconds, 0.2)
    for index in range(vehicles):
        r, speed, phase = radius * rng.uniform(0.8, 1.2), rng.uniform(5, 9), rng.uniform(0, 6)
        rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        for step in t:
            for track, ahead in ((0, 0.0), (1, 0.4)):
                angle = phase + speed / r * step + ahead
                heading = (angle + np.pi / 2 + np.pi) % (2 * np.pi) - np.pi
                rows["vehicle"].append(f"vehicle-{seed}-{index}")
                rows["vin"].append(vin or f"ISTHMUSTEST{seed:02d}{index:04d}")
                rows["lat"].append(31.2)
                rows["lon"].append(121.4)
                rows["scene_id"].append(f"scene-{seed}-{index}")
                rows["track_id"].append(track)
                rows["t"].append(float(step))
                rows["x"].append(r * np.cos(angle))
                rows["y"].append(r * np.sin(angle))
                rows["vx"].append(speed * np.cos(heading))
                rows["vy"].append(speed * np.sin(heading))
                rows["heading"].append(heading)
                rows["length"].append(4.5)
                rows["width"].append(1.8)
                rows["type"].append("car")
                rows["road_type"].append("roundabout")
        yield pa.table({name: pa.array(values, _COLUMNS[name]) for name, values in rows.items()})


_F, _S = pa.float32(), pa.string()
_COLUMNS = {
    "vehicle": _S, "vin": _S, "lat": pa.float64(), "lon": pa.float64(), "scene_id": _S, "track_id": pa.int32(),
    "t": pa.float64(), "x": _F, "y": _F, "vx": _F, "vy": _F, "heading": _F, "length": _F, "width": _F,
    "type": _S, "road_type": _S,
}  # fmt: skip


def plan(rounds: int = 2, **changes: Any) -> TrainingPlan:
    values: dict[str, Any] = {
        "rounds": rounds, "epochs": 1, "batch_size": 64, "learning_rate_micro": 1000, "seed": 7,
        "weighting": Weighting.VEHICLES, "held_out_vehicles": 10, "split_salt": Name("split-1"),
        "adaptation_epochs": 1, "reference_epochs": 1,
    }  # fmt: skip
    return TrainingPlan(**{**values, **changes})


def request(rounds: int = 2, zones: tuple[SiteId, ...] = ZONES, **changes: Any) -> JobRequest:
    values: dict[str, Any] = {
        "name": Name("first"),
        "algorithm": Name("motion-forecast-fedavg"),
        "zones": tuple(ZoneData(zone=z, dataset=DATASET) for z in zones),
        "purpose": PURPOSE,
        "recipients": tuple(sorted((HQ, *zones))),
        "training": plan(rounds),
        "evaluation": EvaluationPlan(at_slots=(rounds,), band_um=20_000, minimum_vehicles=10),
    }
    return JobRequest(**{**values, **changes})
