"""The way between the borders cut, rough and slow; every service started again, or killed, in the middle of a job."""

from __future__ import annotations

import base64
import json
from collections import deque
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from e2e.compose import crossing, jobs
from e2e.compose.crossing import Line
from e2e.compose.stack import ZONES, docker, until
from isthmus.contracts.inside import Evidence
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from e2e.compose.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

SLOW = Line(delay_s=0.0, loss=0.0, bits_per_s=1_000_000)
"""A model or an update of 119 kB is a second on its way."""
ROUGH = Line(delay_s=0.5, loss=0.05, bits_per_s=1_000_000)
"""Half a second each way: a second, at least, from a question to its answer."""
ROUNDS = 120
"""Of a job in whose middle things happen: some two minutes of work when nothing does."""
TO_GO = 3
"""A job with fewer rounds to go is near its end: the next thing happens in the middle of another one."""


@pytest.fixture(scope="module")
def engineer(stack: Stack) -> jobs.Engineer:
    return jobs.Engineer(stack)


@pytest.fixture(scope="module")
def netem(images: None, request: pytest.FixtureRequest) -> bool:
    """Tell, and show, whether the kernel makes the lines rough, or a program does."""
    found = crossing.has_netem()
    terminal = request.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.ensure_newline()
        terminal.write_line(f"Lines are made rough by {'tc netem' if found else 'line.py: this kernel has no netem'}.")
    return found


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


def test_a_link_cut_in_the_middle_of_a_payload_loses_nothing(
    stack: Stack, engineer: jobs.Engineer, *, netem: bool
) -> None:
    rounds = 4
    with jobs.job(stack, engineer, rounds) as name:
        jobs.at_round(engineer, name, 1)
        with crossing.over(stack, "cn-gate", SLOW, netem=netem):
            before = jobs.crossed_bytes(stack, "cn-gate")
            until(lambda: jobs.crossed_bytes(stack, "cn-gate") > before + 30_000, "a payload is on its way", 60)
            docker("network", "disconnect", f"{stack.project}_crossing", stack.container("cn-gate"))
            until(lambda: '"link_down"' in stack.logs("cn-gate"), "the gate notices", 120)
        again = ("--alias", "cn-gate", f"{stack.project}_crossing")
        docker("network", "connect", *again, stack.container("cn-gate"))
        whole(stack, engineer, name, rounds)


def test_ten_rounds_over_a_line_that_is_slow_late_and_lossy(
    stack: Stack, engineer: jobs.Engineer, *, netem: bool
) -> None:
    rounds = 10
    with ExitStack() as lines:
        for zone in ZONES:
            lines.enter_context(crossing.over(stack, f"{zone}-gate", ROUGH, netem=netem))
        with jobs.job(stack, engineer, rounds) as name:
            whole(stack, engineer, name, rounds)


def in_the_middle_of_jobs(stack: Stack, engineer: jobs.Engineer, deeds: Iterable[Callable[[], None]]) -> None:
    """Do each deed while a job has rounds behind it and rounds to go; hold that every job comes whole to its end."""
    waiting = deque(deeds)
    while waiting:
        with jobs.job(stack, engineer, ROUNDS) as name:
            jobs.at_round(engineer, name, 1)
            while waiting and jobs.rounds_done(engineer, name) <= ROUNDS - TO_GO:
                waiting.popleft()()
            whole(stack, engineer, name, ROUNDS)


def by_turns(services: Iterable[str]) -> list[tuple[str, ...]]:
    """Return services one by one, a zone's together with the other's of the same kind: zones do not wait for another.

    >>> by_turns(["api", "cn-gate", "us-gate"])
    [('api',), ('cn-gate', 'us-gate')]
    """
    turns: dict[str, list[str]] = {}
    for service in services:
        zone, _, kind = service.partition("-")
        turns.setdefault(kind if zone in ZONES else service, []).append(service)
    return [tuple(turn) for turn in turns.values()]


def test_every_service_started_again_in_the_middle_of_a_job_loses_nothing(
    stack: Stack, engineer: jobs.Engineer
) -> None:
    services = stack.long_running()
    # None is forgotten: whatever has not ended with the demo is among them.
    assert set(stack.running()) - {"capture"} == set(services)

    def restart(turn: tuple[str, ...]) -> None:
        stack.compose("restart", "--timeout", "10", *turn)
        for service in turn:
            stack.healthy(service)

    zones_last = sorted(services, key=lambda service: service.partition("-")[0] in ZONES)
    in_the_middle_of_jobs(stack, engineer, [partial(restart, turn) for turn in by_turns(zones_last)])


KILLED = (
    *("hq-keeper", "hq-gate", "coordinator"),
    *("cn-keeper", "us-gate", "cn-zone", "us-store", "us-ray-worker", "cn-ray-head"),
)


def test_a_service_killed_in_the_middle_of_a_job_is_started_again_and_loses_nothing(
    stack: Stack, engineer: jobs.Engineer
) -> None:
    in_the_middle_of_jobs(stack, engineer, [partial(stack.crash, service) for service in KILLED])


def test_a_store_that_hangs_is_seen_and_seen_again_when_it_answers(stack: Stack) -> None:
    store = stack.container("us-store")

    def health() -> str:
        return docker("inspect", "--format", "{{.State.Health.Status}}", store).stdout.strip()

    stack.healthy("us-store")
    docker("exec", store, "sh", "-c", "kill -STOP -1")
    try:
        until(lambda: health() == "unhealthy", "the store's health check notices", 90)
    finally:
        docker("exec", store, "sh", "-c", "kill -CONT -1")
    stack.healthy("us-store", 60)


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
