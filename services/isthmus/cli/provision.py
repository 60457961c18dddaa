"""`provision`: make a federation into the volumes of containers."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.options import Json
from isthmus.cli.screen import Screen


def provision(
    root: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="The folder under which each volume is mounted.", file_okay=False),
    ],
    *,
    json: Json = False,
) -> None:
    """Fill the volumes of containers with a new federation, each with what one service needs; once.

    Every secret is made here and goes into files that one user can read. What is there is never overwritten.
    """
    from isthmus.cli import compose_plan, compose_volumes, federation

    screen = Screen(machine=json)
    plan = federation.demo_plan()
    volumes = compose_plan.volumes(plan)
    made = compose_volumes.fill(root, plan, volumes)
    what = "made" if made else "stands already"
    screen.result(
        {"made": made, "volumes": [volume.name for volume in volumes]},
        f"The federation {what}: {len(volumes)} volumes.",
    )
