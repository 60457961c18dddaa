"""How a node of the cluster is started: arguments and environment of `ray start`. Pure; `isthmus ray` runs it.

Rules:
1. Every node takes the zone's token (`RAY_AUTH_MODE=token`): without it, whoever reaches a port runs code.
2. Nothing is told to Ray's makers; there is no dashboard, no autoscaler, and nobody carries workers' logs away.
3. Ports are one block, counted from the setting `ports`; sockets and logs are in the node's own folder, also its HOME.
4. Objects are not spilled to disk: a store that is full fails the run.
5. Shards compute at the niceness of the node, as the zone's own process would. Ray's own choice, 15, makes a round
   wait for whatever else runs there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.zone.cluster.connection import QUIET
from isthmus.zone.cluster.nodes import ACCELERATOR_LABEL
from isthmus.zone.cluster.settings import SPREAD

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.zone.cluster.settings import RaySettings

NODE_MANAGER, CLIENTS, MEETINGS, WORKERS = 1, 10, 11, 20
"""Offsets of the node manager's port, that for clients, the first where shards meet, and the first of the workers'."""
INLINE_BYTES = 4 << 20
"""Models and gradients up to this size travel in the calls themselves: half the time of a way through the store."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The node that is started.

    Attributes:
        address: its own address inside the zone.
        folder: where it keeps sockets and logs; a short path, since sockets' names have at most 107 bytes.
        cpus: processors it offers to actors; 0 for a head that only coordinates.
        gpus: GPUs it offers.
        accelerator: its accelerator class.
        shift: how much later its block of ports starts, where several nodes share a host.
    """

    address: str
    folder: Path
    cpus: int
    gpus: int
    accelerator: str
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its whole environment beyond the starter's own."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


def head_command(settings: RaySettings, machine: Machine) -> Command:
    """Return how the cluster's head is started on `machine`."""
    config = {
        "max_direct_call_object_size": INLINE_BYTES,
        "automatic_object_spilling_enabled": False,
        "worker_niceness": 0,
    }
    head = (
        "--head",
        f"--port={settings.ports}",
        f"--ray-client-server-port={settings.ports + CLIENTS}",
        "--include-dashboard=false",
        "--no-monitor",
        f"--system-config={json.dumps(config)}",
    )
    return _command(settings, machine, head)


def worker_command(settings: RaySettings, machine: Machine) -> Command:
    """Return how a worker that joins the cluster is started on `machine`."""
    return _command(settings, machine, (f"--address={settings.address}",))


def meeting_ports(node_manager: int) -> range:
    """Return the ports where shards on a node may meet, from that of its node manager.

    >>> meeting_ports(24_001)
    range(24011, 24020)
    """
    first = node_manager - NODE_MANAGER
    return range(first + MEETINGS, first + WORKERS)


def _command(settings: RaySettings, machine: Machine, part: tuple[str, ...]) -> Command:
    first = settings.ports + machine.shift
    named = ("node-manager", "object-manager", "dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent")
    ports = [f"--{name}-port={first + number}" for number, name in enumerate(named, start=NODE_MANAGER)]
    arguments = (
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        *part,
        "--block",
        f"--node-ip-address={machine.address}",
        f"--temp-dir={machine.folder / 'ray'}",
        f"--num-cpus={machine.cpus}",
        f"--num-gpus={machine.gpus}",
        f"--labels={ACCELERATOR_LABEL}={machine.accelerator}",
        f"--object-store-memory={settings.object_store_bytes}",
        *ports,
        f"--metrics-export-port={first + len(ports) + 1}",
        f"--min-worker-port={first + WORKERS}",
        f"--max-worker-port={first + SPREAD - 1}",
        "--include-log-monitor=false",
        "--disable-usage-stats",
    )
    environment = {
        **QUIET,
        "RAY_AUTH_TOKEN_PATH": str(settings.token),
        "HOME": str(machine.folder),
        "RAY_TMPDIR": str(machine.folder),
    }
    return Command(arguments, environment)
