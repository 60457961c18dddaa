"""A gate's way to the crossing network made slow, late and lossy, in both directions.

The kernel's own `tc netem` does it where the kernel has it; many kernels of small virtual machines have not. There
`line.py` carries the frames instead, between the gate's port and the bridge. Both are told the same three figures.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.compose.stack import CAPTURE_IMAGE, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.compose.stack import Stack

PROGRAM = (Path(__file__).parent / "line.py").read_text("utf-8")
RIGHTS = ("--user", "0", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW")
UNKNOWN_QDISC = "qdisc kind is unknown"


@dataclass(frozen=True)
class Line:
    """How a line is, each way: how late, which share of its frames is lost, and how many bits a second pass."""

    delay_s: float
    loss: float
    bits_per_s: int

    @property
    def netem(self) -> tuple[str, ...]:
        """Return this line in the words of `tc qdisc`."""
        delay, loss = f"{1000 * self.delay_s:.0f}ms", f"{100 * self.loss:g}%"
        return ("netem", "delay", delay, "loss", loss, "rate", f"{self.bits_per_s}bit", "limit", "1000")


@dataclass(frozen=True)
class Port:
    """A gate's card in the crossing network, `inner`, and its other end at the bridge."""

    container: str
    inner: str
    outer: str
    bridge: str


def on_host(*command: str, check: bool = True) -> str:
    """Run a command in the network of the engine's host."""
    return _in_network("host", *command, check=check)


def has_netem() -> bool:
    """Tell whether the engine's kernel can make a line rough by itself."""
    trial = "ip link add trial type veth peer name trial-end && tc qdisc add dev trial root netem delay 1ms"
    # In a network of its own, which ends with it.
    tried = docker("run", "--rm", "--network", "none", *RIGHTS, "--entrypoint", "sh", CAPTURE_IMAGE, "-c", trial,
                   check=False)  # fmt: skip
    assert tried.returncode == 0 or UNKNOWN_QDISC in tried.stderr, tried.stderr
    return tried.returncode == 0


@contextlib.contextmanager
def over(stack: Stack, service: str, line: Line, *, netem: bool) -> Iterator[None]:
    """Put a line between a gate and the crossing network."""
    port = _port(stack, service)
    with _by_kernel(port, line) if netem else _by_program(port, line, f"{stack.project}-line-{service}"):
        yield


def _port(stack: Stack, service: str) -> Port:
    container, address = stack.container(service), stack.addresses(service)["crossing"]
    cards = json.loads(_in_network(f"container:{container}", "ip", "-json", "address"))
    card = next(each for each in cards if any(one.get("local") == address for one in each["addr_info"]))
    outer = next(each for each in json.loads(on_host("ip", "-json", "link")) if each["ifindex"] == card["link_index"])
    return Port(container, card["ifname"], outer["ifname"], outer["master"])


@contextlib.contextmanager
def _by_kernel(port: Port, line: Line) -> Iterator[None]:
    """Have both ends of the port send late, lossy and slowly."""
    ends = (("host", port.outer), (f"container:{port.container}", port.inner))
    try:
        for network, card in ends:
            _in_network(network, "tc", "qdisc", "add", "dev", card, "root", *line.netem)
        yield
    finally:
        for network, card in ends:
            _in_network(network, "tc", "qdisc", "delete", "dev", card, "root", check=False)


@contextlib.contextmanager
def _by_program(port: Port, line: Line, name: str) -> Iterator[None]:
    """Take the port from the bridge, and carry frames between the two."""
    number = "".join(re.findall(r"[0-9a-f]", port.outer))[-8:]
    here, there = f"line{number}a", f"line{number}b"
    on_host("ip", "link", "add", here, "type", "veth", "peer", "name", there)
    try:
        for arguments in (
            ("set", here, "up"),
            ("set", there, "up"),
            ("set", port.outer, "nomaster"),
            ("set", here, "master", port.bridge),
        ):
            on_host("ip", "link", *arguments)
        entry = ("--entrypoint", "python3", CAPTURE_IMAGE, "-c", PROGRAM, port.outer, there)
        figures = map(str, (line.delay_s, line.loss, line.bits_per_s))
        docker("run", "--detach", "--name", name, "--network", "host", *RIGHTS, *entry, *figures)
        yield
    finally:
        docker("rm", "--force", name, check=False)
        on_host("ip", "link", "set", port.outer, "master", port.bridge, check=False)
        on_host("ip", "link", "delete", here, check=False)


def _in_network(network: str, *command: str, check: bool = True) -> str:
    place = ("--network", network, *RIGHTS, "--entrypoint", command[0], CAPTURE_IMAGE)
    return docker("run", "--rm", *place, *command[1:], check=check).stdout
