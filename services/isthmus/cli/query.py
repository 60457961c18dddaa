"""`query`: ask one question of the zones' fleets. What is shown has crossed; the question's text stays here."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import asyncio
from typing import Annotated

import typer

from isthmus.cli import defaults
from isthmus.cli.answers import explained, rendered
from isthmus.cli.homes import DEFAULT_HOME, Home
from isthmus.cli.options import As, Dataset, HomeFolder, Json, Snapshot
from isthmus.cli.screen import Screen, exit_for
from isthmus.contracts.answers import EPSILON_MICRO, SLOT_S, Explanation, QueryRequest, QueryView
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import SiteId
from isthmus.contracts.jobs import JobState
from isthmus.contracts.orders import DatasetRef
from isthmus.contracts.queries import Mode

MICRO = 1_000_000
MODES = {mode.value.replace("_", "-"): mode for mode in Mode}
MOST_EPSILON = 10.0
MOST_TEXT = 4_096


def _mode(text: str) -> Mode:
    try:
        return MODES[text]
    except KeyError:
        raise typer.BadParameter(f"one of {', '.join(MODES)}") from None


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="The question, such as 'SELECT count(*) FROM drives'.")],
    *,
    zones: Annotated[
        list[SiteId] | None,
        typer.Option("--zone", parser=SiteId, metavar="ZONE", help="Only this zone; may be repeated."),
    ] = None,
    mode: Annotated[
        Mode, typer.Option("--mode", parser=_mode, metavar="MODE", help="dp, or disclosure-controlled.")
    ] = Mode.DP,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="What an answer may cost in each zone, under dp; 1 if left out.")
    ] = None,
    slot: Annotated[
        int, typer.Option("--slot", min=1, max=3600, help="Seconds of the grid on which answers leave a zone.")
    ] = SLOT_S,
    explain: Annotated[bool, typer.Option("--explain", help="Only say what would be checked, cost and come.")] = False,
    dataset: Dataset = defaults.DATASET.dataset,
    snapshot: Snapshot = defaults.DATASET.snapshot,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Asking again with the same key is the same question.")
    ] = None,
    person: As = None,
    home: HomeFolder = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Ask a question of all zones, and wait for the answers: each zone's, and the whole."""
    opened = Home.open(home)
    screen = Screen(machine=json)
    if epsilon is not None and not (mode is Mode.DP and 1 / MICRO <= epsilon <= MOST_EPSILON):
        raise typer.BadParameter(f"--epsilon is 0.000001 to {MOST_EPSILON:g}, and stands with --mode dp")
    if not 0 < len(sql.strip()) <= MOST_TEXT:
        raise typer.BadParameter(f"the question has 1 to {MOST_TEXT:,} characters")
    request = defaults.question(
        opened.coordinator.id,
        set(zones) if zones else [site.id for site in opened.coordinator.roster().sites if site.part == "zone"],
        sql,
        mode=mode,
        epsilon_micro=round((epsilon or EPSILON_MICRO / MICRO) * MICRO) if mode is Mode.DP else None,
        slot_s=slot,
        dataset=DatasetRef(dataset=dataset, snapshot=snapshot),
    )
    if explain:
        found = asyncio.run(_explained(opened, person, request))
        screen.result(found, *explained(found))
        return
    with screen.waiting("Asking ..."):
        view = asyncio.run(_asked(opened, person, request, key, screen))
    screen.result(view, *rendered(view))
    raise typer.Exit(exit_for(view.code or Code.NOT_RELEASED) if view.state is JobState.FAILED else 0)


async def _explained(home: Home, person: As, request: QueryRequest) -> Explanation:
    from isthmus.cli.connections import jobs_of

    async with jobs_of(home, person) as jobs:
        return await jobs.explain(request)


async def _asked(home: Home, person: As, request: QueryRequest, key: str | None, screen: Screen) -> QueryView:
    from isthmus.cli.connections import jobs_of

    told: set[str] = set()

    def tell(view: QueryView) -> None:
        for zone in view.zones:
            if zone.waiting == "approval" and zone.zone not in told:
                told.add(zone.zone)
                see = f"`isthmus review list --site {zone.zone}`"
                screen.note(f"{zone.zone} holds its answer for its officers: {see}.", "yellow")

    async with jobs_of(home, person) as jobs:
        asked = await jobs.ask(request, key)
        screen.note(f"{asked.id}")
        return await jobs.answered(asked.id, tell)
