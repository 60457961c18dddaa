"""The object store's port: what every adapter holds to.

Rules:
1. An object is written once. A second `put` of a name is refused, whatever it holds.
2. An object is whole or absent: while it is written, and after a crash, nobody can see or read a part of it.
3. A name is folders and a leaf. Folders have no dot, the leaf has one extension, so no object can stand in another's
   way, no name can climb out of the store, and every adapter takes the same names.
4. A store knows no keys and says nothing of what is inside.

Every call blocks: call it through `asyncio.to_thread`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from isthmus.contracts.errors import Code, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME = re.compile(r"(?=.{1,200}\Z)(?:[a-z0-9][a-z0-9_-]*/)*[a-z0-9][a-z0-9_-]*\.[a-z0-9]{1,16}")
_PREFIX = re.compile(r"[a-z0-9/_.-]{0,200}")


class ObjectStore(Protocol):
    """Where objects are kept.

    Raises (every method):
        Refusal: `INPUT_INVALID` for a name or a range that is none, `NOT_FOUND`, `ALREADY_EXISTS`; of a remote store
            also `UNAUTHENTICATED` and `FORBIDDEN`.
        Fault: `STORAGE_FAILED` when the medium fails, is away or is full.
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


def is_name(name: str) -> bool:
    """Tell whether an object can have this name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Refuse what no object can be called."""
    if not is_name(name):
        raise Refusal(Code.INPUT_INVALID, "That is no name of an object.", why=f"A name matches {_NAME.pattern}.")


def check_prefix(prefix: str) -> None:
    """Refuse what no object's name can begin with."""
    if _PREFIX.fullmatch(prefix) is None or ".." in prefix or prefix.startswith(("/", ".")):
        raise Refusal(Code.INPUT_INVALID, "That is no prefix of an object's name.")


def check_range(offset: int, length: int) -> None:
    """Refuse a range that is none."""
    if offset < 0 or length < 0:
        raise Refusal(Code.INPUT_INVALID, "A range starts at 0 or later and is not negative.")


def taken(name: str) -> Refusal:
    """Return the refusal of a second object of one name."""
    return Refusal(Code.ALREADY_EXISTS, f"The object {name} exists.", why="An object is written once.")


def missing(name: str) -> Refusal:
    """Return the refusal of a name that no object has."""
    return Refusal(Code.NOT_FOUND, f"There is no object {name}.")
