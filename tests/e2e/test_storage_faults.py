"""A real store that goes away or fills up: a stable code, nothing half stored, and it works again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import httpx2
import pytest

from isthmus.border.archive import archive_heads, notes
from isthmus.cli import federation
from isthmus.client.border import BorderClient
from isthmus.contracts.errors import Code, Fault
from isthmus.contracts.identifiers import JobId, Name
from isthmus.contracts.inside import InsideRole, KeyRequest
from isthmus.contracts.orders import DatasetRef
from isthmus.contracts.raw_table import Group
from isthmus.kit.tokens import read_token
from isthmus.learning.weights import MODEL_SCHEMA
from isthmus.proof.ids import order_id
from isthmus.zone import app as zone_app
from isthmus.zone.compute import InProcessCompute
from isthmus.zone.settings import ZoneSettings
from isthmus.zone.users import User
from security.scene import ALGORITHM, CN, Scene, order_for, set_up
from servers.minio import ROOT, Minio, running, unavailable
from servers.sites import StoredSite
from world.world import drives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from isthmus.contracts.inside import LogView
    from isthmus.kit.objects.port import ObjectStore
    from isthmus.zone.ingest import IngestReport

pytestmark = pytest.mark.e2e

SNAPSHOT = DatasetRef(dataset=Name("circles"), snapshot=Name("first"))
ORDER = order_for(CN, job=JobId("job-00000000000000cc"), dataset=SNAPSHOT, tensors=MODEL_SCHEMA)
MIB = 1 << 20
PATIENCE_S = 30.0


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Return the borders of a new federation, in this process."""
    home = tmp_path / "federation"
    set_up(home, replace(federation.demo_plan(), algorithms=(ALGORITHM,)))
    with contextlib.closing(Scene(home)) as scene:
        yield scene


@pytest.fixture
def site(tmp_path: Path) -> Iterator[StoredSite]:
    (tmp_path / "minio").mkdir()
    with running(tmp_path / "minio") as server:
        site = StoredSite(server, tmp_path / "users")
        site.set_up()
        yield site


@dataclass
class Interrupted:
    """A store that ends its server just before a call of one kind, the `left`-th from now."""

    inner: ObjectStore
    server: Minio
    call: str
    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, data: Iterable[bytes] | bytes) -> None:
        self._maybe("put")
        self.inner.put(name, data)

    def get(self, name: str) -> bytes:
        self._maybe("get")
        return self.inner.get(name)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self.inner.read_range(name, offset, length)

    def size(self, name: str) -> int:
        return self.inner.size(name)

    def names(self, prefix: str = "") -> Iterator[str]:
        return self.inner.names(prefix)

    def _maybe(self, call: str) -> None:
        with self.lock:
            self.left -= call == self.call
            if self.left == 0 and self.server.process is not None:
                self.server.kill()


def ingest(scene: Scene, store: ObjectStore, *, vehicles: int = 25, freeze: bool = True) -> IngestReport:
    """Ingest drives into `store`, registered with the zone's border."""
    zone = zone_app.build(ZoneSettings.load(scene.home / CN), scene.clock, store)

    async def come_in() -> IngestReport:
        transport = httpx2.ASGITransport(app=scene.border(CN).inside)
        async with httpx2.AsyncClient(transport=transport, base_url="http://border") as http:
            border = BorderClient(http, read_token(scene.home / CN / "tokens" / InsideRole.INGEST))
            return await zone.ingest(drives(vehicles, 1, seconds=8.0), dataset=SNAPSHOT, border=border, freeze=freeze)

    try:
        return asyncio.run(come_in())
    finally:
        zone.close()


def scan(scene: Scene, store: ObjectStore) -> int:
    """Open the order's files as compute does; return the number of vehicles."""
    opening = InProcessCompute(store).prepare(ORDER)
    asked, chips = order_id(ORDER), opening.accelerators
    requests = [
        KeyRequest(order=asked, groups=(Group.MOTION,), accelerators=chips, run_key=key) for key in opening.run_keys
    ]
    try:
        opened = opening.open([scene.keeper(CN).files.grant(request) for request in requests])
    finally:
        opening.close()
    vehicles = opened.contributors.vehicles + opened.evaluators.vehicles
    opened.close()
    return vehicles


def listed(scene: Scene) -> int:
    zone = zone_app.build(ZoneSettings.load(scene.home / CN), scene.clock)
    files = len(zone.catalogue.files(SNAPSHOT.dataset))
    zone.close()
    return files


def entries(scene: Scene) -> str:
    return "".join(each for log in scene.keeper(CN).evidence().entries.values() for each in log)


def eventually(call: Callable[[], None]) -> None:
    """Make a call until the store takes it again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except Fault as fault:
            assert fault.code is Code.STORAGE_FAILED  # noqa: PT017 - any other end is raised
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def filled(store: ObjectStore, size: int) -> list[str]:
    """Put objects of `size` bytes until one does not fit; return the names of the others."""
    names = [f"files/filling-{size}-{number:04}.bin" for number in range(2000)]
    for number, name in enumerate(names):
        try:
            store.put(name, bytes(size))
        except Fault as fault:
            assert fault.code is Code.STORAGE_FAILED  # noqa: PT017 - it is expected, but not which put it is
            return names[:number]
    raise AssertionError("the disk never was full")


def whole(file: bytes) -> bool:
    """Tell whether a sealed file has its beginning and its end."""
    return file[:4] == file[-4:] == b"PARE"


def until_told(call: Callable[[], None], word: str) -> None:
    """Make a call that fails until the store, which looks at its disk once in a while, knows why."""
    deadline = time.monotonic() + PATIENCE_S
    told = ""
    while word not in told:
        assert time.monotonic() < deadline, told
        with pytest.raises(Fault) as fault:
            call()
        assert fault.value.code is Code.STORAGE_FAILED
        told = fault.value.why


@pytest.mark.parametrize("before", [1, 4], ids=["at the first object", "midway"])
def test_a_store_that_goes_away_during_ingest_leaves_nothing_half_stored(
    scene: Scene, site: StoredSite, before: int
) -> None:
    before_it = entries(scene).count("files_registered")
    with pytest.raises(Fault) as fault:
        ingest(scene, Interrupted(site.store(User.INGEST), site.server, "put", before))
    assert fault.value.code is Code.STORAGE_FAILED
    assert listed(scene) == 0
    assert entries(scene).count("files_registered") == before_it

    site.server.start()
    left = site.store(User.COMPUTE)
    for name in left.names():
        assert whole(left.get(name))
    report = ingest(scene, site.store(User.INGEST))
    assert report.vehicles == 25
    scene.give(ORDER)
    scene.carry()
    assert scan(scene, site.store(User.COMPUTE)) == 25


def test_a_store_that_goes_away_in_mid_scan_fails_the_scan_and_the_next_one_works(
    scene: Scene, site: StoredSite
) -> None:
    ingest(scene, site.store(User.INGEST))
    scene.give(ORDER)
    scene.carry()
    with pytest.raises(Fault) as fault:
        scan(scene, Interrupted(site.store(User.COMPUTE), site.server, "get", 2))
    assert fault.value.code is Code.STORAGE_FAILED
    site.server.start()
    assert scan(scene, site.store(User.COMPUTE)) == 25


def test_a_store_that_goes_away_at_a_checkpoint_does_not_stop_the_border_and_gets_it_later(
    scene: Scene, site: StoredSite, capsys: pytest.CaptureFixture[str]
) -> None:
    """Heads that change while the store is away are archived when it is back, each under its own name."""
    archive = site.store(User.BORDER)

    def heads() -> tuple[LogView, ...]:
        return scene.keeper(CN).ledger().logs

    async def through_an_outage() -> None:
        stop = asyncio.Event()
        archiving = asyncio.create_task(archive_heads(CN, heads, archive, stop, every_s=0.05))
        await until(lambda: set(notes(CN, heads())) <= set(archive.names()))
        site.server.kill()
        scene.give(ORDER)
        scene.carry()
        changed = notes(CN, heads())
        await until(lambda: "archive_away" in capsys.readouterr().out)
        assert not archiving.done()
        await asyncio.to_thread(site.server.start)
        await until(lambda: set(changed) <= set(archive.names()))
        assert {name: archive.get(name) for name in changed} == changed
        stop.set()
        await archiving

    asyncio.run(through_an_outage())
    names = list(archive.names())
    assert all(name.startswith(f"{CN}/") and name.endswith(".note") for name in names)
    assert {name.split("/")[1] for name in names} == {"crossings", "internal"}


def test_the_archive_holds_what_peers_cosigned_and_a_restarted_border_writes_nothing_twice(
    scene: Scene, site: StoredSite
) -> None:
    scene.give(ORDER)
    scene.carry()
    archive = site.store(User.BORDER)

    async def once() -> None:
        stop = asyncio.Event()
        stop.set()
        await archive_heads(CN, lambda: scene.keeper(CN).ledger().logs, archive, stop)

    asyncio.run(once())
    first = {name: archive.get(name) for name in archive.names()}
    cosigned = [note for view in scene.keeper(CN).ledger().logs for note in view.cosigned]
    assert cosigned
    assert {note.encode() for note in cosigned} <= set(first.values())
    asyncio.run(once())
    assert {name: archive.get(name) for name in archive.names()} == first


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; what the store says meanwhile is no answer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(Fault):
                if await asyncio.to_thread(holds):
                    return
            await asyncio.sleep(0.05)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)],  # noqa: S607
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        unavailable("a disk to fill needs the right to mount one")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607


def test_a_store_that_is_full_says_so_keeps_nothing_of_it_and_takes_more_when_there_is_room(
    scene: Scene, small_disk: Path, tmp_path: Path
) -> None:
    with running(small_disk) as server:
        site = StoredSite(server, tmp_path / "users")
        site.set_up()
        compute = site.store(User.COMPUTE)
        kept = [name for size in (2 * MIB, 64 << 10, 8 << 10) for name in filled(site.store(User.INGEST), size)]
        assert list(compute.names()) == sorted(kept)
        until_told(lambda: site.store(User.INGEST).put("files/one-more.bin", bytes(4 * MIB)), "full")
        with pytest.raises(Fault) as fault:
            site.server.store(site.data, site.credentials(User.INGEST), part=5 * MIB).put(
                "files/parts.bin", iter([bytes(MIB)] * 12)
            )
        assert fault.value.code is Code.STORAGE_FAILED
        with pytest.raises(Fault) as fault:
            ingest(scene, site.store(User.INGEST))
        assert fault.value.code is Code.STORAGE_FAILED
        assert listed(scene) == 0
        assert set(compute.names()) >= set(kept)
        assert all(whole(compute.get(name)) for name in set(compute.names()) - set(kept))

        subprocess.run(["mount", "-o", "remount,size=256m", str(small_disk)], check=True)  # noqa: S607
        eventually(lambda: site.store(User.INGEST).put("files/again.bin", bytes(MIB)))
        assert ingest(scene, site.store(User.INGEST)).vehicles == 25
        assert server.store(site.data, ROOT).size("files/again.bin") == MIB
