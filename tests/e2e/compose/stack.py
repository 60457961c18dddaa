"""One Compose project of the tests: started once, spoken to by the `docker` command, taken down whole."""

from __future__ import annotations

import graphlib
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
FILE = ROOT / "deploy" / "compose.yaml"
BORDER_IMAGE = os.environ.get("ISTHMUS_BORDER_IMAGE", "isthmus-border:0.1.0")
CAPTURE_IMAGE = os.environ.get("ISTHMUS_CAPTURE_IMAGE", "isthmus-capture:0.1.0")
ZONES = {"cn": "cn-shanghai", "us": "us-texas"}
LONG_S = 900
LOOK_AGAIN_S = 0.5


def run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; where it fails, say what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG_S, **options)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def docker(*arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    return run("docker", *arguments, check=check, **options)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], Any], what: str, within_s: float = 120) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in {within_s:.0f} s: {what}"
        time.sleep(LOOK_AGAIN_S)
    return found


@dataclass(frozen=True)
class Capture:
    """What passed between the borders, and each site's address there."""

    file: Path
    parties: dict[str, str]


@dataclass
class Stack:
    """A project of `deploy/compose.yaml`."""

    project: str
    api_port: int = field(default_factory=free_port)
    capture: Capture | None = None

    def compose(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ISTHMUS_API_PORT": str(self.api_port)}
        command = ("compose", "--project-name", self.project, "--file", str(FILE))
        return docker(*command, *arguments, check=check, env=environment, **options)

    def services(self) -> dict[str, Any]:
        """Return the services as the compose file has them, every default put in."""
        told: dict[str, Any] = json.loads(self.compose("config", "--format", "json").stdout)
        return dict(told["services"])

    def container(self, service: str) -> str:
        """Return the id of a service's container, running or not."""
        return self.compose("ps", "--all", "--quiet", service).stdout.split()[0]

    def inspect(self, service: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(docker("inspect", self.container(service)).stdout)
        return found[0]

    def long_running(self) -> list[str]:
        """Return the services that the engine starts again when they end, each after those that it waits for."""
        services = self.services()
        order = graphlib.TopologicalSorter({name: each.get("depends_on", {}) for name, each in services.items()})
        return [name for name in order.static_order() if services[name].get("restart") == "unless-stopped"]

    def running(self) -> list[str]:
        """Return the services whose containers run."""
        return sorted(self.compose("ps", "--services", "--status", "running").stdout.split())

    def addresses(self, service: str) -> dict[str, str]:
        """Return a running container's address in each of its networks, by the network's name in the compose file."""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return {
            name.removeprefix(f"{self.project}_"): each["IPAddress"]
            for name, each in networks.items()
            if each["IPAddress"]
        }

    def isthmus(self, service: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line as the people of a service, in a container of its own."""
        home = ("--home", "/home/isthmus") if arguments[0] != "raw" else ()
        entry = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "isthmus")
        return self.compose(*entry, service, *arguments, *home, check=check)

    def json(self, service: str, *arguments: str) -> Any:
        """Run a verb with `--json` and return what it says."""
        return json.loads(self.isthmus(service, *arguments, "--json").stdout)

    def logs(self, service: str) -> str:
        told = docker("logs", self.container(service))
        return told.stdout + told.stderr

    def healthy(self, service: str, within_s: float = 240, *, since: str = "") -> None:
        """Wait until a service is healthy, and has started after `since`, a time as the engine writes it."""
        container = self.container(service)

        def is_healthy() -> bool:
            state = json.loads(docker("inspect", "--format", "{{json .State}}", container).stdout)
            return state["Running"] and state["StartedAt"] > since and state["Health"]["Status"] == "healthy"

        until(is_healthy, f"{service} is healthy", within_s)

    def crash(self, service: str) -> None:
        """Kill a service's process as a lack of memory would; the engine starts it again by itself, until healthy."""
        container, began = self.container(service), self.inspect(service)["State"]["StartedAt"]
        # Not `docker kill`: the engine would take it for wanted. Process 1, the engine's own init, ends with its child.
        docker("exec", container, "sh", "-c", "kill -KILL -1", check=False)
        self.healthy(service, since=began)

    def copy_volume(self, volume: str, to: str) -> None:
        """Copy a volume, owners and modes included, as root of this host would."""
        docker("volume", "create", to)
        copy = "rm -rf /to/* /to/.[!.]*; cp -a /from/. /to/"
        mounts = ("-v", f"{volume}:/from:ro", "-v", f"{to}:/to")
        docker(
            "run", "--rm", "--network", "none", "--user", "0", *mounts, "--entrypoint", "sh", BORDER_IMAGE, "-c", copy
        )

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "15")

    def left(self) -> list[str]:
        """Return what of this project is left on the host."""
        label = f"label=com.docker.compose.project={self.project}"
        kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [line for kind in kinds for line in docker(*kind, "--quiet", "--filter", label).stdout.split()]
