"""`raw`: ask a zone for its rows from abroad, and see who says no."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import asyncio
from typing import Annotated

import typer

from isthmus.cli import defaults
from isthmus.cli.homes import DEFAULT_HOME, Home
from isthmus.cli.options import As, Dataset, HomeFolder, Json, Snapshot
from isthmus.cli.screen import Screen, exit_for, table
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.jobs import JobEvent
from isthmus.contracts.orders import DatasetRef


def raw(
    *,
    zone: Annotated[SiteId, typer.Option("--zone", parser=SiteId, metavar="ZONE", help="Whose rows.")],
    dataset: Dataset = defaults.DATASET.dataset,
    snapshot: Snapshot = defaults.DATASET.snapshot,
    person: As = None,
    home: HomeFolder = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Ask a zone for raw rows through a job, as anyone with an engineer's token could.

    Shows which border refused, and with which code. Exit code 1: refused.
    """
    opened = Home.open(home)
    screen = Screen(machine=json)
    request = defaults.raw_job(opened.coordinator.id, zone, DatasetRef(dataset=dataset, snapshot=snapshot))

    async def ask() -> list[JobEvent]:
        from isthmus.cli.connections import jobs_of

        async with jobs_of(opened, person) as jobs:
            job = await jobs.submit(request)
            return [event async for event in jobs.watch(job.id)]

    with screen.waiting(f"Asking {zone} for raw rows ..."):
        events = asyncio.run(ask())
    refused = [(e.site, e.code) for e in events if e.event == "refused"]
    code = next((code for _, code in refused), None) or events[-1].code
    failed = events[-1].event == "failed"
    screen.result(
        {
            "job": events[-1].job,
            "refused": [{"border": site, "code": refusal} for site, refusal in refused],
            "code": code,
        },
        table("Refused", ("border", "code"), [(site or "", refusal or "") for site, refusal in refused]),
        "No row has crossed." if failed else "The request was not refused.",
    )
    raise typer.Exit(exit_for(code or Code.NOT_RELEASED if failed else None))
