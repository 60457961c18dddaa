"""A zone's people, in containers of their own.

`python -m isthmus.cli.demo.zone_people officers|operator ZONE HOME NOTES HANDOVER`. The officers sign what the
announced job asks for (`cli.demo.officers`) and, when it is over, hand its evidence to the auditor until that is
verified. The operator ingests the zone's fleet, and hands over the figures that stay in the zone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.cli.defaults import DATASET
from isthmus.cli.demo import notes, officers
from isthmus.cli.demo.stage import FLEETS, LOOKS_EVERY_S, MINUTES, SEED, results_in
from isthmus.cli.homes import Home
from isthmus.cli.ingest import fleet_tables, run_ingest
from isthmus.cli.ledger import gather
from isthmus.cli.screen import Exit, exit_of
from isthmus.contracts.errors import Code, Fault, IsthmusError, Refusal
from isthmus.contracts.identifiers import SiteId
from isthmus.proof import canonical
from isthmus.zone.results import results_path

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import JobId

EVIDENCE_EVERY_S = 1.0
READY = Path("/tmp/ready")  # noqa: S108 - a container's own tmpfs: its health check looks here
PRIVATE = 0o077


async def next_job(board: Path, stale: JobId | None) -> JobId:
    """Wait until a job runs that an earlier demo has not left, and return it."""
    while (job := notes.said(board, notes.Note.RUNS)) is None or job == stale:  # noqa: ASYNC110 - a file rings no bell
        await asyncio.sleep(LOOKS_EVERY_S)
    return job


def is_over(board: Path, job: JobId) -> bool:
    """Tell whether nothing more is needed of a job: its evidence was verified, it failed, or another one runs."""
    return notes.said(board, notes.Note.VERIFIED) == job or notes.said(board, notes.Note.RUNS) != job


async def officers_of(zone: SiteId, home: Home, board: Path, handover: Path, stale: JobId | None) -> JobId:
    """Attend to the announced job, then hand over evidence until it is verified; return the job."""
    job = await next_job(board, stale)
    attending = asyncio.create_task(_attend(home, job))
    while notes.said(board, notes.Note.DONE) != job and not is_over(board, job):  # noqa: ASYNC110 - as above
        await asyncio.sleep(LOOKS_EVERY_S)
    attending.cancel()
    while not is_over(board, job):
        with contextlib.suppress(Fault):  # the borders are at work, or one is just started again: ask once more
            (evidence,) = await gather([home.site(zone)])
            notes.hand_over(handover / notes.EVIDENCE / f"{job}.json", canonical.dump(evidence))
        await asyncio.sleep(EVIDENCE_EVERY_S)
    return job


async def _attend(home: Home, job: JobId) -> None:
    while True:
        with contextlib.suppress(Fault):  # the border is just started again
            await officers.attend(home, job)
        await asyncio.sleep(LOOKS_EVERY_S)


def ingest(zone: SiteId, home: Home, handover: Path) -> None:
    """Ingest the zone's fleet, unless an earlier demo has, and hand over how much it was."""
    told: dict[str, object]
    try:
        report = run_ingest(home.site(zone), fleet_tables(zone, FLEETS[zone], MINUTES, SEED), DATASET)
        told = asdict(report)
    except Refusal as refusal:
        if refusal.code is not Code.ALREADY_EXISTS:
            raise
        told = {"code": refusal.code.value, "what": refusal.what}
    notes.hand_over(handover / notes.FIGURES / notes.INGESTED, json.dumps(told).encode())
    READY.touch()


async def figures(zone: SiteId, home: Home, board: Path, handover: Path, stale: JobId | None) -> JobId:
    """Hand over the figures of the announced job, and return it."""
    job = await next_job(board, stale)
    results = home.site(zone).folder / "results"
    while not is_over(board, job):
        if results_path(results, job).exists():
            found = await results_in(results, job)
            notes.hand_over(results_path(handover / notes.FIGURES, job), canonical.dump(found))
            break
        await asyncio.sleep(LOOKS_EVERY_S)
    return job


def main() -> int:
    """Play one part; return the exit code."""
    part, zone, home_folder, board, handover = sys.argv[1], SiteId(sys.argv[2]), *map(Path, sys.argv[3:6])
    os.umask(PRIVATE)
    try:
        home = Home.open(home_folder)
        stale = notes.said(board, notes.Note.RUNS)
        if part == "operator":
            ingest(zone, home, handover)
            work = figures
        else:
            READY.touch()
            work = officers_of
        while (job := asyncio.run(work(zone, home, board, handover, stale))) != notes.said(board, notes.Note.RUNS):
            stale = job  # a later demo has begun meanwhile
    except IsthmusError as error:
        sys.stderr.write(f"{error.code.value}: {error}\n")
        return exit_of(error)
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
