"""Sealed payloads on disk: one synced file a crossing, until it is no longer needed.

Files are recycled: overwriting one is far cheaper than making a new one durable. Nothing here is plain text.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import uuid
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator
    from pathlib import Path

    from isthmus.proof.sealing import Buffer

PIECE = 1 << 20
MAX_FREE = 8
_NAME = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """Sealed blobs by digest, in one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._lock = threading.Lock()
        for stray in directory.glob("new-*"):  # written when the process died: nobody refers to it
            stray.unlink()

    def put(self, pieces: Iterable[Buffer], *, limit: int, expected: Digest | None = None) -> tuple[Digest, int]:
        """Write and sync `pieces`; return their digest and size.

        Raises:
            Refusal: they are more than `limit` bytes, or their digest is not `expected`. Nothing remains.
            Fault: the disk cannot take them. Nothing remains.
        """
        path = self._directory / f"new-{uuid.uuid4().hex}"
        digest, size = hashlib.sha256(), 0
        try:
            self._take_free(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for piece in pieces:
                    size += len(piece)
                    _require_at_most(size, limit)
                    digest.update(piece)
                    file.write(piece)
                if os.fstat(file.fileno()).st_size != size:
                    file.truncate(size)
                os.fdatasync(file.fileno())
            found = Digest.from_bytes(digest.digest())
            _require_expected(found, expected)
            path.replace(self._path(found))
            self._sync_directory()
        except OSError as error:
            path.unlink(missing_ok=True)
            raise Fault(Code.STORAGE_FAILED, "A sealed payload cannot be stored.", why=error.strerror or "") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return found, size

    def read(self, digest: Digest, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the blob's bytes from `start`, `length` of them or all.

        Raises:
            Fault: there is no such blob.
        """
        try:
            file = self._path(digest).open("rb", buffering=0)
        except OSError as error:
            raise Fault(Code.STORAGE_FAILED, "A sealed payload is missing.", why=error.strerror or "") from error
        with file:
            file.seek(start)
            left = length
            while left is None or left > 0:
                piece = file.read(PIECE if left is None else min(PIECE, left))
                if not piece:
                    return
                left = None if left is None else left - len(piece)
                yield piece

    def has(self, digest: Digest) -> bool:
        """Tell whether the blob is there."""
        return self._path(digest).exists()

    def release(self, digest: Digest) -> None:
        """Let a blob go: its file is kept for the next one."""
        with self._lock:
            free = len(list(self._directory.glob("free-*")))
            path = self._path(digest)
            if not path.exists():
                return
            if free < MAX_FREE:
                path.replace(self._directory / f"free-{uuid.uuid4().hex}")
            else:
                path.unlink()

    def keep_only(self, needed: Container[Digest]) -> None:
        """Let every other blob go: one whose crossing was never drafted, or whose release was cut short."""
        for path in list(self._directory.iterdir()):
            if _NAME.fullmatch(path.name) and (digest := Digest(f"sha256:{path.name}")) not in needed:
                self.release(digest)

    def _take_free(self, path: Path) -> None:
        with self._lock:
            for free in self._directory.glob("free-*"):
                free.replace(path)
                return

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _path(self, digest: Digest) -> Path:
        return self._directory / digest.removeprefix("sha256:")


def _require_expected(found: Digest, expected: Digest | None) -> None:
    """Other bytes than expected must not even touch a blob that is there under their own digest."""
    if expected is not None and found != expected:
        raise Refusal(Code.PAYLOAD_ALTERED, "The sealed payload is not the one that the manifest names.")


def _require_at_most(size: int, limit: int) -> None:
    if size > limit:
        raise Refusal(Code.TOO_LARGE, f"The sealed payload is larger than {limit} bytes.")
