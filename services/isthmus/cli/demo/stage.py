"""Where the demo plays: the sites, the people in them, and what each of these lets the demo see."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import SiteId
from isthmus.zone.results import read_results

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from isthmus.cli.demo.report import Attempt
    from isthmus.cli.homes import Home
    from isthmus.cli.screen import Screen
    from isthmus.contracts.identifiers import JobId
    from isthmus.contracts.inside import Evidence
    from isthmus.zone.results import ZoneResults

FLEETS = {SiteId("cn-shanghai"): 160, SiteId("us-texas"): 32}
"""Vehicles of each zone's fleet: one zone has few."""
MINUTES = 3
SEED = 7
RESULTS_WITHIN_S = 120.0
LOOKS_EVERY_S = 0.1


class Stage(Protocol):
    """A federation to play on."""

    @property
    def name(self) -> str:
        """What it is, for the screen."""

    @property
    def roots(self) -> Path:
        """The file of roots, as the auditor got it."""

    def start(self) -> None:
        """Start every site, or wait until all run."""

    def headquarters(self) -> Home:
        """Return the home that holds the engineer's and the auditor's tokens."""

    def ingest(self, screen: Screen) -> None:
        """Bring both fleets' drives into their zones."""

    def officers(self, job: JobId, screen: Screen) -> AbstractAsyncContextManager[None]:
        """Let the officers of every zone attend to a job."""

    async def results(self, zone: SiteId, job: JobId) -> ZoneResults:
        """Wait until a zone has adapted the model, and return what its operator sees."""

    def evidence(self) -> tuple[Evidence, ...]:
        """Return every site's part of the evidence, as it is now."""

    def attempts(self) -> tuple[Attempt, ...]:
        """Try what must fail, on a throwaway federation."""


async def results_in(folder: Path, job: JobId, within_s: float = RESULTS_WITHIN_S) -> ZoneResults:
    """Wait until a job's results stand in a folder, and read them.

    Raises:
        Fault: `COMPUTE_FAILED`: there are none in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    found = read_results(folder, job)
    while found is None:
        if loop.time() > deadline:
            raise Fault(Code.COMPUTE_FAILED, f"No results stand in {folder} after {within_s:.0f} s.")
        await asyncio.sleep(LOOKS_EVERY_S)
        found = await asyncio.to_thread(read_results, folder, job)
    return found
