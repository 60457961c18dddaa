"""Running every process of every site under a home, and leaving none behind.

Rules:
1. Each process is of its own group, with its own log, started by a command line without a secret.
2. A process that dies is started again, after a wait that doubles up to `LONGEST_WAIT_S`.
3. Each child's standard input is one end of a socket pair. It says there that it is ready; when the other end closes,
   the child stops. So the children end with the supervisor even when that is killed: no other process holds the end.
4. Stopping asks first (what stands behind a border, then the borders), and kills what does not go in time.
5. One supervisor for a home: a lock on a file in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import IO, TYPE_CHECKING, Self

from isthmus.cli.homes import Home
from isthmus.contracts.errors import Code, Fault, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from isthmus.cli.homes import SiteHome
    from isthmus.contracts.identifiers import SiteId

READY = b"ready\n"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 10.0
SETTLED_S = 10.0
"""A process that lived this long starts its waits anew when it dies."""
GRACE_S = 8.0
HEALTHY_WITHIN_S = 180.0
HEAD_START_S = 20.0
LOOK_AGAIN_S = 0.05
TRIES = 3
"""A process that died so often before it was ever healthy will not become so by itself."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""For glibc's allocator: keep the memory of large payloads instead of giving it back and faulting it in again, which
costs more than encrypting what is in it. A process keeps at most 256 MiB in this way. Other allocators ignore it."""
LARGEST_LOG = 16 << 20
LAST_WORDS = 2048


@unique
class Part(StrEnum):
    """What a process does for its site. A border is one process, or a gate and a keeper."""

    BORDER = "border"
    GATE = "gate"
    KEEPER = "keeper"
    ZONE = "zone"
    COORDINATOR = "coordinator"


@unique
class State(StrEnum):
    """Where a process stands."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessView:
    """A process as it stands now. `address` is where it answers, empty for one that only asks."""

    site: SiteId
    part: Part
    state: State
    pid: int | None
    address: str
    restarts: int
    log: Path


class Supervisor:
    """Runs the processes of a home. Use it as a context manager, so that whatever happens nothing stays behind.

    Args:
        environment: variables for the children, on top of this process's own.
        changed: called, from another thread, when a process starts, is ready, dies.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, changed: Callable[[ProcessView], None] = lambda _: None
    ) -> None:
        self._environment = dict(environment or {})
        self._changed = changed
        self._supervised: tuple[_Supervised, ...] = ()
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self.stop()

    @property
    def processes(self) -> tuple[ProcessView, ...]:
        """All processes, borders first."""
        return tuple(each.view() for each in self._supervised)

    def start(self, home: Path, sites: Iterable[SiteId] | None = None) -> None:
        """Start the processes of every site under `home`, or of `sites` alone. It does not wait for them.

        Raises:
            Fault: `CONFIGURATION`: there is no site there.
            Refusal: `STATE_CONFLICT`: another supervisor runs this home.
        """
        opened = Home.open(home)
        chosen = opened.sites if sites is None else tuple(opened.site(site) for site in sites)
        self._lock = _lock(home / "up.lock")
        borders = [_Supervised(site, Part.BORDER, self._environment, self._changed) for site in chosen]
        others = [_Supervised(site, Part(site.part), self._environment, self._changed) for site in chosen]
        self._supervised = (*borders, *others)
        for each in self._supervised:
            each.start()

    def wait_healthy(self, within_s: float = HEALTHY_WITHIN_S) -> None:
        """Wait until every process answers, or says that it is ready where it does not listen.

        Raises:
            Fault: `COMPUTE_FAILED`: one died again and again, or took too long; with its log's last words.
        """
        deadline = time.monotonic() + within_s
        for each in self._supervised:
            while not each.healthy():
                if each.restarts >= TRIES or time.monotonic() > deadline:
                    raise each.does_not_start()
                time.sleep(LOOK_AGAIN_S)

    def stop(self) -> None:
        """Stop everything and wait for its end. It can be called twice."""
        for kept in (False, True):
            group = [each for each in self._supervised if (each.part is Part.BORDER) is kept]
            for each in group:
                each.ask_to_stop()
            deadline = time.monotonic() + GRACE_S
            for each in group:
                each.end(max(0.0, deadline - time.monotonic()))
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class _Supervised:
    """One process: a thread starts it, waits for its end, starts it again."""

    def __init__(
        self, site: SiteHome, part: Part, environment: Mapping[str, str], changed: Callable[[ProcessView], None]
    ) -> None:
        self.part = part
        self.restarts = 0
        self._site = site
        self._environment = environment
        self._changed = changed
        self._log = site.folder / "log" / f"{part}.log"
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._state = State.STARTING
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name=f"{site.id} {part}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def view(self) -> ProcessView:
        alive = self._state in {State.STARTING, State.RUNNING} and self._process is not None
        return ProcessView(
            site=self._site.id,
            part=self.part,
            state=self._state,
            pid=self._process.pid if alive and self._process else None,
            address=self._address() or "",
            restarts=self.restarts,
            log=self._log,
        )

    def healthy(self) -> bool:
        address = self._address()
        return self._state is State.RUNNING and (address is None or _answers(address))

    def does_not_start(self) -> Fault:
        return Fault(
            Code.COMPUTE_FAILED,
            f"The {self.part} process of {self._site.id} does not start.",
            why=_last_words(self._log),
            remedy=f"See its log, {self._log}.",
        )

    def ask_to_stop(self) -> None:
        """Close the channel and send SIGTERM: whichever the child notices first."""
        with self._guard:
            self._stopping.set()
            self._hang_up()
            self._signal(signal.SIGTERM)

    def end(self, within_s: float) -> None:
        """Wait for the end, then make it."""
        if self._thread.ident is None:
            return
        self._thread.join(within_s)
        if self._thread.is_alive():
            self._signal(signal.SIGKILL)
            self._thread.join()

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        self._await_border()
        while True:
            began = time.monotonic()
            process = self._spawn()
            if process is None:
                break
            process.wait()
            if self._stopping.is_set():
                break
            self.restarts += 1
            self._to(State.WAITING)
            wait_s = FIRST_WAIT_S if time.monotonic() - began > SETTLED_S else min(2 * wait_s, LONGEST_WAIT_S)
            if self._stopping.wait(wait_s):
                break
        with self._guard:  # whoever asks to stop hangs up, too
            self._hang_up()
        self._to(State.STOPPED)

    def _await_border(self) -> None:
        """Give the own border a head start: what stands behind it has nothing to do before."""
        deadline = time.monotonic() + HEAD_START_S
        while self.part is not Part.BORDER and time.monotonic() < deadline and not _answers(self._site.inside):
            if self._stopping.wait(LOOK_AGAIN_S):
                return

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """Start the process and wait until it is ready or dead; None where it should stop."""
        command = [sys.executable, "-m", "isthmus.cli.main", "serve", self.part, str(self._site.folder.resolve())]
        with self._guard:
            if self._stopping.is_set():
                return None
            self._hang_up()
            ours, theirs = socket.socketpair()
            with theirs, _open_log(self._log) as log:
                self._process = subprocess.Popen(  # noqa: S603 - starts this very program, with no argument from outside
                    [*command, "--supervised"],
                    stdin=theirs.fileno(),
                    stdout=log,
                    stderr=log,
                    env={**ALLOCATOR, **os.environ, **self._environment},
                    process_group=0,
                )
            self._channel = ours
            process = self._process
        self._to(State.STARTING)
        with contextlib.suppress(OSError):  # the channel was closed to stop the child
            if ours.recv(len(READY)) == READY:
                self._to(State.RUNNING)
        return process

    def _signal(self, number: int) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(OSError):  # the child has gone already
                channel.shutdown(socket.SHUT_RDWR)
            channel.close()

    def _to(self, state: State) -> None:
        self._state = state
        self._changed(self.view())

    def _address(self) -> str | None:
        match self.part:
            case Part.BORDER | Part.GATE:
                return self._site.inside
            case Part.COORDINATOR:
                return self._site.api
            case Part.ZONE | Part.KEEPER:
                return None


def _answers(address: str) -> bool:
    """Tell whether a service answers. No token is shown: to be told that one is missing is answer enough."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("GET", "/v1/health")
        return connection.getresponse().status in {http.HTTPStatus.OK, http.HTTPStatus.UNAUTHORIZED}
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _open_log(path: Path) -> IO[bytes]:
    """Open a log to append to; a large one is put aside first."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LARGEST_LOG:
            path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _last_words(path: Path) -> str:
    """Return the last line of a log, empty where there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - LAST_WORDS))
            lines = log.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _lock(path: Path) -> IO[bytes]:
    lock = path.open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Refusal(
            Code.STATE_CONFLICT,
            f"Another `isthmus up` runs the sites in {path.parent}.",
            remedy="Stop it first, or use another home.",
        ) from None
    return lock
