"""A real Ray cluster for tests: one head, started by the shipped launcher, in a folder of its own.

It needs the package `ray`. Without it these tests are skipped; where ISTHMUS_CI is 1 they fail.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from isthmus.kit.tokens import write_secret
from isthmus.zone.settings import ZoneSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isthmus.zone.cluster.settings import RaySettings

START_S = 60.0
TOKEN = secrets.token_urlsafe(32)
"""One for all clusters of a test run: a process reads a token once, and talks to one cluster after the other."""
BLOCK = 64
"""Ports a cluster may take."""
VERB = "import sys; from isthmus.cli.main import run; sys.exit(run(sys.argv[1:]))"


def needed() -> None:
    """Skip the test where Ray is not installed, or fail it where servers are a must."""
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("ISTHMUS_CI") == "1":
            pytest.fail("Ray is not installed here")
        pytest.skip("Ray is not installed here")


def free_block() -> int:
    """Return the first of `BLOCK` ports of which none is taken, below those that the system hands out by itself.

    Where the search begins depends on the process: two runs on one machine do not choose the same ones.
    """
    blocks = range(20_000, 30_000, BLOCK)
    start = os.getpid() % len(blocks)
    for first in (*blocks[start:], *blocks[:start]):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + BLOCK):
                    listener = held.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return first
    raise RuntimeError("no block of ports is free")


@dataclass
class RayCluster:
    """One zone's folder, and the head of its cluster, which keeps its ports when it is started again.

    Attributes:
        site: the zone's folder, with settings and token.
        state: where Ray keeps sockets and logs: a short path, since a socket's name is at most 107 bytes long.
    """

    site: Path
    state: Path
    shards: int
    ports: int = field(default_factory=free_block)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.site.mkdir(parents=True, exist_ok=True)
        write_secret(self.site / "tokens/ray", TOKEN.encode())
        (self.site / "settings.toml").write_text(
            'site = "cn-shanghai"\n[zone]\nborder_url = "http://127.0.0.1:1"\n'
            f"[zone.ray]\nports = {self.ports}\nmost_shards = {self.shards}\nshard_bytes = 1\n",
            encoding="utf-8",
        )

    @property
    def settings(self) -> RaySettings:
        ray = ZoneSettings.load(self.site).ray
        assert ray is not None
        return ray

    def start(self, *options: str, cpus: int = 2) -> None:
        """Start the head and wait until it takes clients."""
        arguments = ("ray", "head", str(self.site), "--state", str(self.state), "--cpus", str(cpus), *options)
        with (self.site / "head.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", VERB, *arguments], stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while not self._takes_clients():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self.site / "head.log").read_text("utf-8", "replace"))
            time.sleep(0.1)

    def _takes_clients(self) -> bool:
        host, _, port = self.settings.client_address.rpartition(":")
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), timeout=1).close()
            return True
        return False

    def processes(self) -> list[psutil.Process]:
        """Return every process of the cluster: those that the head started, and what they started."""
        if self.process is None or not psutil.pid_exists(self.process.pid):
            return []
        head = psutil.Process(self.process.pid)
        return [head, *head.children(recursive=True)]

    def arguments(self) -> dict[int, str]:
        """Return the command line of every process, by its id."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found[process.pid] = " ".join(process.cmdline())
        return found

    def shard_processes(self) -> list[psutil.Process]:
        """Return the actors' processes."""
        return [psutil.Process(process) for process, line in self.arguments().items() if "Shard" in line]

    def memory_bytes(self) -> int:
        """Return the memory that is the cluster's alone: unique set sizes, so that shared pages do not count twice."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().uss
        return total

    def kill(self) -> None:
        """End every process of it at once, as a power cut would."""
        found = self.processes()
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(found, timeout=10)
        if self.process is not None:
            self.process.wait(10)
            self.process = None


@contextlib.contextmanager
def running(folder: Path, *, shards: int = 2, options: tuple[str, ...] = ()) -> Iterator[RayCluster]:
    """Run a cluster of one node, whose orders are spread over `shards` actors."""
    needed()
    state = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = RayCluster(folder / "cn-shanghai", state, shards)
    try:
        cluster.start(*options)
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(state, ignore_errors=True)
