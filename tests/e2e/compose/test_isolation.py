"""From every container, every other container's address and listening port: only the drawn arrows answer.

The probe runs in each container's own network, as a process that shares nothing else with it; for the people, whose
containers have ended, in a new container of their service.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2e.compose.stack import BORDER_IMAGE, CAPTURE_IMAGE, docker, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2e.compose.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

AT_ONCE = 6
PROBE = (Path(__file__).parent / "probe.py").read_text("utf-8")
ANY = "any port of the cluster"
IN_A_ZONE = {"gate": {8440}, "store": {9000}, "ray-head": ANY, "ray-worker": ANY}
"""What answers in a zone's network, to whoever is in it; each of them asks for a token or a signature."""
ARROWS: dict[tuple[str, str], Any] = {
    ("cn-gate", "hq-gate"): {8443},
    ("us-gate", "hq-gate"): {8443},
    ("coordinator", "hq-gate"): {8440},
    ("demo", "hq-gate"): {8440},
    ("hq-gate", "coordinator"): {8600},
    ("demo", "coordinator"): {8600},
    ("api", "coordinator"): {8600},
}
"""Every other arrow: who, to whom, at which ports. Between two zones, or from a zone to headquarters, there is none."""
PEOPLE = ("cn-operator", "us-operator", "cn-officers", "us-officers", "cn-buckets", "us-buckets", "demo")
ALIASES = {
    "border.cn-shanghai": "cn",
    "store.cn-shanghai": "cn",
    "ray.cn-shanghai": "cn",
    "border.us-texas": "us",
    "store.us-texas": "us",
    "ray.us-texas": "us",
    "border.hq": "hq",
    "coordinator.hq": "hq",
    "link.hq": "crossing",
    "coordinator.api": "api",
    "api.front": "front",
}
INTERNET = ("example.com", "example.org", "metadata.google.internal", "host.docker.internal")
NOWHERE = (("169.254.169.254", 80), ("1.1.1.1", 443), ("8.8.8.8", 53))
"""Cloud metadata, and two addresses that answer from nearly everywhere."""


@dataclass(frozen=True)
class Seen:
    """What a probe saw: `answered` as (service, port), `foreign` as addresses of no service."""

    answered: dict[str, set[int]]
    foreign: set[tuple[str, int]]
    known: set[str]


def probe(stack: Stack, service: str, targets: list[tuple[str, int]], names: list[str]) -> dict[str, Any]:
    asked = json.dumps({"targets": targets, "names": names})
    code = ("-c", PROBE)

    def told_by_it() -> str:
        """Ask once; nothing where the container is just started again."""
        if service in PEOPLE:
            entry = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", service)
            return stack.compose(*entry, *code, input=asked, check=False).stdout
        place = ("--network", f"container:{stack.container(service)}", "--entrypoint", "python")
        return docker("run", "--rm", "-i", *place, BORDER_IMAGE, *code, input=asked, check=False).stdout

    told = until(told_by_it, f"the probe of {service} says what it saw")
    # Compose may speak of building first: the probe has the last word.
    found: dict[str, Any] = json.loads(told[told.rindex('{"listening"') :])
    return found


def probes(
    stack: Stack, services: Sequence[str], targets: list[tuple[str, int]], names: list[str]
) -> dict[str, dict[str, Any]]:
    """Probe from several containers at a time: where nobody answers, a probe does nothing but wait."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = pool.map(lambda service: probe(stack, service, targets, names), services)
        return dict(zip(services, told, strict=True))


def networks_of(stack: Stack) -> dict[str, set[str]]:
    """Return each service's networks, as the compose file draws them."""
    return {
        name: set(each.get("networks") or ()) for name, each in stack.services().items() if "network_mode" not in each
    }


@pytest.fixture(scope="module")
def drawn(stack: Stack) -> dict[str, set[str]]:
    return networks_of(stack)


@pytest.fixture(scope="module")
def seen(stack: Stack, drawn: dict[str, set[str]]) -> dict[str, Seen]:
    """Try everything from everywhere."""
    running = [service for service in stack.running() if service in drawn]
    whose = {address: service for service in running for address in stack.addresses(service).values()}
    ports = {service: told["listening"] for service, told in probes(stack, running, [], []).items()}
    assert {8440, 8443} <= set(ports["hq-gate"])  # the probe sees what listens
    targets = [(address, port) for address, service in whose.items() for port in {*ports[service], 22, 80}]
    gateways = {
        (config["Gateway"], port)
        for name in stack.inspect("hq-gate")["NetworkSettings"]["Networks"]
        for config in json.loads(docker("network", "inspect", name).stdout)[0]["IPAM"]["Config"]
        for port in (22, stack.api_port)
    }
    targets += [*NOWHERE, *gateways]
    names = [*drawn, *ALIASES, *INTERNET]
    found = {}
    for service, told in probes(stack, (*running, *PEOPLE), targets, names).items():
        answered: dict[str, set[int]] = {}
        foreign = set()
        for address, port in told["answered"]:
            if address not in whose:
                foreign.add((address, port))
            elif whose[address] != service:
                answered.setdefault(whose[address], set()).add(port)
        found[service] = Seen(answered, foreign, set(told["known"]))
    return found


def expected(source: str, target: str) -> Any:
    zone, _, part = target.partition("-")
    if zone in {"cn", "us"} and source.startswith(f"{zone}-") and part in IN_A_ZONE:
        return IN_A_ZONE[part]
    return ARROWS.get((source, target), set())


def test_only_the_drawn_arrows_answer(seen: dict[str, Seen]) -> None:
    assert len(seen) > 18
    wrong = {}
    for source, here in seen.items():
        for target in seen:
            drawn_ports, answered = expected(source, target), here.answered.get(target, set())
            if source == target:
                continue
            fits = bool(answered) if drawn_ports is ANY else answered == drawn_ports
            if not fits:
                wrong[source, target] = (answered, drawn_ports)
    assert wrong == {}


def test_nobody_reaches_the_internet_the_metadata_or_this_host(seen: dict[str, Seen]) -> None:
    assert {source: here.foreign for source, here in seen.items() if here.foreign} == {}


def test_a_name_is_known_in_its_own_networks_alone(seen: dict[str, Seen], drawn: dict[str, set[str]]) -> None:
    wrong = {}
    running = {name for name in seen if name not in PEOPLE}
    for source, here in seen.items():
        near = {name for name in drawn if name in running and drawn[name] & drawn[source]}
        near |= {alias for alias, network in ALIASES.items() if network in drawn[source]}
        if here.known - {source} != near - {source}:
            wrong[source] = here.known ^ near
    assert wrong == {}


def test_a_keeper_has_no_network_at_all(stack: Stack) -> None:
    for site in ("hq", "cn", "us"):
        told = docker("exec", stack.container(f"{site}-keeper"), "cat", "/proc/net/dev").stdout
        assert {line.split(":")[0].strip() for line in told.splitlines()[2:]} == {"lo"}


INTRUDER = """
import json, socket, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

def answers(target):
    try:
        socket.create_connection(target, timeout=2).close()
    except OSError:
        return False
    return True

asked = json.load(sys.stdin)
targets = [tuple(target) for target in asked["targets"]]
found = []
for via in asked["via"]:
    for net in asked["nets"]:
        subprocess.run(["ip", "route", "replace", net, "via", via], check=False, capture_output=True)
    subprocess.run(["ip", "route", "replace", "default", "via", via], check=False, capture_output=True)
    with ThreadPoolExecutor(len(targets)) as pool:
        found += [[via, *target] for target, yes in zip(targets, pool.map(answers, targets)) if yes]
json.dump(found, sys.stdout)
"""


@pytest.mark.parametrize("zone", ["cn", "us"])
def test_a_compromised_zone_that_may_do_anything_in_its_network_gets_no_further(stack: Stack, zone: str) -> None:
    """Root with raw sockets and routes of its own, using every container of the zone as a router."""
    inside = [s for s in stack.running() if zone in stack.addresses(s)]
    outside = [s for s in stack.running() if s not in inside and stack.addresses(s)]
    targets = [(a, p) for s in outside for a in stack.addresses(s).values() for p in (8440, 8443, 8600, 9000, 24_000)]
    gate = stack.addresses(f"{zone}-gate")
    names = ("crossing", "hq", "api", "us" if zone == "cn" else "cn", "front")
    nets = [
        json.loads(docker("network", "inspect", f"{stack.project}_{name}").stdout)[0]["IPAM"]["Config"][0]["Subnet"]
        for name in names
    ]
    asked = {"via": [stack.addresses(s)[zone] for s in inside], "nets": nets, "targets": [*targets, *NOWHERE]}
    place = ("--network", f"{stack.project}_{zone}", "--user", "0", "--cap-add", "NET_ADMIN", "--entrypoint", "python3")
    told = docker("run", "--rm", "-i", *place, CAPTURE_IMAGE, "-c", INTRUDER, input=json.dumps(asked))
    assert gate["crossing"]  # it is there to be reached, were there a way
    assert json.loads(told.stdout) == []
