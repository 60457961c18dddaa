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
from isthmus.cli.answers import MICRO, epsilon
from isthmus.cli.homes import DEFAULT_HOME, Home
from isthmus.cli.options import As, HomeFolder, Job, Json
from isthmus.cli.screen import Bar, Exit, Screen, exit_for, short, table
from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.jobs import JobEvent, JobList, JobRequest, JobResults, JobState, JobView
from isthmus.contracts.orders import TrainingPrivacy

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
    epsilon_: Annotated[
        float | None,
        typer.Option(
            "--epsilon", help="Train the default job under differential privacy: what all its updates may cost."
        ),
    ] = None,
    delta_exponent: Annotated[
        int | None, typer.Option("--delta-exponent", help="Of a private training: delta is 1e-N.", show_default="6")
    ] = None,
    vehicle_norm: Annotated[
        float | None,
        typer.Option("--vehicle-norm", help="Of a private training: the most that one vehicle changes in a round."),
    ] = None,
    vehicles: Annotated[
        int | None, typer.Option("--vehicles", help="Of a private training: what each zone's sum is divided by.")
    ] = None,
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
    privacy = privacy_of(epsilon_, delta_exponent, vehicle_norm, vehicles)
    if file is not None and privacy is not None:
        raise typer.BadParameter("a job in a file says itself whether it is private: [training.privacy]")
    opened = Home.open(home)
    request = read_job(file) if file else demo_job(opened, rounds, privacy)
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
    if view.privacy is not None:
        head += f"\n{promise(view.privacy)}"
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


def promise(privacy: TrainingPrivacy) -> str:
    """Return what a private training promises to each vehicle, and what it does not."""
    cost = epsilon(privacy.epsilon_micro, privacy.delta_exponent)
    norm = f"{privacy.vehicle_norm_micro / MICRO:g}"
    return (
        f"Private: all updates together cost a vehicle at most {cost} of its zone's budget. Each vehicle is clipped to"
        f" {norm}, sums are divided by {privacy.vehicles}. Evaluations are banded, not private."
    )


def privacy_of(
    epsilon_: float | None, delta_exponent: int | None, vehicle_norm: float | None, vehicles: int | None
) -> TrainingPrivacy | None:
    """Return the privacy that options ask for, None where they ask for none.

    Raises:
        BadParameter: only some of what it takes is given, or a number is out of bounds.
    """
    if epsilon_ is None and delta_exponent is None and vehicle_norm is None and vehicles is None:
        return None
    if epsilon_ is None or vehicle_norm is None or vehicles is None:
        raise typer.BadParameter("a private training takes --epsilon, --vehicle-norm and --vehicles together")
    try:
        return TrainingPrivacy(
            epsilon_micro=round(epsilon_ * MICRO),
            delta_exponent=defaults.DELTA_EXPONENT if delta_exponent is None else delta_exponent,
            vehicle_norm_micro=round(vehicle_norm * MICRO),
            vehicles=vehicles,
        )
    except (ValueError, OverflowError) as error:  # OverflowError: an infinite number
        raise typer.BadParameter(
            "a private training takes an epsilon of 0.001 to 100, a delta of 1e-6 to 1e-15, a norm of 0.001 to 1000 and"
            " 1 to 1,000,000 vehicles"
        ) from error


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


def demo_job(home: Home, rounds: int = defaults.ROUNDS, privacy: TrainingPrivacy | None = None) -> JobRequest:
    """Return the default training job over every zone that the coordinator's roster names."""
    hub = home.coordinator
    zones = [site.id for site in hub.roster().sites if site.part == "zone"]
    return defaults.training_job(hub.id, zones, rounds=rounds, privacy=privacy)


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
