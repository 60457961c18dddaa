"""`ingest`: bring drives into a zone. It runs here and now, in a process of its own, with the token of ingest alone."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.defaults import DATASET
from isthmus.cli.homes import DEFAULT_HOME, Home, SiteHome
from isthmus.cli.options import Dataset, HomeFolder, Json, SiteArgument, Snapshot
from isthmus.cli.screen import Screen, table
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.orders import DatasetRef

if TYPE_CHECKING:
    from isthmus.zone.ingest import IngestReport

VEHICLES, MINUTES, SEED = 160, 3.0, 7


def ingest(
    site: SiteArgument,
    *,
    fleet: Annotated[bool, typer.Option("--fleet", help="Ingest drives of this zone's simulated fleet.")] = False,
    tracks: Annotated[
        Path | None,
        typer.Option(
            "--tracks", metavar="FILE", dir_okay=False, help="Ingest recorded tracks or a raw table (Parquet, CSV)."
        ),
    ] = None,
    vehicles: Annotated[int, typer.Option("--vehicles", min=1, help="Vehicles of the simulated fleet.")] = VEHICLES,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Minutes that each records.")] = MINUTES,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the simulation.")] = SEED,
    dataset: Dataset = DATASET.dataset,
    snapshot: Snapshot = DATASET.snapshot,
    home: HomeFolder = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Seal drives into a zone's store, register them with its border and freeze them as a snapshot.

    Give --fleet or --tracks FILE. The zone's border must run.
    """
    if fleet == (tracks is not None):
        raise typer.BadParameter("give one of --fleet and --tracks FILE")
    screen = Screen(machine=json)
    zone = zone_of(home, site)
    reference = DatasetRef(dataset=dataset, snapshot=snapshot)
    with screen.progress(f"{site}: reading, sealing", vehicles if fleet else None) as bar:
        source = fleet_tables(site, vehicles, minutes, seed) if fleet else file_tables(tracks or Path())
        report = run_ingest(zone, source, reference, bar.at)
    plain = asdict(report)
    screen.result(
        {"site": site, "dataset": dataset, "snapshot": snapshot, **plain},
        table(f"{dataset}/{snapshot} in {site}", ("what", "how much"), [(k, v) for k, v in plain.items()]),
    )


def zone_of(home: Path, site: str) -> SiteHome:
    """Return a zone's home.

    Raises:
        Refusal: `NOT_FOUND`, or `INPUT_INVALID` for a site that holds no data.
    """
    opened = Home.open(home)
    found = next((each for each in opened.zones if each.id == site), None)
    if found is None:
        zones = ", ".join(each.id for each in opened.zones)
        raise Refusal(Code.NOT_FOUND, f"There is no zone {site} in {home}.", remedy=f"Use one of: {zones}.")
    return found


def fleet_tables(site: str, vehicles: int, minutes: float, seed: int) -> Iterator[Any]:
    """Return the raw tables of a simulated fleet, one for each vehicle."""
    from isthmus.fleet import simulate

    return simulate(site, vehicles, minutes, seed)


def file_tables(path: Path) -> Iterator[Any]:
    """Return the raw tables in a file."""
    from isthmus.zone.sources import tables_of

    return tables_of(path)


def run_ingest(
    zone: SiteHome, tables: Iterable[Any], dataset: DatasetRef, on_table: Callable[[int], None] = lambda _: None
) -> "IngestReport":
    """Ingest raw tables into a zone and freeze them; its border must run.

    Args:
        zone: the zone's home.
        tables: raw tables (`contracts.raw_table`).
        dataset: the dataset, and the name of the snapshot.
        on_table: called with the number of tables read so far.
    """
    from isthmus.zone import app
    from isthmus.zone.settings import ZoneSettings

    settings = ZoneSettings.load(zone.folder)
    os.umask(0o077)
    return asyncio.run(app.run_ingest(settings, _counted(tables, on_table), dataset=dataset))


def _counted(tables: Iterable[Any], on_table: Callable[[int], None]) -> Iterator[Any]:
    for count, each in enumerate(tables, start=1):
        on_table(count)
        yield each
