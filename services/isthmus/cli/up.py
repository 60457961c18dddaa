"""`up`: run every site of a home in the foreground."""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.homes import DEFAULT_HOME
from isthmus.cli.interruptions import Interrupted, ending_on_signals
from isthmus.cli.options import HomeFolder, Json, Sites
from isthmus.cli.screen import Exit, Screen, table
from isthmus.cli.supervisor import HEALTHY_WITHIN_S, ProcessView, State, Supervisor


def up(
    *,
    home: HomeFolder = DEFAULT_HOME,
    site: Sites = None,
    within: Annotated[
        float, typer.Option("--within", min=1.0, metavar="SECONDS", help="How long the start may take.")
    ] = HEALTHY_WITHIN_S,
    json: Json = False,
) -> None:
    """Run the border, and the zone or coordinator, of every site; until Ctrl-C or SIGTERM.

    Each is a process of its own with a log of its own. One that dies is started again.
    """
    screen = Screen(machine=json)
    try:
        with ending_on_signals(), Supervisor(changed=_teller(screen)) as supervisor:
            supervisor.start(home, site)
            with screen.waiting("Starting ..."):
                supervisor.wait_healthy(within)
            screen.result(
                {"processes": [_plain(view) for view in supervisor.processes]},
                table(
                    f"Running in {home}",
                    ("site", "process", "answers at", "pid", "log"),
                    (_row(view, home) for view in supervisor.processes),
                ),
                "Ctrl-C stops everything.",
            )
            threading.Event().wait()
    except Interrupted as interrupted:
        screen.note("All processes have stopped.")
        raise typer.Exit(Exit.INTERRUPTED if interrupted.number == signal.SIGINT else Exit.OK) from None


def _teller(screen: Screen) -> Callable[[ProcessView], None]:
    def tell(view: ProcessView) -> None:
        if view.restarts and view.state in {State.WAITING, State.RUNNING}:
            does = "died and is started again" if view.state is State.WAITING else "runs again"
            screen.note(f"{view.site}: the {view.part} process {does}.", style="yellow")
            if screen.machine:
                screen.result(_plain(view))

    return tell


def _plain(view: ProcessView) -> dict[str, object]:
    return {
        "site": view.site,
        "process": view.part.value,
        "state": view.state.value,
        "pid": view.pid,
        "address": view.address or None,
        "restarts": view.restarts,
        "log": str(view.log),
    }


def _row(view: ProcessView, home: Path) -> tuple[object, ...]:
    return view.site, view.part, view.address or "(asks only)", view.pid, view.log.relative_to(home)
