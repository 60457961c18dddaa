"""`isthmus`: the command line, put together.

Rules:
1. A verb loads what it needs when it runs: `isthmus verify` works with the base install alone.
2. How a command ended is its exit code (`screen.Exit`). An error says what happened, why, what to do, and its code; it
   comes without a stack trace, unless ISTHMUS_TRACE is set.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

import typer

from isthmus.cli import (
    audit,
    ingest,
    jobs,
    ledger,
    models,
    provision,
    query,
    raw,
    ray,
    rehearse,
    review,
    serve,
    setup,
    storage,
    up,
    verify,
)
from isthmus.cli.screen import Exit, Screen, exit_of
from isthmus.contracts.errors import Code, Fault, IsthmusError

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="isthmus",
    help="Train and count where the data is: guarded borders between zones, with evidence.",
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(rehearse.demo)
app.command()(setup.setup)
app.command()(up.up)
app.command()(ingest.ingest)
app.add_typer(jobs.app, name="jobs")
app.command()(query.query)
app.add_typer(models.app, name="models")
app.add_typer(review.app, name="review")
app.add_typer(ledger.app, name="ledger")
app.add_typer(storage.app, name="storage")
app.command()(verify.verify)
app.add_typer(audit.app, name="audit")
app.command()(raw.raw)
app.add_typer(ray.app, name="ray")
app.command(hidden=True)(serve.serve)
app.command(hidden=True)(provision.provision)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    screen = Screen(machine="--json" in arguments)
    try:
        command = typer.main.get_command(app)
        outcome = command.main(list(arguments) or ["--help"], prog_name="isthmus", standalone_mode=False)
    except IsthmusError as error:
        screen.error(error)
        return exit_of(error)
    except typer.TyperException as error:
        screen.error(_usage(error))
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        screen.note("Interrupted.")
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the edge: whatever happens, a person gets a sentence
        if "ISTHMUS_TRACE" in os.environ:
            traceback.print_exc()
        screen.error(_unexpected(error))
        return Exit.FAILED
    return outcome if isinstance(outcome, int) else Exit.OK


def _usage(error: typer.TyperException) -> Fault:
    told = error.format_message() if isinstance(error, typer.BadParameter.__bases__[0]) else str(error)
    return Fault(Code.INPUT_INVALID, str(told), remedy="See --help.")


def _unexpected(error: Exception) -> Fault:
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("isthmus"):
        return Fault(
            Code.CONFIGURATION,
            "This command needs what a site installs.",
            why=f"The package {error.name} is not there.",
            remedy="Install `isthmus[site]`.",
        )
    return Fault(
        Code.COMPUTE_FAILED,
        "The command failed in a way that nobody foresaw.",
        why=f"{type(error).__name__}: {error}",
        remedy="Set ISTHMUS_TRACE=1 to see where, and report it.",
    )


if __name__ == "__main__":
    main()
