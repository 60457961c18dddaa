"""The engine, the images and one stack for the whole session: it plays the demo first.

These tests need Docker with Compose v2 and take minutes: `make test-docker` runs them. In CI a missing engine is a
failure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from e2e.compose.stack import CAPTURE_IMAGE, Capture, Stack, docker, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIRE = "/tmp/wire.pcap"  # noqa: S108 - in a container
IN_CI = os.environ.get("ISTHMUS_CI") == "1"


@pytest.fixture(scope="session")
def engine() -> None:
    """Hold that a container engine is at hand."""
    there = shutil.which("docker") and run("docker", "compose", "version", check=False).returncode == 0
    there = there and run("docker", "info", check=False).returncode == 0
    if not there:
        if IN_CI:
            pytest.fail("there is no container engine, and CI must have one")
        pytest.skip("there is no container engine with Compose v2")


@pytest.fixture(scope="session")
def images(engine: None) -> None:
    """Build the images; the engine's cache makes this quick where nothing changed."""
    builder = Stack("isthmus-images")
    builder.compose("build", "setup")
    builder.compose("build", "cn-buckets")
    builder.compose("build", "capture")


@pytest.fixture(scope="session")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a stack whose demo has ended, with a capture of all that passed between its borders until then."""
    made = Stack(f"isthmus-test-{os.getpid()}")
    try:
        made.compose("up", "--no-start")
        with tapped(made, tmp_path_factory.mktemp("wire") / "wire.pcap"):
            up = made.compose("up", "--detach", check=False)
            if up.returncode != 0:
                pytest.fail(f"{up.stderr}\n{made.compose('logs', '--tail', '30', check=False).stdout}")
            docker("wait", made.container("demo"))
        yield made
    finally:
        made.down()
        assert made.left() == []


@contextlib.contextmanager
def tapped(stack: Stack, target: Path) -> Iterator[None]:
    """Capture what passes over the crossing network's bridge, from before the first border starts."""
    network = docker("network", "inspect", "--format", "{{.Id}}", f"{stack.project}_crossing").stdout
    name, dump = f"{stack.project}-tap", ("-s", "0", "-B", "65536", "-Z", "root", "-w", WIRE)
    place = ("--network", "host", "--user", "0", "--name", name, "--entrypoint", "tcpdump")
    bridge = f"br-{network[:12]}"
    # The host speaks IPv6 on every bridge it makes, of itself: what comes from the bridge's own card is no container's.
    look = ("run", "--rm", "--network", "host", "--entrypoint", "cat", CAPTURE_IMAGE)
    card = docker(*look, f"/sys/class/net/{bridge}/address").stdout.strip()
    dump = (*dump, f"not (ip6 and ether src {card})")
    docker("run", "--detach", *place, CAPTURE_IMAGE, "-i", bridge, *dump)
    try:
        yield
        docker("kill", "--signal", "INT", name)
        docker("wait", name)
        docker("cp", f"{name}:{WIRE}", str(target))
        gates = {"hq": "hq-gate", "cn-shanghai": "cn-gate", "us-texas": "us-gate"}
        stack.capture = Capture(target, {site: stack.addresses(gate)["crossing"] for site, gate in gates.items()})
    finally:
        docker("rm", "--force", name, check=False)
