"""A zone's cluster as it is started in earnest: what it keeps to itself, whom it lets in, and what its losses cost."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import JobId, Name
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.ledger import INTERNAL_ENTRY, Drafted, KeysReleased, Log, OrderAccepted, OrderClosed
from isthmus.contracts.orders import DatasetRef
from isthmus.fleet import simulate
from isthmus.kit.tokens import write_secret
from isthmus.learning import weights
from isthmus.learning.forecaster import initial_weights
from isthmus.zone.app import build
from isthmus.zone.cluster.compute import RayCompute
from isthmus.zone.cluster.connection import Connection
from isthmus.zone.compute import RunLost
from isthmus.zone.progress import Progress
from isthmus.zone.settings import ZoneSettings
from servers.ray_cluster import running
from servers.stored_order import an_order, circling, stored
from unit.zone.sites import make_borders
from unit.zone.test_worker import Headquarters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from isthmus.contracts.inside import KeyGrant
    from isthmus.contracts.keys import HpkeKey
    from isthmus.contracts.orders import Order
    from isthmus.zone.compute import Opening, Run
    from servers.ray_cluster import RayCluster
    from servers.stored_order import Stored

pytestmark = pytest.mark.e2e
FIRST = weights.encode(initial_weights(3))
LONG = 1_000
"""Passes over the data: far more than can be made before a kill."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def drives(cluster: RayCluster) -> Stored:
    return stored(cluster.site / "store", circling(2, 8))


@pytest.fixture(scope="module")
def connection(cluster: RayCluster) -> Iterator[Connection]:
    """One for all tests: it is made again when the head is back."""
    connection = Connection(cluster.settings.client_address, cluster.settings.token, 30)
    yield connection
    connection.close()


@pytest.fixture
def compute(cluster: RayCluster, connection: Connection, drives: Stored) -> Iterator[RayCompute]:
    """Compute on the cluster; whatever a test does to it, no shard's process is left."""
    yield RayCompute(connection, cluster.settings, lambda *_: drives.bytes)
    until(lambda: not cluster.shard_processes())


def until(is_so: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def test_plaintext_ends_with_the_run_and_nothing_of_it_is_written(
    cluster: RayCluster, compute: RayCompute, drives: Stored
) -> None:
    run = drives.opened(compute, an_order())
    assert len(cluster.shard_processes()) == 2
    run.train(0, FIRST)
    run.close()
    until(lambda: not cluster.shard_processes())
    token = cluster.settings.token.read_bytes()
    forbidden = [b"v003", token, *(file.key for file in drives.files)]
    forbidden += [base64.b64encode(file.key) for file in drives.files]
    forbidden += [file.key.hex().encode() for file in drives.files]
    read = 0
    for path in cluster.state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert [secret for secret in forbidden if secret in content] == [], path
            read += len(content)
    assert read > 10_000
    assert token.decode() not in str(cluster.arguments())


def test_a_shard_that_is_killed_costs_the_run_and_nothing_else(
    cluster: RayCluster, compute: RayCompute, drives: Stored
) -> None:
    run = drives.opened(compute, an_order(epochs=LONG))
    victim = cluster.shard_processes()[-1]
    threading.Timer(0.5, victim.kill).start()
    with pytest.raises(RunLost) as lost:
        run.train(0, FIRST)
    assert lost.value.code is Code.COMPUTE_FAILED
    run.close()
    again = drives.opened(compute, an_order())
    assert len(again.train(0, FIRST)) == len(FIRST)
    again.close()


def test_a_head_that_is_killed_costs_the_run_and_comes_back(
    cluster: RayCluster, compute: RayCompute, drives: Stored
) -> None:
    order = an_order()
    before = drives.opened(compute, order)
    update = before.train(0, FIRST)
    before.close()
    run = drives.opened(compute, an_order(epochs=LONG))
    threading.Timer(0.5, cluster.kill).start()
    with pytest.raises(RunLost):
        run.train(0, FIRST)
    run.close()
    away = Connection(cluster.settings.client_address, cluster.settings.token, 0.5)
    with pytest.raises(RunLost) as lost:
        RayCompute(away, cluster.settings, lambda *_: drives.bytes).prepare(order)
    assert lost.value.code is Code.COMPUTE_FAILED
    cluster.start()
    again = drives.opened(compute, order)
    assert again.train(0, FIRST) == update
    again.close()


ASK = """
import sys
from pathlib import Path
from isthmus.contracts.errors import IsthmusError
from isthmus.zone.cluster.connection import Connection
try:
    print(len(Connection(sys.argv[1], Path(sys.argv[2]), 1).nodes()))
except IsthmusError as error:
    print(error.code.value, error)
"""


WRONG = secrets.token_urlsafe(32)


@dataclasses.dataclass(frozen=True)
class Callers:
    """Who asked for the cluster's nodes, each in a process of its own, since Ray reads a token once."""

    home: Path
    own: subprocess.CompletedProcess[str]
    wrong: subprocess.CompletedProcess[str]
    missing: subprocess.CompletedProcess[str]
    bare: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def callers(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Callers:
    """Have the rightful one call, and then the others, side by side: on a busy machine four would take its time."""
    folder, home = tmp_path_factory.mktemp("callers"), tmp_path_factory.mktemp("home")
    write_secret(folder / "wrong", WRONG.encode())
    address = cluster.settings.client_address
    bare = f"import ray; ray.init('ray://{address}'); print(len(ray.nodes()))"
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    pauses = ("RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S", "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S")
    without |= {**dict.fromkeys(pauses, "2"), "HOME": str(folder)}

    def called(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    own = called({**os.environ, "HOME": str(home)}, ASK, address, str(cluster.settings.token))
    with ThreadPoolExecutor(3) as threads:
        calls = [
            threads.submit(called, {**os.environ}, ASK, address, str(folder / "wrong")),
            threads.submit(called, {**os.environ}, ASK, address, str(folder / "missing")),
            threads.submit(called, without, bare),
        ]
        return Callers(home, own, *(call.result() for call in calls))


def test_a_cluster_answers_to_its_own_token_alone(callers: Callers) -> None:
    assert callers.own.stdout.strip() == "1"
    told = callers.wrong.stdout
    assert told.startswith(Code.COMPUTE_FAILED.value)
    assert "token" in told
    assert WRONG not in told + callers.wrong.stderr
    assert callers.missing.stdout.startswith(Code.CONFIGURATION.value)
    assert {call.returncode for call in (callers.own, callers.wrong, callers.missing)} == {0}


def test_what_is_no_token_runs_no_code(callers: Callers) -> None:
    """Past our own checks: Ray's client, without a token, as anyone on the zone's network might have it."""
    assert callers.bare.returncode != 0
    assert callers.bare.stdout == ""


def test_an_order_does_not_run_on_an_accelerator_that_the_zone_does_not_allow(
    cluster: RayCluster, compute: RayCompute, drives: Stored
) -> None:
    other = cluster.settings.model_copy(update={"allowed_accelerators": ("h20",)})
    with pytest.raises(Refusal) as refusal:
        RayCompute(compute._connection, other, lambda *_: drives.bytes).prepare(an_order())
    assert refusal.value.code is Code.POLICY_DENIED
    assert cluster.shard_processes() == []


def test_ray_leaves_no_token_in_the_home_folder(callers: Callers) -> None:
    assert callers.own.stdout.strip() == "1"
    assert list(callers.home.rglob("*")) == []


@dataclasses.dataclass
class Dooms:
    """Compute on the cluster, one of whose shards is killed when the first training is asked for."""

    of: RayCompute
    cluster: RayCluster
    struck: bool = False

    def prepare(self, order: Order) -> DoomedOpening:
        return DoomedOpening(self, self.of.prepare(order))


@dataclasses.dataclass
class DoomedOpening:
    dooms: Dooms
    of: Opening

    @property
    def run_keys(self) -> tuple[HpkeKey, ...]:
        return self.of.run_keys

    @property
    def accelerators(self) -> tuple[Name, ...]:
        return self.of.accelerators

    def open(self, grants: Sequence[KeyGrant]) -> Run:
        run, dooms = self.of.open(grants), self.dooms
        train = run.train

        def struck(slot: int, base: bytes) -> bytes:
            if not dooms.struck:
                dooms.struck = True
                dooms.cluster.shard_processes()[-1].kill()
            return train(slot, base)

        run.train = struck  # type: ignore[method-assign] # the run is the shipped one, but for its death
        return run

    def close(self) -> None:
        self.of.close()


def test_an_order_whose_shard_is_killed_is_done_once_and_charged_once(cluster: RayCluster, tmp_path: Path) -> None:
    """A border, a worker, a cluster: keys are released again, each update crosses once, the order is charged once."""
    order = an_order(held_out=10).model_copy(
        update={
            "job": JobId("job-00000000000000cc"),
            "dataset": DatasetRef(dataset=Name("fleet"), snapshot=Name("first")),
        }
    )
    borders = make_borders(tmp_path / "borders")
    zone = build(ZoneSettings.load(cluster.site), borders.clock)
    compute = Dooms(zone.compute(), cluster)  # type: ignore[arg-type] # the settings name a cluster

    async def scenario() -> list[tuple[Kind, int]]:
        headquarters, came = Headquarters(borders), []
        fleet = simulate("cn-shanghai", 20, 0.3, 1)
        await zone.ingest(fleet, dataset=order.dataset, border=borders.zone.client(InsideRole.INGEST))
        id_ = await headquarters.order(order)
        stop = asyncio.Event()
        serving = asyncio.create_task(zone.worker(borders.zone.client(InsideRole.COMPUTE), compute).run(stop))
        async with asyncio.timeout(240):
            while (standing := Progress(zone.database).standing(id_)) is None or standing.state != "closed":
                assert not serving.done(), serving
                came += await headquarters.turn()
                await asyncio.sleep(0.02)  # the worker's turn: nothing is timed by it
        stop.set()
        await serving
        came += await headquarters.turn()
        assert standing.code is None
        return [(d.kind, d.slot) for d in came if d.order == id_ and d.kind is not Kind.NOTICE]

    try:
        crossed = asyncio.run(scenario())
    finally:
        zone.close()
        compute.of._connection.close()
    assert compute.struck
    assert sorted(crossed) == [(Kind.AGGREGATE, 2), (Kind.MODEL_UPDATE, 0), (Kind.MODEL_UPDATE, 1)]
    internal = [INTERNAL_ENTRY.validate_json(text) for text in borders.zone.keeper.evidence().entries[Log.INTERNAL]]
    released = [entry.run for entry in internal if isinstance(entry, KeysReleased)]
    assert len(released) == len(set(released)) == 4, "two shards, opened twice, each with a key of its own"
    assert {entry.accelerators for entry in internal if isinstance(entry, KeysReleased)} == {("cpu",)}
    (accepted,) = (entry for entry in internal if isinstance(entry, OrderAccepted))
    (closed,) = (entry for entry in internal if isinstance(entry, OrderClosed))
    drafted = [entry for entry in internal if isinstance(entry, Drafted)]
    assert closed.reason == "complete"
    assert closed.spent_bits + closed.returned_bits == accepted.reserved_bits
    assert len({entry.crossing for entry in drafted}) == len(drafted)
