"""The object store: sealed bytes by name, as a port and two adapters.

Rules:
1. An object is written once. A second `put` of a name is refused, whatever it holds.
2. An object is whole or absent: while it is written, and after a crash, nobody can see or read a part of it.
3. A name is folders and a leaf. Folders have no dot, the leaf has one extension, so no object can stand in another's
   way, no name can climb out of the store, and every adapter (also an S3 one) takes the same names.
4. A store takes ciphertext; it does not know keys. It says nothing of what is inside.

Every call blocks: call it through `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING, Protocol

from isthmus.contracts.errors import Code, Fault, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

_NAME = re.compile(r"(?=.{1,200}\Z)(?:[a-z0-9][a-z0-9_-]*/)*[a-z0-9][a-z0-9_-]*\.[a-z0-9]{1,16}")
_PREFIX = re.compile(r"[a-z0-9/_.-]{0,200}")


class ObjectStore(Protocol):
    """Where sealed files are kept.

    Raises (every method):
        Refusal: `INPUT_INVALID` for a name or a range that is none, `NOT_FOUND`, `ALREADY_EXISTS`.
        Fault: `STORAGE_FAILED` when the medium fails or is full.
    """

    def put(self, name: str, data: Iterable[bytes] | bytes) -> None:
        """Store the bytes of `data` under a name that is not taken. When this returns they survive a power cut."""
        ...

    def get(self, name: str) -> bytes:
        """Return an object whole."""
        ...

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on: fewer where the object ends."""
        ...

    def size(self, name: str) -> int:
        """Return an object's size in bytes."""
        ...

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names that begin with `prefix`, sorted."""
        ...


class MemoryStore:
    """An object store that forgets, for tests and for a zone that is thrown away."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: Iterable[bytes] | bytes) -> None:
        """Store `data` under a name that is not taken."""
        _check_name(name)
        whole = b"".join(_pieces(data))
        with self._lock:
            if name in self._objects:
                raise _taken(name)
            self._objects[name] = whole

    def get(self, name: str) -> bytes:
        """Return an object whole."""
        _check_name(name)
        try:
            return self._objects[name]
        except KeyError:
            raise _missing(name) from None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on."""
        _check_range(offset, length)
        return self.get(name)[offset : offset + length]

    def size(self, name: str) -> int:
        """Return an object's size in bytes."""
        return len(self.get(name))

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names that begin with `prefix`, sorted."""
        _check_prefix(prefix)
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
            raise _taken(name)
        with _storage(f"The object {name} cannot be written."), self._scratch() as (file, scratch):
            for piece in _pieces(data):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            self._make_folders(path.parent)
            try:
                os.link(scratch, path)
            except FileExistsError:
                raise _taken(name) from None
            _sync_folder(path.parent)

    def get(self, name: str) -> bytes:
        """Return an object whole."""
        with self._reading(name) as file:
            return file.read()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on."""
        _check_range(offset, length)
        with self._reading(name) as file:
            file.seek(offset)
            return file.read(length)

    def size(self, name: str) -> int:
        """Return an object's size in bytes."""
        with self._reading(name) as file:
            return os.fstat(file.fileno()).st_size

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names that begin with `prefix`, sorted."""
        _check_prefix(prefix)
        folder = self._root / prefix.rpartition("/")[0]
        found = (path.relative_to(self._root).as_posix() for path in folder.rglob("*.*") if path.is_file())
        yield from sorted(name for name in found if name.startswith(prefix) and _NAME.fullmatch(name))

    def _path(self, name: str) -> Path:
        _check_name(name)
        return self._root / name

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[BinaryIO]:
        path = self._path(name)
        with _storage(f"The object {name} cannot be read."):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                raise _missing(name) from None
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


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise Refusal(Code.INPUT_INVALID, "That is no name of an object.", why=f"A name matches {_NAME.pattern}.")


def _check_prefix(prefix: str) -> None:
    if _PREFIX.fullmatch(prefix) is None or ".." in prefix or prefix.startswith(("/", ".")):
        raise Refusal(Code.INPUT_INVALID, "That is no prefix of an object's name.")


def _check_range(offset: int, length: int) -> None:
    if offset < 0 or length < 0:
        raise Refusal(Code.INPUT_INVALID, "A range starts at 0 or later and is not negative.")


def _taken(name: str) -> Refusal:
    return Refusal(Code.ALREADY_EXISTS, f"The object {name} exists.", why="An object is written once.")


def _missing(name: str) -> Refusal:
    return Refusal(Code.NOT_FOUND, f"There is no object {name}.")


@contextlib.contextmanager
def _storage(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "Free space, or check the disk and the folder's owner."
        raise Fault(Code.STORAGE_FAILED, what, why=error.strerror or "", remedy=remedy) from error
