"""One contract, every object store."""

from __future__ import annotations

import errno
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import pytest
from minio import Minio as MinioClient

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.kit.objects.place import Credentials, S3Place
from isthmus.kit.objects.requests import PATIENT, Patience
from isthmus.kit.objects.s3 import S3Store
from isthmus.zone.store import DirectoryStore, MemoryStore
from servers.minio import ROOT, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.zone.store import ObjectStore
    from servers.minio import Minio


KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from isthmus.zone.store import DirectoryStore

def killed():
    yield bytes(1 << 20)
    os._exit(9)

DirectoryStore(Path(sys.argv[1])).put("a.bin", killed())
"""


KILLED_WHILE_SENDING = """
import os, sys
from isthmus.kit.objects.place import Credentials, S3Place
from isthmus.kit.objects.s3 import S3Store

def killed():
    yield bytes(22 << 20)
    os._exit(9)

place = S3Place(endpoint=sys.argv[1], bucket=sys.argv[2], insecure=True)
S3Store(place, Credentials(sys.argv[3], sys.argv[4]), part=5 << 20).put("a.bin", killed())
"""

MIB = 1 << 20
SMALLEST_PART = 5 * MIB
BUCKETS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    with running(tmp_path_factory.mktemp("minio")) as server:
        yield server


def new_bucket(server: Minio) -> str:
    bucket = f"bucket-{next(BUCKETS)}"
    admin(server).make_bucket(bucket)
    return bucket


def admin(server: Minio) -> MinioClient:
    return MinioClient(server.endpoint, ROOT.access_key, ROOT.secret_key, secure=False, region="us-east-1")


@pytest.fixture(params=["directory", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    match request.param:
        case "directory":
            return DirectoryStore(tmp_path / "store")
        case "memory":
            return MemoryStore()
        case _:
            server: Minio = request.getfixturevalue("server")
            return server.store(new_bucket(server))


def test_what_was_put_is_read_back(store: ObjectStore) -> None:
    store.put("files/one.parquet", b"abcdef")
    store.put("files/two.parquet", (piece for piece in (b"abc", b"", b"def")))
    assert store.get("files/one.parquet") == store.get("files/two.parquet") == b"abcdef"
    assert store.size("files/two.parquet") == 6


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty.bin", b"")
    assert store.get("empty.bin") == b""
    assert list(store.names()) == ["empty.bin"]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 3, b"abc"), (2, 2, b"cd"), (4, 10, b"ef"), (6, 1, b""), (99, 1, b""), (1, 0, b"")],
)
def test_a_range_ends_where_the_object_ends(store: ObjectStore, offset: int, length: int, expected: bytes) -> None:
    store.put("a.bin", b"abcdef")
    assert store.read_range("a.bin", offset, length) == expected


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1)])
def test_a_negative_range_is_refused(store: ObjectStore, offset: int, length: int) -> None:
    store.put("a.bin", b"abcdef")
    with pytest.raises(Refusal) as refusal:
        store.read_range("a.bin", offset, length)
    assert refusal.value.code is Code.INPUT_INVALID


def test_an_object_is_written_once(store: ObjectStore) -> None:
    store.put("a.bin", b"first")
    with pytest.raises(Refusal) as refusal:
        store.put("a.bin", b"second")
    assert refusal.value.code is Code.ALREADY_EXISTS
    assert store.get("a.bin") == b"first"


def test_of_many_writers_of_one_name_one_wins(store: ObjectStore) -> None:
    barrier = threading.Barrier(8)
    won: list[int] = []

    def write(number: int) -> None:
        barrier.wait()
        try:
            store.put("contested.bin", [b"%d" % number] * 1000)
        except Refusal as refusal:
            assert refusal.code is Code.ALREADY_EXISTS  # noqa: PT017 -- a thread cannot raise into the test
        else:
            won.append(number)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1
    assert store.get("contested.bin") == b"%d" % won[0] * 1000


def test_a_writer_that_fails_leaves_nothing(store: ObjectStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half of it"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        store.put("a.bin", broken())
    assert list(store.names()) == []
    store.put("a.bin", b"whole")
    assert store.get("a.bin") == b"whole"


@pytest.mark.parametrize("call", ["get", "size"])
def test_what_is_not_there_is_not_found(store: ObjectStore, call: str) -> None:
    with pytest.raises(Refusal) as refusal:
        getattr(store, call)("none.bin")
    assert refusal.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a",
        "../a.bin",
        "a/../b.bin",
        "/etc/passwd.txt",
        "a//b.bin",
        "a/.hidden",
        ".incoming/x.bin",
        "A.bin",
        "a b.bin",
        "a\n.bin",
        "a.bin\n",
        "a\0.bin",
        "a.b/c.bin",
        "x" * 200 + ".bin",
        "ä.bin",
        "a/b",
    ],
)
def test_a_name_that_could_climb_or_collide_is_refused(store: ObjectStore, name: str) -> None:
    for call in (lambda: store.put(name, b""), lambda: store.get(name), lambda: store.size(name)):
        with pytest.raises(Refusal) as refusal:
            call()
        assert refusal.value.code is Code.INPUT_INVALID


@pytest.mark.parametrize("prefix", ["..", "../", "/", "a/../", ".incoming"])
def test_a_prefix_that_could_climb_is_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(Refusal):
        list(store.names(prefix))


def test_names_come_sorted_and_by_prefix(store: ObjectStore) -> None:
    for name in ("files/b.bin", "files/a.bin", "file.bin", "other/c.bin", "files/deep/d.bin"):
        store.put(name, b"x")
    assert list(store.names()) == ["file.bin", "files/a.bin", "files/b.bin", "files/deep/d.bin", "other/c.bin"]
    assert list(store.names("files/")) == ["files/a.bin", "files/b.bin", "files/deep/d.bin"]
    assert list(store.names("files/a")) == ["files/a.bin"]
    assert list(store.names("file")) == ["file.bin", "files/a.bin", "files/b.bin", "files/deep/d.bin"]
    assert list(store.names("nothing/")) == []


class TestDirectory:
    def test_objects_outlive_the_store(self, tmp_path: Path) -> None:
        DirectoryStore(tmp_path).put("files/a.bin", b"kept")
        assert DirectoryStore(tmp_path).get("files/a.bin") == b"kept"

    def test_a_crash_while_writing_leaves_nothing_and_is_cleared_at_the_next_start(self, tmp_path: Path) -> None:
        writer = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)], check=False)
        assert writer.returncode == 9
        assert [path.stat().st_size for path in (tmp_path / ".incoming").iterdir()] == [1 << 20]
        assert list(DirectoryStore(tmp_path).names()) == []
        assert list((tmp_path / ".incoming").iterdir()) == []

    def test_a_second_store_leaves_alone_what_is_being_written(self, tmp_path: Path) -> None:
        def interrupted() -> Iterator[bytes]:
            yield b"first "
            DirectoryStore(tmp_path)
            yield b"second"

        store = DirectoryStore(tmp_path)
        store.put("a.bin", interrupted())
        assert store.get("a.bin") == b"first second"

    def test_a_full_disk_is_a_fault_and_leaves_nothing(self, tmp_path: Path) -> None:
        def full() -> Iterator[bytes]:
            yield b"some"
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        store = DirectoryStore(tmp_path)
        with pytest.raises(Fault) as fault:
            store.put("a.bin", full())
        assert fault.value.code is Code.STORAGE_FAILED
        assert "space" in fault.value.why
        assert list(store.names()) == []

    def test_nobody_else_can_read_it(self, tmp_path: Path) -> None:
        store = DirectoryStore(tmp_path / "store")
        store.put("files/a.bin", b"x")
        assert (tmp_path / "store/files/a.bin").stat().st_mode & 0o077 == 0
        assert (tmp_path / "store/files").stat().st_mode & 0o077 == 0


class TestS3:
    def test_a_large_object_goes_up_in_parts_and_comes_back_whole(self, server: Minio) -> None:
        store = server.store(new_bucket(server), part=SMALLEST_PART)
        pieces = [os.urandom(700_001) for _ in range(20)]
        store.put("pieces.bin", iter(pieces))
        store.put("whole.bin", b"".join(pieces))
        for name in ("pieces.bin", "whole.bin"):
            assert store.get(name) == b"".join(pieces)
            assert store.size(name) == 20 * 700_001
            assert store.read_range(name, 2 * SMALLEST_PART - 3, 6) == b"".join(pieces)[2 * SMALLEST_PART - 3 :][:6]

    def test_an_object_in_parts_is_written_once_too(self, server: Minio) -> None:
        bucket = new_bucket(server)
        store = server.store(bucket, part=SMALLEST_PART)
        store.put("a.bin", b"first")
        with pytest.raises(Refusal) as refusal:
            store.put("a.bin", bytes(11 * MIB))
        assert refusal.value.code is Code.ALREADY_EXISTS
        assert store.get("a.bin") == b"first"
        assert unfinished(server, bucket) == []

    def test_of_many_writers_in_parts_one_wins(self, server: Minio) -> None:
        bucket = new_bucket(server)
        barrier = threading.Barrier(4)
        outcomes: list[Code | int] = []

        def write(number: int) -> None:
            store = server.store(bucket, part=SMALLEST_PART, patience=PATIENT)
            barrier.wait()
            try:
                store.put("contested.bin", bytes([number]) * (6 * MIB))
                outcomes.append(number)
            except Refusal as refusal:
                outcomes.append(refusal.code)

        writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        (winner,) = (outcome for outcome in outcomes if isinstance(outcome, int))
        assert outcomes.count(Code.ALREADY_EXISTS) == 3
        assert set(server.store(bucket).get("contested.bin")) == {winner}

    def test_a_source_that_breaks_after_parts_were_sent_leaves_neither_object_nor_parts(self, server: Minio) -> None:
        bucket = new_bucket(server)

        def broken() -> Iterator[bytes]:
            yield bytes(16 * MIB)
            raise RuntimeError("the source broke")

        with pytest.raises(RuntimeError, match="the source broke"):
            server.store(bucket, part=SMALLEST_PART).put("a.bin", broken())
        assert list(server.store(bucket).names()) == []
        assert unfinished(server, bucket) == []
        server.store(bucket).put("a.bin", b"whole")

    def test_a_writer_that_is_killed_leaves_nothing_to_be_seen(self, server: Minio) -> None:
        bucket = new_bucket(server)
        command = [sys.executable, "-c", KILLED_WHILE_SENDING, server.endpoint, bucket, ROOT.access_key]
        assert subprocess.run([*command, ROOT.secret_key], check=False).returncode == 9
        store = server.store(bucket)
        assert list(store.names()) == []
        with pytest.raises(Refusal) as refusal:
            store.get("a.bin")
        assert refusal.value.code is Code.NOT_FOUND
        store.put("a.bin", b"the next writer's")
        assert store.get("a.bin") == b"the next writer's"

    def test_more_names_than_a_page_holds_come_sorted(self, server: Minio) -> None:
        bucket = new_bucket(server)
        store = server.store(bucket)
        names = [f"files/{number:04}.bin" for number in range(1005)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: store.put(name, b""), reversed(names)))
        assert list(store.names("files/")) == names

    @pytest.mark.parametrize(
        "credentials",
        [Credentials(ROOT.access_key, "a-wrong-secret-canary"), Credentials("nobody", "a-wrong-secret-canary")],
        ids=["secret", "user"],
    )
    def test_wrong_credentials_are_refused_with_a_remedy_and_told_to_nobody(
        self, server: Minio, credentials: Credentials, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = server.store(new_bucket(server), credentials)
        for call in (lambda: store.put("a.bin", b"x"), lambda: store.get("a.bin"), lambda: list(store.names())):
            with pytest.raises(Refusal) as refusal:
                call()
            assert refusal.value.code is Code.UNAUTHENTICATED
            assert "storage setup" in refusal.value.remedy
            told = "".join(traceback.format_exception(refusal.value)) + repr(refusal.value) + caplog.text
            assert "canary" not in told
            assert "Authorization" not in told
        assert "canary" not in repr(credentials)

    def test_a_bucket_that_is_not_there_is_a_fault_of_configuration(self, server: Minio) -> None:
        with pytest.raises(Fault) as fault:
            server.store("no-such-bucket").put("a.bin", b"x")
        assert fault.value.code is Code.CONFIGURATION

    def test_a_server_that_goes_is_a_fault_and_one_that_comes_back_is_used_again(self, tmp_path: Path) -> None:
        with running(tmp_path) as own:
            store = own.store(new_bucket(own))
            store.put("a.bin", b"kept")
            own.kill()
            begun = time.monotonic()
            for call in (lambda: store.put("b.bin", b"x"), lambda: store.get("a.bin"), lambda: list(store.names())):
                with pytest.raises(Fault) as fault:
                    call()
                assert fault.value.code is Code.STORAGE_FAILED
                assert fault.value.remedy
            assert time.monotonic() - begun < 20
            own.start()
            assert store.get("a.bin") == b"kept"
            store.put("b.bin", b"x")
            assert list(store.names()) == ["a.bin", "b.bin"]

    def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up(self, server: Minio) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            place = S3Place(endpoint=f"127.0.0.1:{silent.getsockname()[1]}", bucket="bucket", insecure=True)
            patience = Patience(connect_s=0.2, read_s=0.2, attempts=2, pause_s=0.01)
            with pytest.raises(Fault) as fault:
                S3Store(place, ROOT, patience=patience).put("a.bin", b"x")
        assert fault.value.code is Code.STORAGE_FAILED
        assert "not known" in fault.value.what

    def test_an_object_whose_first_answer_was_lost_is_not_claimed_by_the_second(self, server: Minio) -> None:
        """The put is carried out, its answer cut off: what then says "it exists" may speak of this very put."""
        bucket = new_bucket(server)
        with Severing(server.port) as severing:
            place = S3Place(endpoint=f"127.0.0.1:{severing.port}", bucket=bucket, insecure=True)
            with pytest.raises(Fault) as fault:
                S3Store(place, ROOT, patience=PATIENT).put("a.bin", b"x")
        assert fault.value.code is Code.STORAGE_FAILED
        assert server.store(bucket).get("a.bin") == b"x"


def unfinished(server: Minio, bucket: str) -> list[str]:
    """Return the uploads that were begun and neither completed nor aborted."""
    answer = admin(server)._execute("GET", bucket, query_params={"uploads": "", "prefix": "a.bin"})
    return re.findall(r"<UploadId>([^<]+)", answer.data.decode())


class Severing:
    """A way to the server that hands requests on, and drops the first answer."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        for drop in (True, False):
            connection, _ = self._listener.accept()
            with connection, socket.create_connection(("127.0.0.1", self._target)) as server:
                connection.settimeout(5)
                server.sendall(connection.recv(1 << 16))
                answer = server.recv(1 << 16)
                if not drop:
                    connection.sendall(answer)
