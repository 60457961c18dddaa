"""A home whose zones' borders dial a tap in place of the coordinator's border: `cli.demo.tap`, started and ended here.

The zones' settings name the tap for as long as it runs, and what they named before when it has ended. Nobody is
asked: the link is TLS between pinned certificates, and a relay can do nothing to it but read ciphertext or cut it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from isthmus.cli import captures
from isthmus.cli.demo.stage import LOOKS_EVERY_S, Captured, until_quiet
from isthmus.cli.demo.tap import ENOUGH, HUB, WRITTEN
from isthmus.cli.homes import Home
from isthmus.contracts.errors import Code, Fault
from isthmus.proof.wire import Party

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.cli.homes import SiteHome

TAPE, LOG = "tap.pcap", "tap.log"
ANSWERS_WITHIN_S = 10.0
GRACE_S = 5.0
LAST_WORDS = 500
BY = (
    "Captured by a tap of this demo, which the zones' borders dial: it sees what passes it, and no other way. `make\n"
    "compose-demo` captures the coordinator's end of a network; docs/how-to/audit-the-wire.md says how an auditor does."
)


class Tap:
    """The tap of a home. Use it as a context manager around whatever runs the sites.

    Attributes:
        process: the relay, None before it is started.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._settings: dict[Path, str] = {}
        self._tape: Path | None = None
        self._parties: tuple[Party, ...] = ()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and let the zones' settings name the coordinator's border again."""
        if self._channel is not None:
            self._channel.close()
        if self.process is not None:
            try:
                self.process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        with contextlib.suppress(OSError):  # the home has gone, or is gone as far as this is concerned
            for path, text in self._settings.items():
                path.write_text(text, "utf-8")
        if self._tape is not None:
            self._tape.unlink(missing_ok=True)

    def start(self, path: Path) -> None:
        """Start it for a home whose sites do not run yet. What dials it before it is ready, waits.

        Raises:
            Fault: `CONFIGURATION`: the home has no coordinator that listens, or a zone that does not dial it.
        """
        home = Home.open(path)
        hub = home.coordinator
        self._tape = path / TAPE
        addresses = {zone: f"192.0.2.{place}" for place, zone in enumerate(home.zones, start=2)}
        self._parties = (
            Party(HUB.address, HUB.port, (hub.id,)),
            *(Party(address, 0, (zone.id,)) for zone, address in addresses.items()),
        )
        with contextlib.ExitStack() as stack:
            listeners = {zone: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for zone in addresses}
            for zone, listener in listeners.items():
                self._name(zone, hub, listener.getsockname()[1])
            given = [f"{addresses[zone]}={listener.fileno()}" for zone, listener in listeners.items()]
            ours, theirs = socket.socketpair()
            self._channel = ours
            stack.enter_context(theirs)
            log = stack.enter_context((path / LOG).open("wb"))
            self.process = subprocess.Popen(  # noqa: S603 - starts this very program, with no argument from outside
                [*(sys.executable, "-m", "isthmus.cli.demo.tap", str(self._tape), str(hub.outside)), *given],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                pass_fds=[listener.fileno() for listener in listeners.values()],
                env=dict(os.environ),
                process_group=0,
            )

    def captured(self, target: Path) -> Captured:
        """Copy what has passed until now, in a quiet moment.

        Raises:
            Fault: `COMPUTE_FAILED`: the tap has died. `STORAGE_FAILED`: the capture cannot be read or written.
        """
        if self._tape is None or self.process is None or self.process.poll() is not None:
            raise self._died()
        try:
            until_quiet(self._tape)
        except FileNotFoundError:
            raise self._died() from None
        captures.copy(self._tape, target)
        return Captured(self._parties, BY)

    async def watched(self) -> None:
        """Watch the tap until cancelled: where it has died, no border reaches another, and no job comes to its end.

        Raises:
            Fault: `COMPUTE_FAILED`: the tap has died.
        """
        while True:
            if self.process is None or self.process.poll() is not None:
                raise self._died()
            await asyncio.sleep(LOOKS_EVERY_S)

    def enough(self) -> None:
        """End the tape. What passes from now on is relayed and not written down.

        Raises:
            Fault: `COMPUTE_FAILED`: the tap has died.
        """
        if self._channel is None:
            raise self._died()
        try:
            self._channel.settimeout(ANSWERS_WITHIN_S)
            self._channel.sendall(ENOUGH)
            ended = self._channel.recv(len(WRITTEN)) == WRITTEN
        except OSError:
            ended = False
        if not ended:
            raise self._died()

    def _died(self) -> Fault:
        log = self._tape.with_name(LOG) if self._tape is not None else None
        why = log.read_text("utf-8", "replace")[-LAST_WORDS:] if log is not None and log.exists() else ""
        return Fault(Code.COMPUTE_FAILED, "The tap between the borders has died.", why=why)

    def _name(self, zone: SiteHome, hub: SiteHome, port: int) -> None:
        """Let a zone's settings name the tap."""
        path = zone.folder / "settings.toml"
        text = path.read_text("utf-8")
        tapped = text.replace(f'"https://{hub.outside}"', f'"https://127.0.0.1:{port}"')
        if tapped == text:
            raise Fault(Code.CONFIGURATION, f"{zone.id} does not dial {hub.id} at {hub.outside}.")
        self._settings[path] = text
        path.write_text(tapped, "utf-8")
