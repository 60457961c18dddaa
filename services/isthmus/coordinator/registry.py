"""The model registry's files: safetensors, each named by the digest of its bytes.

Rules:
1. A file appears whole and synced, or not at all; its name is the digest of what is in it.
2. What is read is hashed again: an altered file is refused, never handed out.
3. Space is used again: writing over a file is ten times cheaper than making one of 40 MB, and large models come every
   round. A file given back is a spare until it holds the next model.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPARES = 2


class Registry:
    """Models by digest, in one directory that belongs to one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        with _storing():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._spares = sorted(folder.glob("spare-*"))

    def put(self, payload: bytes | memoryview, digest: Digest) -> None:
        """Keep `payload` under its digest. When this returns it is on the disk.

        Raises:
            Fault: `STORAGE_FAILED`.
        """
        path = self._path(digest)
        with _storing():
            if path.exists():
                return
            spare = self._spare()
            try:
                _overwrite(spare, payload)
                spare.rename(path)
            except OSError:
                self._keep_spare(spare)
                raise
            _sync_folder(self._folder)

    def read(self, digest: Digest) -> bytes:
        """Return the bytes of a model.

        Raises:
            Refusal: `NOT_FOUND`; `FILE_ALTERED` when they are not the bytes of this digest.
        """
        try:
            payload = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise Refusal(
                Code.NOT_FOUND,
                "The registry does not hold this model.",
                remedy="Large models between evaluations are not kept: ask for the last, or one that was evaluated.",
            ) from None
        except OSError as error:
            raise _failed(error) from error
        if Digest.of(payload) != digest:
            raise Refusal(
                Code.FILE_ALTERED,
                f"The file of model {digest} does not hold that model.",
                why="It was changed after it was written.",
                remedy="Restore the registry from a backup.",
            )
        return payload

    def holds(self, digest: Digest) -> bool:
        """Say whether the model's file is there."""
        return self._path(digest).exists()

    def give_back(self, digest: Digest) -> None:
        """Let a model's file be written over."""
        spare = self._folder / f"spare-{secrets.token_hex(8)}"
        with _storing(), contextlib.suppress(FileNotFoundError):
            self._path(digest).rename(spare)
            self._keep_spare(spare)

    def _keep_spare(self, spare: Path) -> None:
        with self._lock:
            self._spares.append(spare)
            surplus = self._spares[SPARES:]
            del self._spares[SPARES:]
        for path in surplus:
            path.unlink(missing_ok=True)

    def _spare(self) -> Path:
        with self._lock:
            return self._spares.pop() if self._spares else self._folder / f"spare-{secrets.token_hex(8)}"

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest.raw.hex()}.safetensors"


def _overwrite(path: Path, payload: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        view = memoryview(payload)
        while view:
            view = view[file.write(view) :]
        file.truncate()
        os.fdatasync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(error) from error


def _failed(error: OSError) -> Fault:
    return Fault(
        Code.STORAGE_FAILED,
        "The model registry cannot be read or written.",
        why=error.strerror or "",
        remedy="See the disk's space and the folder's owner.",
    )
