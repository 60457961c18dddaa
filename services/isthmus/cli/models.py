"""`models`: the coordinator's registry. A model is named by its digest and comes with its lineage."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.homes import DEFAULT_HOME, Home
from isthmus.cli.options import As, HomeFolder, Json, Model
from isthmus.cli.screen import Screen, short, table
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.jobs import ModelList, ModelRecord

app = typer.Typer(help="Models and what they were made from.")


@app.command("list")
def list_(*, person: As = None, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """List all models, newest first."""
    opened = Home.open(home)

    async def ask() -> tuple[ModelRecord, ...]:
        from isthmus.cli.connections import jobs_of

        async with jobs_of(opened, person) as jobs:
            return await jobs.models()

    found = asyncio.run(ask())
    rows = [(m.digest, m.job, m.slot, m.size, ", ".join(m.lineage)) for m in found]
    Screen(machine=json).result(
        ModelList(items=found), table("Models", ("model", "job", "slot", "bytes", "holds data of"), rows)
    )


@app.command("show")
def show(model: Model, *, person: As = None, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """Show a model's lineage: the zones whose data it holds, its parent, the releases it was made from."""
    opened = Home.open(home)

    async def ask() -> ModelRecord:
        from isthmus.cli.connections import jobs_of

        async with jobs_of(opened, person) as jobs:
            return await jobs.model(model)

    m = asyncio.run(ask())
    rows = [
        ("job", m.job),
        ("slot", m.slot),
        ("bytes", m.size),
        ("holds data of", ", ".join(m.lineage) or "nobody"),
        ("parent", m.parent or "none"),
        *(("made from", crossing) for crossing in m.inputs),
    ]
    Screen(machine=json).result(m, table(m.digest, ("what", "value"), rows))


@app.command("get")
def get(
    model: Model,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write; MODEL.safetensors here if left out.")
    ] = None,
    person: As = None,
    home: HomeFolder = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Fetch a model as safetensors, checked against its digest."""
    opened = Home.open(home)
    target = out or Path(f"{short(model)}.safetensors")
    screen = Screen(machine=json)

    async def ask() -> bytes:
        from isthmus.cli.connections import jobs_of

        async with jobs_of(opened, person) as jobs:
            return await jobs.model_content(model)

    with screen.waiting("Fetching ..."):
        content = asyncio.run(ask())
    _write(target, content)
    screen.result(
        {"model": Digest.of(content), "file": str(target), "bytes": len(content)},
        f"{target}: {len(content)} bytes, {model}.",
    )


def _write(target: Path, content: bytes) -> None:
    try:
        with target.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise Refusal(Code.ALREADY_EXISTS, f"{target} is there already.", remedy="Name another with --out.") from None
    except OSError as error:
        raise Fault(Code.STORAGE_FAILED, f"{target} cannot be written.", why=error.strerror or "") from error
