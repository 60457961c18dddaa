"""The way between the borders cut, rough and slow, and every service started again in the middle of a job."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.compose import jobs
from e2e.compose.stack import CAPTURE_IMAGE, ZONES, docker, until
from isthmus.contracts.inside import Evidence
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.compose.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

LINE = (Path(__file__).parent / "line.py").read_text("utf-8")
HOST = ("--network", "host", "--user", "0", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW")
SLOW_LINE = (0.0, 0.0, 1e6)
"""1 Mbit/s: a model or an update of 119 kB is a second on its way."""
ROUGH_LINE = (0.25, 0.05, 1e6)
"""A quarter of a second each way, so half a second there and back; 5 % lost; 1 Mbit/s."""


@pytest.fixture(scope="module")
def engineer(stack: Stack) -> jobs.Engineer:
    return jobs.Engineer(stack)


def on_host(*command: str, check: bool = True) -> str:
    """Run a command in the network of the engine's host."""
    return docker("run", "--rm", *HOST, "--entrypoint", command[0], CAPTURE_IMAGE, *command[1:], check=check).stdout


@contextlib.contextmanager
def line(stack: Stack, service: str, kind: tuple[float, float, float]) -> Iterator[None]:
    """Put a line between a gate and the crossing network, in place of the bridge's own port."""
    address = stack.addresses(service)["crossing"]
    inner = docker("run", "--rm", "--network", f"container:{stack.container(service)}", "--entrypoint", "ip",
                   CAPTURE_IMAGE, "-json", "address").stdout  # fmt: skip
    port = next(
        each["link_index"] for each in json.loads(inner) if any(a["local"] == address for a in each["addr_info"])
    )
    links = json.loads(on_host("ip", "-json", "link"))
    veth = next(each for each in links if each["ifindex"] == port)
    here, there = f"line{port}a", f"line{port}b"
    on_host("ip", "link", "add", here, "type", "veth", "peer", "name", there)
    name = f"{stack.project}-line-{service}"
    try:
        for arguments in (
            ("set", here, "up"),
            ("set", there, "up"),
            ("set", veth["ifname"], "nomaster"),
            ("set", here, "master", veth["master"]),
        ):
            on_host("ip", "link", *arguments)
        entry = ("--entrypoint", "python3", CAPTURE_IMAGE, "-c", LINE, veth["ifname"], there)
        docker("run", "--detach", "--name", name, *HOST, *entry, *map(str, kind))
        yield
    finally:
        docker("rm", "--force", name, check=False)
        on_host("ip", "link", "set", veth["ifname"], "master", veth["master"], check=False)
        on_host("ip", "link", "delete", here, check=False)


def whole(stack: Stack, engineer: jobs.Engineer, name: str, rounds: int) -> None:
    """Hold that a job of so many rounds is done, each crossing once, and no link halted."""
    view = jobs.done(engineer, name)
    assert view.rounds_done == rounds
    evidence = [_evidence(stack, service) for service in ("demo", "cn-officers", "us-officers")]
    counted = {
        part.site: [_manifests(entry) for entry in part.entries["crossings"] if name in _manifests(entry)]
        for part in evidence
    }
    assert all(len(set(texts)) == len(texts) > rounds for texts in counted.values())
    updates = [text for text in counted["hq"] if '"kind":"model_update"' in text]
    assert len(updates) == rounds * len(ZONES)


def _manifests(entry: str) -> str:
    """Return the text of the manifest in a ledger's entry."""
    envelope = json.loads(json.loads(entry)["envelope"])
    return base64.b64decode(envelope["payload"]).decode()


def _evidence(stack: Stack, service: str) -> Evidence:
    """Export a site's evidence in its own container, and return it."""
    export = "isthmus ledger export /tmp/bundle --home /home/isthmus >/dev/null && cat /tmp/bundle/*.json"
    told = until(
        lambda: (
            stack.compose(
                *("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", service, "-c", export), check=False
            ).stdout
        ),
        f"the evidence of {service}",
    )
    return canonical.load(Evidence, told.encode(), limit=1 << 28)


def test_a_link_cut_in_the_middle_of_a_payload_loses_nothing(stack: Stack, engineer: jobs.Engineer) -> None:
    rounds = 4
    with jobs.job(stack, engineer, rounds) as name:
        jobs.at_round(engineer, name, 1)
        with line(stack, "cn-gate", SLOW_LINE):
            before = jobs.crossed_bytes(stack, "cn-gate")
            until(lambda: jobs.crossed_bytes(stack, "cn-gate") > before + 30_000, "a payload is on its way", 60)
            docker("network", "disconnect", f"{stack.project}_crossing", stack.container("cn-gate"))
            until(lambda: '"link_down"' in stack.logs("cn-gate"), "the gate notices", 120)
        again = ("--alias", "cn-gate", f"{stack.project}_crossing")
        docker("network", "connect", *again, stack.container("cn-gate"))
        whole(stack, engineer, name, rounds)


def test_ten_rounds_over_a_line_that_is_slow_late_and_lossy(stack: Stack, engineer: jobs.Engineer) -> None:
    rounds = 10
    with (
        line(stack, "cn-gate", ROUGH_LINE),
        line(stack, "us-gate", ROUGH_LINE),
        jobs.job(stack, engineer, rounds) as name,
    ):
        whole(stack, engineer, name, rounds)


RESTARTED = (
    *("hq-keeper", "hq-gate", "coordinator", "api"),
    *("cn-keeper", "cn-gate", "cn-zone", "cn-store", "cn-ray-worker", "cn-ray-head"),
    *("us-keeper", "us-gate", "us-zone"),
)


def test_every_service_started_again_in_the_middle_of_a_job_loses_nothing(
    stack: Stack, engineer: jobs.Engineer
) -> None:
    rounds = 30
    with jobs.job(stack, engineer, rounds) as name:
        jobs.at_round(engineer, name, 1)
        for service in RESTARTED:
            stack.compose("restart", "--timeout", "10", service)
            stack.healthy(service)
        whole(stack, engineer, name, rounds)


def test_a_restored_border_is_noticed_by_its_peer_and_goes_on_from_its_latest_state(
    stack: Stack, engineer: jobs.Engineer
) -> None:
    volume, old, latest = f"{stack.project}_cn-keeper", f"{stack.project}_old", f"{stack.project}_latest"

    def restored(source: str) -> None:
        stack.compose("stop", "cn-gate", "cn-keeper")
        stack.copy_volume(source, volume)
        stack.compose("start", "cn-keeper")
        stack.healthy("cn-keeper")
        stack.compose("start", "cn-gate")
        stack.healthy("cn-gate")

    try:
        stack.compose("stop", "cn-gate", "cn-keeper")
        stack.copy_volume(volume, old)
        restored(old)
        with jobs.job(stack, engineer, 1) as name:
            jobs.done(engineer, name)
        stack.compose("stop", "cn-gate", "cn-keeper")
        stack.copy_volume(volume, latest)

        restored(old)
        halted = until(lambda: _halted(stack), "the peer shows what this border had signed")
        assert halted == {"hq": "ledger_rolled_back"}

        restored(latest)
        with jobs.job(stack, engineer, 1) as name:
            jobs.done(engineer, name)
        assert _halted(stack) == {}
    finally:
        docker("volume", "rm", "--force", old, latest, check=False)


def _halted(stack: Stack) -> dict[str, str]:
    told = stack.isthmus("cn-officers", "ledger", "show", "--json", check=False).stdout
    if not told:
        return {}
    (site,) = json.loads(told)["sites"]
    halted: dict[str, str] = site["ledger"]["halted"]
    return halted
