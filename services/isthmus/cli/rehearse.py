"""`demo`: the whole way, end to end, on this machine. What it does is `isthmus.cli.demo`."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.options import Json
from isthmus.cli.screen import Screen


def demo(
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FOLDER", file_okay=False, help="Where the report, bundle, roots and capture are written."
        ),
    ] = Path(),
    home: Annotated[
        Path | None,
        typer.Option(
            "--home", metavar="FOLDER", file_okay=False, help="Where the sites are made; a new one if left out."
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the sites running at the end, until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Run two zones and a coordinator here: train one model, try what must fail, check the ledgers.

    Writes demo-report.json, an evidence bundle, the roots.json that verifies it, and a capture of the wire.
    """
    from isthmus.cli.demo.play import run

    raise typer.Exit(run(home, out, keep=keep, screen=Screen(machine=json)))
