"""The object store of a zone: sealed files by name, in memory, in a folder, or in an S3 store.

The port and its rules stand in `kit.objects.port`; the adapter for S3 is `kit.objects.s3`. A zone's store takes
ciphertext; it does not know keys.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Fault
from isthmus.kit.objects.place import read_credentials
from isthmus.kit.objects.port import ObjectStore, check_name, check_prefix, check_range, is_name, missing, taken
from isthmus.zone.users import User

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from isthmus.zone.settings import ZoneSettings

__all__ = ["DirectoryStore", "MemoryStore", "ObjectStore", "open_store"]


def open_store(settings: ZoneSettings, user: User) -> ObjectStore:
    """Return the zone's store for one of its users, `INGEST` or `COMPUTE`. To a folder they are the same.

    Raises:
        Fault: `CONFIGURATION`: the user's credentials cannot be used. `STORAGE_FAILED`: the folder cannot be.
    """
    if settings.s3 is None:
        return DirectoryStore(settings.store)
    from isthmus.kit.objects.s3 import S3Store  # noqa: PLC0415 - only a zone on S3 loads it

    return S3Store(settings.s3, read_credentials(settings.s3.ingest if user is User.INGEST else settings.s3.compute))


class MemoryStore:
    """An object store that forgets, for tests and for a zone that is thrown away."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: Iterable[bytes] | bytes) -> None:
        """Store `data` under a name that is not taken."""
        check_name(name)
        whole = b"".join(_pieces(data))
        with self._lock:
            if name in self._objects:
                raise taken(name)
            self._objects[name] = whole

    def get(self, name: str) -> bytes:
        """Return an object whole."""
        check_name(name)
        try:
            return self._objects[name]
        except KeyError:
            raise missing(name) from None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on."""
        check_range(offset, length)
        return self.get(name)[offset : offset + length]

    def size(self, name: str) -> int:
        """Return an object's size in bytes."""
        return len(self.get(name))

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names that begin with `prefix`, sorted."""
        check_prefix(prefix)
        yield from sorted(name for name in self._objects if name.startswith(prefix))


class DirectoryStore:
    """An object store in a folder of a file system that has hard links.

    An object is written to `<root>/.incoming`, synced, and linked to its name: a link fails where the name is taken.
    Its writer holds a lock on it meanwhile; what a crashed writer left there has none, and is cleared at the next
    start.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / ".incoming"
        with _storage(f"The store in {root} cannot be opened."):
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._clear_leftovers()

    def put(self, name: str, data: Iterable[bytes] | bytes) -> None:
        """Store `data` under a name that is not taken."""
        path = self._path(name)
        if path.exists():
            raise taken(name)
        with _storage(f"The object {name} cannot be written."), self._scratch() as (file, scratch):
            for piece in _pieces(data):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            self._make_folders(path.parent)
            try:
                os.link(scratch, path)
            except FileExistsError:
                raise taken(name) from None
            _sync_folder(path.parent)

    def get(self, name: str) -> bytes:
        """Return an object whole."""
        with self._reading(name) as file:
            return file.read()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on."""
        check_range(offset, length)
        with self._reading(name) as file:
            file.seek(offset)
            return file.read(length)

    def size(self, name: str) -> int:
        """Return an object's size in bytes."""
        with self._reading(name) as file:
            return os.fstat(file.fileno()).st_size

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names that begin with `prefix`, sorted."""
        check_prefix(prefix)
        folder = self._root / prefix.rpartition("/")[0]
        found = (path.relative_to(self._root).as_posix() for path in folder.rglob("*.*") if path.is_file())
        yield from sorted(name for name in found if name.startswith(prefix) and is_name(name))

    def _path(self, name: str) -> Path:
        check_name(name)
        return self._root / name

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[BinaryIO]:
        path = self._path(name)
        with _storage(f"The object {name} cannot be read."):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise missing(name) from None
            with file:
                yield file

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[tuple[BinaryIO, Path]]:
        """Make a file in `.incoming`, locked while it is open and gone afterwards."""
        scratch = self._incoming / secrets.token_hex(16)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file, scratch
        finally:
            scratch.unlink(missing_ok=True)

    def _make_folders(self, folder: Path) -> None:
        """Make `folder`; sync each new folder's parent, or a power cut could take it with what it holds."""
        if folder.is_dir():
            return
        self._make_folders(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)

    def _clear_leftovers(self) -> None:
        for leftover in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError, BlockingIOError), leftover.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()


def _pieces(data: Iterable[bytes] | bytes) -> Iterable[bytes]:
    return (data,) if isinstance(data, bytes) else data


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "Free space, or check the disk and the folder's owner."
        raise Fault(Code.STORAGE_FAILED, what, why=error.strerror or "", remedy=remedy) from error
