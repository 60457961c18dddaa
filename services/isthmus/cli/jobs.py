"""`jobs`: submit jobs to the coordinator and see how they go. All of what is shown has crossed, or never left."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import asyncio
import tomllib
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli import defaults
from isthmus.cli.homes import DEFAULT_HOME, Home
from isthmus.cli.options import As, HomeFolder, Job, Json
from isthmus.cli.screen import Bar, Exit, Screen, exit_for, short, table
from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.jobs import JobEvent, JobList, JobRequest, JobResults, JobState, JobView

if TYPE_CHECKING:
    from isthmus.client.jobs import JobsClient

app = typer.Typer(help="Submit jobs and watch them.")


@app.command("run")
def run(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A job as TOML or JSON.", dir_okay=False, show_default=False)
    ] = None,
    *,
    demo: Annotated[bool, typer.Option("--demo", help="Submit the default training job over all zones.")] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of the default job.")] = defaults.ROUNDS,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Submitting again with the same key gives the same job.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until the job ends.")] = False,
    person: As = None,
    home: HomeFolder = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Submit a job: FILE, or --demo."""
    if demo == (file is not None):
        raise typer.BadParameter("give one of FILE and --demo")
    opened = Home.open(home)
    request = read_job(file) if file else demo_job(opened, rounds)
    screen = Screen(machine=json)

    async def submit() -> Exit:
        from isthmus.cli.connections import jobs_of

        async with jobs_of(opened, person) as jobs:
            view = await jobs.submit(request, key)
            screen.result(view, f"{view.id} runs. See how: `isthmus jobs watch {view.id}`.")
            return await follow(jobs, view.id, screen) if watch else Exit.OK

    raise typer.Exit(asyncio.run(submit()))


@app.command("list")
def list_(*, person: As = None, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """List all jobs, newest first."""
    opened = Home.open(home)

    async def ask() -> tuple[JobView, ...]:
        from isthmus.cli.connections import jobs_of

        async with jobs_of(opened, person) as jobs:
            return await jobs.jobs()

    found = asyncio.run(ask())
    rows = [(j.id, j.name, j.state, f"{j.rounds_done}/{j.rounds}", j.submitted_by, j.code or "") for j in found]
    columns = ("job", "name", "state", "rounds", "by", "code")
    Screen(machine=json).result(JobList(items=found), table("Jobs", columns, rows))


@app.command("show")
def show(job: Job, *, person: As = None, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """Show a job: where each zone stands, and what it brought."""
    opened = Home.open(home)

    async def ask() -> tuple[JobView, JobResults]:
        from isthmus.cli.connections import jobs_of

        async with jobs_of(opened, person) as jobs:
            return await jobs.job(job), await jobs.results(job)

    view, results = asyncio.run(ask())
    show_job(Screen(machine=json), view, results)


@app.command("watch")
def watch_(job: Job, *, person: As = None, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """Watch a job until it ends. With --json, one event a line, then the job."""
    opened = Home.open(home)
    screen = Screen(machine=json)

    async def ask() -> Exit:
        from isthmus.cli.connections import jobs_of

        async with jobs_of(opened, person) as jobs:
            return await follow(jobs, job, screen)

    raise typer.Exit(asyncio.run(ask()))


async def follow(jobs: "JobsClient", job: JobId, screen: Screen) -> Exit:
    """Show a job's events until it ends, then the job; return how it ended."""
    first = await jobs.job(job)
    with screen.progress(f"{job}", first.rounds or None) as bar:
        async for event in jobs.watch(job):
            _tell(event, bar, screen)
    view = await jobs.job(job)
    show_job(screen, view, await jobs.results(job))
    return exit_for(view.code or Code.COMPUTE_FAILED) if view.state is JobState.FAILED else Exit.OK


def show_job(screen: Screen, view: JobView, results: JobResults) -> None:
    """Show a job, its zones, its last model and the evaluations that crossed."""
    zones = [(z.zone, z.slot, z.waiting, z.code or "", short(z.order)) for z in view.zones]
    figures = [
        (
            e.zone,
            e.evaluation.slot,
            f.predictor,
            f"{f.ade_um / 1e6:.2f}",
            f"{f.fde_um / 1e6:.2f}",
            f"{f.miss_ppm / 1e4:.0f}",
        )
        for e in results.evaluations
        for f in e.evaluation.figures
    ]
    head = f"{view.id}  {view.name}  {view.state}  {view.code or ''}\n{view.rounds_done} of {view.rounds} rounds"
    screen.result(
        {"job": view.model_dump(mode="json"), "results": results.model_dump(mode="json")},
        head,
        f"model {view.model}" if view.model else "no model yet",
        table("Zones", ("zone", "slot", "waits for", "code", "order"), zones),
        *(
            [
                table(
                    "Evaluations that crossed (banded)",
                    ("zone", "slot", "predictor", "ADE m", "FDE m", "miss %"),
                    figures,
                )
            ]
            if figures
            else []
        ),
    )


def _tell(event: JobEvent, bar: Bar, screen: Screen) -> None:
    where = event.site or "coordinator"
    match event.event:
        case "round_done":
            bar.at((event.slot or 0) + 1)
        case "notice" if event.code is Code.APPROVAL_MISSING:
            screen.note(f"{where} holds a release for its officers: `isthmus review list --site {where}`.", "yellow")
        case "notice" | "refused" | "failed":
            screen.note(f"{where}: {event.event}, {event.code or 'no code'}.", "red")
        case _:
            pass
    if screen.machine:
        screen.result(event)


def demo_job(home: Home, rounds: int = defaults.ROUNDS) -> JobRequest:
    """Return the default training job over every zone that the coordinator's roster names."""
    hub = home.coordinator
    zones = [site.id for site in hub.roster().sites if site.part == "zone"]
    return defaults.training_job(hub.id, zones, rounds=rounds)


def read_job(path: Path) -> JobRequest:
    """Read a job from TOML or JSON.

    Raises:
        Refusal: `INPUT_INVALID`: what it holds is no job; the place is named.
        Fault: `STORAGE_FAILED`: it cannot be read.
    """
    from isthmus.coordinator.requests import read_request

    try:
        text = path.read_bytes()
        if path.suffix == ".toml":
            text = dumps(tomllib.loads(text.decode())).encode()
    except OSError as error:
        raise Fault(Code.STORAGE_FAILED, f"{path} cannot be read.", why=error.strerror or "") from error
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(f"{path} is no job in TOML: {error}") from error
    return read_request(text)
