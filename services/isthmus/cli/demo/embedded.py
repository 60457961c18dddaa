"""The stage on this machine: a home with every site, run by a supervisor. Whatever it starts, it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.cli import federation, interruptions
from isthmus.cli.demo import attacks
from isthmus.cli.demo.stage import FLEETS, MINUTES, SEED, results_in
from isthmus.cli.demo.tapped import Tap
from isthmus.cli.homes import Home
from isthmus.cli.interruptions import Interrupted
from isthmus.cli.ledger import gather
from isthmus.cli.supervisor import Supervisor
from isthmus.contracts.errors import Code, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from isthmus.cli.demo.report import Attempt
    from isthmus.cli.demo.stage import Captured
    from isthmus.cli.screen import Screen
    from isthmus.contracts.identifiers import JobId, SiteId
    from isthmus.contracts.inside import Evidence
    from isthmus.zone.results import ZoneResults


@contextlib.contextmanager
def embedded(home: Path | None) -> Iterator[EmbeddedStage]:
    """Yield a stage on this machine.

    Args:
        home: where to make the sites; a throwaway folder where None, which goes away.
    """
    with contextlib.ExitStack() as stack:
        if home is None:
            folder = tempfile.TemporaryDirectory(prefix="isthmus-demo-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(folder)) / "home"
        tap = stack.enter_context(Tap())
        yield EmbeddedStage(home, stack.enter_context(Supervisor()), tap)


class EmbeddedStage:
    """A federation in one home. Every process is a real one: borders, zones, coordinator, ingest, officers."""

    def __init__(self, home: Path, supervisor: Supervisor, tap: Tap) -> None:
        self._path = home
        self._supervisor = supervisor
        self._tap = tap

    @property
    def name(self) -> str:
        """The home's folder."""
        return str(self._path)

    @property
    def roots(self) -> Path:
        """The roots that set-up wrote."""
        return self._path / "roots.json"

    def start(self) -> None:
        """Make the sites, put the tap between their borders, and start them."""
        federation.create(self._path, federation.demo_plan())
        self._tap.start(self._path)
        self._supervisor.start(self._path)
        self._supervisor.wait_healthy()

    def headquarters(self) -> Home:
        """Return the home, which is everybody's here."""
        return Home.open(self._path)

    def ingest(self, screen: Screen) -> None:
        """Let both zones ingest their fleets at the same time, each in a process with the token of ingest alone."""
        running = {
            zone: subprocess.Popen(  # noqa: S603 - starts this very program, with no argument from outside
                [
                    *(sys.executable, "-m", "isthmus.cli.main", "ingest", zone, "--fleet", "--json"),
                    *("--vehicles", str(vehicles), "--minutes", str(MINUTES), "--seed", str(SEED)),
                    *("--home", str(self._path)),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for zone, vehicles in FLEETS.items()
        }
        try:
            for zone, process in running.items():
                told, _ = process.communicate()
                said = json.loads(told or b"{}")
                if process.returncode != 0:
                    raise Fault(
                        Code.COMPUTE_FAILED, f"Ingest failed in {zone}.", why=f"{said.get('code')}: {said.get('what')}"
                    )
                screen.note(
                    f"     {zone}: {said['vehicles']} vehicles, {said['drives']} drives, {said['raw_bytes']:,} raw"
                    f" bytes, stored as {said['stored_bytes']:,} encrypted bytes"
                )
        finally:
            for process in running.values():
                process.kill()
                process.wait()

    @contextlib.asynccontextmanager
    async def officers(self, job: JobId, screen: Screen) -> AsyncIterator[None]:
        """Run the officers' process, and show what it signs."""
        command = (sys.executable, "-m", "isthmus.cli.demo.officers", str(self._path), job)
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)

        async def show() -> None:
            if process.stdout is not None:
                async for line in process.stdout:
                    screen.note(f"     {line.decode().rstrip()}", "cyan")

        showing = asyncio.create_task(show())
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._tap.watched())
                yield
                watching.cancel()
        except BaseExceptionGroup as raised:  # a group says nothing to whoever reads the screen
            raise raised.exceptions[0] from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                process.terminate()
            await process.wait()
            await showing

    async def results(self, zone: SiteId, job: JobId) -> ZoneResults:
        """Wait for a zone's results in its own folder."""
        return await results_in(self._path / zone / "results", job)

    def evidence(self) -> tuple[Evidence, ...]:
        """Ask every border."""
        return interruptions.run(lambda: gather(Home.open(self._path).sites))

    def captured(self, target: Path) -> Captured:
        """Copy the tap's tape."""
        return self._tap.captured(target)

    def attempts(self) -> tuple[Attempt, ...]:
        """Try everything on a copy of this home."""
        return attacks.all_of_them(self._path)

    def keep(self, screen: Screen) -> None:
        """Leave everything running until Ctrl-C, which is how this is meant to end."""
        self._tap.enough()  # a tape that nobody reads would fill the disk
        home = Home.open(self._path)
        api = f"http://{home.coordinator.api}"
        screen.note(f"The jobs API answers on {api}; {api}/openapi.json describes it.")
        screen.note(f"Its token, for the engineer: {home.token_file(home.engineer())}")
        screen.note("Ctrl-C stops everything.")
        with contextlib.suppress(Interrupted):
            while True:
                time.sleep(1)
