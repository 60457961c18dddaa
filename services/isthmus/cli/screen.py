"""What the command line says, to people and to machines.

Rules: with `--json` standard output holds JSON and nothing else, errors too; without it, results go to standard output
and all that only tells how things go to standard error. No text is taken as markup and no control character reaches
the terminal: what a bundle or a service says cannot move the cursor.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from enum import IntEnum, unique
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.wire import Wire
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from isthmus.contracts.errors import IsthmusError


@unique
class Exit(IntEnum):
    """How a command ended; described in `docs/reference/cli.md`."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    FAILED = 3
    NOT_ACCEPTED = 4
    INTERRUPTED = 130


MACHINE_CODES = frozenset(
    {
        Code.STORAGE_FAILED,
        Code.LEDGER_UNAVAILABLE,
        Code.PEER_UNREACHABLE,
        Code.COMPUTE_FAILED,
        Code.CONFIGURATION,
    }
)
"""Codes by which a machine, not a rule, said no."""


COPIED = frozenset({"id", "release", "crossing", "code", "order", "job", "model", "root", "site", "zone"})
"""Columns of ids and codes, which people copy."""
WIDEST = 10_000


def exit_for(code: Code | None) -> Exit:
    """Return how a command ends whose work ended with `code`."""
    if code is None:
        return Exit.OK
    return Exit.FAILED if code in MACHINE_CODES else Exit.REFUSED


def exit_of(error: IsthmusError) -> Exit:
    """Return how a command ends that `error` stopped."""
    return Exit.REFUSED if isinstance(error, Refusal) else Exit.FAILED


def printable(text: object) -> str:
    """Return `text` with every control character replaced.

    >>> printable("a" + chr(27) + "[2Jb")
    'a?[2Jb'
    """
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(text))


def short(identifier: str) -> str:
    """Return the first digits of a digest, enough to tell it from others on a screen.

    >>> short("sha256:0123456789abcdef")
    '0123456789ab'
    """
    return identifier.removeprefix("sha256:")[:12]


class Screen:
    """Where a command writes.

    Args:
        machine: write JSON on standard output and nothing for people.
    """

    def __init__(self, *, machine: bool) -> None:
        self.machine = machine
        self._out = Console(highlight=False, markup=False, emoji=False, quiet=machine)
        self._side = Console(stderr=True, highlight=False, markup=False, emoji=False, quiet=machine)

    def result(self, value: Wire | object, *human: RenderableType) -> None:
        """Write a result: `value` as one line of JSON for machines, `human` for people.

        Args:
            value: a wire type, or what `json` can write.
            human: renderables, or text.
        """
        if self.machine:
            text = canonical.dump(value).decode() if isinstance(value, Wire) else json.dumps(value, sort_keys=True)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        for part in human:
            if isinstance(part, str):
                self._out.print(Text(printable(part)), soft_wrap=True)
            else:
                self._out.print(_whole(part, self._out), crop=False)

    def note(self, text: str, style: str = "") -> None:
        """Tell people how things go."""
        self._side.print(Text(printable(text), style=style), soft_wrap=True)

    def error(self, error: IsthmusError) -> None:
        """Write what happened, why, and what to do, with the code."""
        told = {"code": error.code.value, "what": error.what, "why": error.why, "remedy": error.remedy}
        if self.machine:
            self.result(told)
            return
        head = Text.assemble((f"{error.code.value}: ", "bold red"), printable(error.what))
        self._side.print(head, soft_wrap=True)
        for label, part in (("why: ", error.why), ("do:  ", error.remedy)):
            if part:
                self._side.print(Text.assemble((f"  {label}", "dim"), printable(part)), soft_wrap=True)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show that something takes a while."""
        if self.machine or not self._side.is_terminal:
            self.note(text)
            yield
        else:
            with self._side.status(Text(printable(text))):
                yield

    @contextmanager
    def progress(self, text: str, total: int | None) -> Iterator[Bar]:
        """Show a bar that goes to `total`, or turns where that is not known."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self._side, transient=True) as progress:
            yield Bar(progress, text, total)


class Bar:
    """A progress bar."""

    def __init__(self, progress: Progress, text: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(printable(text), total=total)

    def at(self, done: int, text: str | None = None) -> None:
        """Move to `done`, with new text where there is one."""
        self._progress.update(self._task, completed=done)
        if text is not None:
            self._progress.update(self._task, description=printable(text))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table of plain text; a cell that is a `Text` keeps its style.

    The first column and those that are copied from (`COPIED`) are not broken; others are, where space is short.
    """
    made = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        made.add_column(Text(name), overflow="fold", no_wrap=place == 0 or name in COPIED)
    for row in rows:
        cells = [cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row]
        for column, cell in zip(made.columns, cells, strict=True):
            if column.no_wrap:
                column.min_width = max(column.min_width or 0, cell.cell_len)
        made.add_row(*cells)
    return made


def _whole(part: RenderableType, console: Console) -> RenderableType:
    """Let a table be wider than the screen where its words would not stay whole: a cut id is worth nothing."""
    if isinstance(part, Table):
        needs = Measurement.get(console, console.options.update(width=WIDEST), part).minimum
        part.width = needs if needs > console.width else None
    return part
