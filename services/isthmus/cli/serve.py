"""One process of one site: what the supervisor, or a container, starts.

Rules: it ends on SIGTERM and SIGINT, and when its supervisor is gone (see `cli.supervisor`, rule 3); within `GRACE_S`
whatever its threads still do, which is safe because every store survives a kill. Errors are one JSON line in its log.
"""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.cli.screen import Exit, exit_of
from isthmus.cli.supervisor import READY, Part
from isthmus.contracts.errors import IsthmusError

GRACE_S = 5.0
CHANNEL = 0
PRIVATE = 0o077
"""What a site keeps is for its own user alone, wherever its folder stands."""

Run = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def serve(
    part: Annotated[Part, typer.Argument(help="What to run.")],
    folder: Annotated[Path, typer.Argument(help="The site's folder.", file_okay=False, exists=True)],
    *,
    supervised: Annotated[bool, typer.Option("--supervised", help="End when standard input closes.")] = False,
) -> None:
    """Run one process of one site in the foreground."""
    import structlog

    from isthmus.kit import journal, looping

    os.umask(PRIVATE)
    journal.configure(part.value)
    log = structlog.get_logger(__name__)
    try:
        looping.run(_serve(_runner(part, folder), supervised=supervised))
    except Exception as raised:
        error = _innermost(raised)
        if not isinstance(error, IsthmusError):
            log.exception("failed", error=type(error).__name__)
            raise typer.Exit(Exit.FAILED) from None
        told = {"code": error.code.value, "what": error.what, "why": error.why, "remedy": error.remedy}
        log.error("stopped", **told)  # noqa: TRY400 - a known error needs no trace
        raise typer.Exit(exit_of(error)) from None


def _runner(part: Part, folder: Path) -> Run:
    """Load what a part needs, and its settings, and nothing of the other parts."""
    match part:
        case Part.BORDER:
            from isthmus.border import app as border
            from isthmus.border.settings import BorderSettings

            of_border = BorderSettings.load(folder)
            return lambda stop: border.run(of_border, stop)
        case Part.KEEPER:
            from isthmus.border import keeper_app as keeper
            from isthmus.border.settings import BorderSettings

            of_keeper = BorderSettings.load(folder)
            return lambda stop: keeper.run(of_keeper, stop)
        case Part.GATE:
            from isthmus.border import gate_app as gate
            from isthmus.border.settings import BorderSettings

            of_gate = BorderSettings.load(folder)
            return lambda stop: gate.run(of_gate, stop)
        case Part.ZONE:
            from isthmus.zone import app as zone
            from isthmus.zone.settings import ZoneSettings

            of_zone = ZoneSettings.load(folder)
            return lambda stop: zone.run(of_zone, stop)
        case Part.COORDINATOR:
            from isthmus.coordinator import app as coordinator
            from isthmus.coordinator.settings import CoordinatorSettings

            of_coordinator = CoordinatorSettings.load(folder)
            return lambda stop: coordinator.run(of_coordinator, stop)


async def _serve(run: Run, *, supervised: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        deadline = threading.Timer(GRACE_S, os._exit, (Exit.OK,))
        deadline.daemon = True
        deadline.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if supervised:
        os.write(CHANNEL, READY)
        threading.Thread(target=_watch, args=(loop, end), name="supervisor", daemon=True).start()
    await run(stop)


def _watch(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    """Wait until the supervisor hangs up or is gone, then end."""
    try:
        while os.read(CHANNEL, 64):
            pass
    except OSError:
        pass  # a reset says the same as an end
    try:
        loop.call_soon_threadsafe(end)
    except RuntimeError:
        return  # the loop has ended already


def _innermost(error: Exception) -> Exception:
    """Return the first error inside groups of errors."""
    return _innermost(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
