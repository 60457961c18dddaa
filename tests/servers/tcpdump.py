"""tcpdump on a loopback of its own, beside whatever is tested: a witness that the product has no part in."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IP = shutil.which("ip") or "ip"


def what_is_missing() -> str:
    """Return what a capture lacks here; nothing where it can be made."""
    missing = [program for program in ("tcpdump", "ip") if shutil.which(program) is None]
    return f"not here: {', '.join(missing)}" if missing else "capturing needs root" if os.geteuid() else ""


@contextlib.contextmanager
def loopback() -> Iterator[list[str]]:
    """Yield the beginning of a command that runs on a loopback of its own, where nothing else passes."""
    name = f"isthmus-{uuid.uuid4().hex[:8]}"
    subprocess.run([IP, "netns", "add", name], check=True)
    try:
        subprocess.run([IP, "-n", name, "link", "set", "lo", "up"], check=True)
        yield [IP, "netns", "exec", name]
    finally:
        subprocess.run([IP, "netns", "del", name], check=True)


@contextlib.contextmanager
def tap(within: list[str], target: Path, told: Path) -> Iterator[None]:
    """Capture from before the body begins until it has ended."""
    command = [*within, "tcpdump", "-i", "lo", "-s", "0", "-B", "65536", "-Z", "root", "-w", str(target), "tcp"]
    with told.open("w") as log, subprocess.Popen(command, stderr=log) as capturing:
        try:
            while "listening on" not in told.read_text():
                assert capturing.poll() is None, told.read_text()
                time.sleep(0.05)
            yield
        finally:
            capturing.terminate()
            capturing.wait(20)
    assert "\n0 packets dropped by kernel" in told.read_text()


def only_port(everything: Path, port: int, target: Path) -> None:
    """Copy what passed to or from a port."""
    command = ["tcpdump", "-r", str(everything), "-w", str(target), "-Z", "root", "tcp", "port", str(port)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
