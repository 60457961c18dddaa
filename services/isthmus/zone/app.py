"""The zone, put together: a worker that serves orders, and ingest, which is another process with another token."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2

from isthmus.client.border import BorderClient
from isthmus.client.bulk import ThreadedBulk
from isthmus.kit import journal
from isthmus.kit.clock import SystemClock
from isthmus.kit.tokens import read_token
from isthmus.zone.catalogue import Catalogue, Database
from isthmus.zone.cluster.compute import RayCompute
from isthmus.zone.cluster.connection import Connection
from isthmus.zone.cluster.questions import RayQuestions
from isthmus.zone.compute import InProcessCompute
from isthmus.zone.ingest import ingest
from isthmus.zone.progress import Progress
from isthmus.zone.questions import InProcessQuestions
from isthmus.zone.store import open_store
from isthmus.zone.users import User
from isthmus.zone.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import pyarrow as pa

    from isthmus.contracts.orders import DatasetRef
    from isthmus.kit.clock import Clock
    from isthmus.zone.compute import Compute
    from isthmus.zone.ingest import IngestReport
    from isthmus.zone.questions import Questions
    from isthmus.zone.settings import ZoneSettings
    from isthmus.zone.store import ObjectStore

BORDER_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone's parts. Neither a key nor a token is among them."""

    settings: ZoneSettings
    store: ObjectStore
    database: Database
    catalogue: Catalogue
    clock: Clock

    @property
    def results(self) -> Path:
        """Where jobs' results and adapted models stand (see `zone.results`)."""
        return self.settings.results

    def worker(self, border: BorderClient, compute: Compute | None = None) -> Worker:
        """Return a worker.

        Args:
            border: the zone's border, with the token of compute.
            compute: who trains; where None, the cluster of the settings, or this process.
        """
        return Worker(
            site=self.settings.site,
            border=border,
            compute=compute or self.compute(),
            questions=self.questions(),
            catalogue=self.catalogue,
            progress=Progress(self.database),
            results=self.settings.results,
            clock=self.clock,
        )

    def compute(self) -> Compute:
        """Return who trains: the cluster where the settings name one, else this process."""
        ray = self.settings.ray
        if ray is None:
            return InProcessCompute(self.store, self.settings.accelerator)
        connection = Connection(ray.client_address, ray.token, ray.start_within_s)
        return RayCompute(connection, ray, self.catalogue.sealed_bytes)

    def questions(self) -> Questions:
        """Return who counts: this process, and for large tables the cluster where the settings name one."""
        ray, here = self.settings.ray, InProcessQuestions(self.store, self.settings.accelerator)
        if ray is None:
            return here
        connection = Connection(ray.client_address, ray.token, ray.start_within_s)
        return RayQuestions(connection, ray, self.catalogue.sealed_bytes, here)

    async def ingest(
        self,
        tables: Iterable[pa.Table],
        *,
        dataset: DatasetRef,
        border: BorderClient,
        freeze: bool = True,
        on_file: Callable[[int], None] | None = None,
    ) -> IngestReport:
        """Ingest raw tables (see `zone.ingest`); `border` with the token of ingest."""
        return await ingest(
            tables,
            dataset=dataset,
            store=self.store,
            catalogue=self.catalogue,
            border=border,
            clock=self.clock,
            freeze=freeze,
            on_file=on_file,
        )

    def close(self) -> None:
        """Close the catalogue."""
        self.database.close()


def build(settings: ZoneSettings, clock: Clock | None = None, store: ObjectStore | None = None) -> Zone:
    """Put a zone together.

    Args:
        settings: where things are.
        clock: tells the time; the host's where None.
        store: where sealed objects are; where the settings say, as compute's user, where None.

    Raises:
        Fault: store or catalogue cannot be opened.
    """
    database = Database(settings.catalogue)
    return Zone(
        settings=settings,
        store=store or open_store(settings, User.COMPUTE),
        database=database,
        catalogue=Catalogue(database),
        clock=clock or SystemClock(),
    )


async def run(settings: ZoneSettings, stop: asyncio.Event, compute: Compute | None = None) -> None:
    """Serve the zone's orders until `stop` is set."""
    journal.configure("zone")
    token = read_token(settings.compute_token)
    zone = await asyncio.to_thread(build, settings)
    try:
        async with _http(settings) as http:
            border = BorderClient(http, token, ThreadedBulk(settings.border_url))
            await zone.worker(border, compute).run(stop)
    finally:
        zone.close()


async def run_ingest(
    settings: ZoneSettings,
    tables: Iterable[pa.Table],
    *,
    dataset: DatasetRef,
    freeze: bool = True,
    on_file: Callable[[int], None] | None = None,
) -> IngestReport:
    """Ingest raw tables, such as `zone.sources.tables_of` a file or a simulated fleet's, and return what came in."""
    token = read_token(settings.ingest_token)
    store = await asyncio.to_thread(open_store, settings, User.INGEST)
    zone = await asyncio.to_thread(build, settings, None, store)
    try:
        async with _http(settings) as http:
            border = BorderClient(http, token)
            return await zone.ingest(tables, dataset=dataset, border=border, freeze=freeze, on_file=on_file)
    finally:
        zone.close()


def _http(settings: ZoneSettings) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=settings.border_url, timeout=BORDER_TIMEOUT_S, trust_env=False)
