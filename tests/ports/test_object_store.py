"""One contract, every object store."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.zone.store import DirectoryStore, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.zone.store import ObjectStore


KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from isthmus.zone.store import DirectoryStore

def killed():
    yield bytes(1 << 20)
    os._exit(9)

DirectoryStore(Path(sys.argv[1])).put("a.bin", killed())
"""


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return DirectoryStore(tmp_path / "store") if request.param == "directory" else MemoryStore()


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
