"""Where the demo plays: the sites, the people in them, and what each of these lets the demo see."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
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
    from isthmus.proof.wire import Party
    from isthmus.zone.results import ZoneResults

FLEETS = {SiteId("cn-shanghai"): 160, SiteId("us-texas"): 32}
"""Vehicles of each zone's fleet: one zone has few."""
MINUTES = 3
SEED = 7
RESULTS_WITHIN_S = 600.0
"""A zone trains its reference after the last round, which takes about as long as all rounds did."""
LOOKS_EVERY_S = 0.1
QUIET_S, QUIET_WITHIN_S = 0.4, 20.0
"""For so long must nothing pass before a capture is copied, that no message is cut in two. Borders pause longer."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture of a stage's link needs to be audited.

    Attributes:
        parties: whose addresses are in it.
        by: who took it and where, and so what it is worth, in a sentence or two.
    """

    parties: tuple[Party, ...]
    by: str


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

    def captured(self, target: Path) -> Captured:
        """Copy all that passed between the borders until now to `target`, a pcap file."""

    def attempts(self) -> tuple[Attempt, ...]:
        """Try what must fail, on a throwaway federation."""


def until_quiet(capture: Path) -> None:
    """Wait until nothing has been written to a capture for a while; not for ever."""
    deadline = time.monotonic() + QUIET_WITHIN_S
    size, since = capture.stat().st_size, time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < QUIET_S:
        if (now := capture.stat().st_size) != size:
            size, since = now, time.monotonic()
        time.sleep(LOOKS_EVERY_S)


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
