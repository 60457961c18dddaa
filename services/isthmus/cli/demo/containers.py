"""The stage in containers, as headquarters sees it.

`python -m isthmus.cli.demo.containers HOME NOTES HANDOVER CAPTURE OUT`

Headquarters holds the engineer's and the auditor's tokens and reaches its own site alone. What a zone's officers and
operator have for it, they hand over as files (`cli.demo.notes`). The capture is another service's: it is read here.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli import audit, captures, federation, interruptions
from isthmus.cli.demo import attacks, notes
from isthmus.cli.demo.play import play
from isthmus.cli.demo.stage import FLEETS, LOOKS_EVERY_S, Captured, results_in, until_quiet
from isthmus.cli.homes import Home
from isthmus.cli.interruptions import Interrupted, ending_on_signals
from isthmus.cli.ledger import gather
from isthmus.cli.screen import Exit, Screen, exit_of
from isthmus.contracts.errors import Code, Fault, IsthmusError
from isthmus.contracts.inside import Evidence
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isthmus.cli.demo.report import Attempt
    from isthmus.contracts.identifiers import JobId, SiteId
    from isthmus.zone.results import ZoneResults

HANDED_OVER_WITHIN_S = 600.0
MAX_EVIDENCE = 1 << 28
CROSSING, PARTIES = "crossing.pcap", "parties"
BY = (
    "Captured by tcpdump at headquarters' end of the crossing network, from before the zones' gates dialled: all that\n"
    "reached its gate or left it. An auditor captures at the network itself: docs/how-to/audit-the-wire.md."
)


class ContainerStage:
    """Sites that run in containers already.

    Args:
        home: the home of headquarters' people.
        board: where headquarters' notes stand.
        handover: a folder for each zone, with what its people hand over.
        capture: the folder of the capture, which still goes on, with whose address is whose.
    """

    def __init__(self, home: Path, board: Path, handover: Path, capture: Path) -> None:
        self._path = home
        self._board = board
        self._handover = handover
        self._capture = capture
        self._job: JobId | None = None

    @property
    def name(self) -> str:
        """Say where it plays."""
        return "containers"

    @property
    def roots(self) -> Path:
        """The auditor's roots."""
        return self._path / "roots.json"

    def start(self) -> None:
        """Do nothing: the engine started every site and waited for its health."""

    def headquarters(self) -> Home:
        """Return the home of headquarters' people."""
        return Home.open(self._path)

    def ingest(self, screen: Screen) -> None:
        """Wait until each zone's operator says what came in."""
        for zone in FLEETS:
            told = json.loads(self._await(self._handover / zone / notes.FIGURES / notes.INGESTED))
            screen.note(f"     {zone}: {_ingested(told)}")

    @contextlib.asynccontextmanager
    async def officers(self, job: JobId, screen: Screen) -> AsyncIterator[None]:
        """Tell the officers of every zone which job to attend to, and when it is over."""
        self._job = job
        screen.note("     the officers of each zone read what is held, and sign in their own containers", "cyan")
        notes.say(self._board, notes.Note.RUNS, job)
        yield
        notes.say(self._board, notes.Note.DONE, job)

    async def results(self, zone: SiteId, job: JobId) -> ZoneResults:
        """Wait for the figures that a zone's operator hands over."""
        return await results_in(self._handover / zone / notes.FIGURES, job)

    def evidence(self) -> tuple[Evidence, ...]:
        """Ask the own border, and read what each zone's auditor has handed over last."""
        own = interruptions.run(lambda: gather(self.headquarters().sites))
        others = (self._await(self._handover / zone / notes.EVIDENCE / f"{self._job}.json") for zone in FLEETS)
        return (*own, *(canonical.load(Evidence, part, limit=MAX_EVIDENCE) for part in others))

    def captured(self, target: Path) -> Captured:
        """Copy what was captured so far."""
        parties = tuple(audit.parsed(line) for line in self._await(self._capture / PARTIES).decode("ascii").split())
        until_quiet(self._capture / CROSSING)
        captures.copy(self._capture / CROSSING, target)
        return Captured(parties, BY)

    def attempts(self) -> tuple[Attempt, ...]:
        """Try everything on a federation that is made for it and thrown away: no real key is at hand here."""
        with tempfile.TemporaryDirectory(prefix="isthmus-rogue-") as folder:
            home = Path(folder) / "home"
            federation.create(home, federation.demo_plan())
            return attacks.all_of_them(home, bare=True)

    def ended(self) -> None:
        """Tell everybody that nothing more is needed of them."""
        if self._job is not None:
            notes.say(self._board, notes.Note.VERIFIED, self._job)

    def _await(self, path: Path) -> bytes:
        deadline = time.monotonic() + HANDED_OVER_WITHIN_S
        while not path.exists():
            if time.monotonic() > deadline:
                raise Fault(Code.COMPUTE_FAILED, f"Nobody has handed over {path} in {HANDED_OVER_WITHIN_S:.0f} s.")
            time.sleep(LOOKS_EVERY_S)
        return path.read_bytes()


def _ingested(told: dict[str, Any]) -> str:
    if "code" in told:
        return f"{told['what']} ({told['code']})"
    return (
        f"{told['vehicles']} vehicles, {told['drives']} drives, {told['raw_bytes']:,} raw bytes,"
        f" stored as {told['stored_bytes']:,} encrypted bytes"
    )


def main() -> int:
    """Play; return the exit code."""
    home, board, handover, capture, out = map(Path, sys.argv[1:6])
    screen = Screen(machine=False)
    stage = ContainerStage(home, board, handover, capture)
    try:
        with ending_on_signals():
            findings = play(stage, out, screen)
    except IsthmusError as error:
        screen.error(error)
        return exit_of(error)
    except Interrupted:
        return Exit.INTERRUPTED
    finally:
        stage.ended()
    return Exit.OK if findings.holds() else Exit.NOT_ACCEPTED


if __name__ == "__main__":
    sys.exit(main())
