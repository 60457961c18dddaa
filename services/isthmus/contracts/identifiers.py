"""Identifiers: strings that are checked when they are made, so that holding one means it is well formed.

Every id, digest and key name has a class of its own; a function that wants a `SiteId` cannot be handed a `PersonId`.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler


class Identifier(str):
    """A string held to its class's `pattern`.

    Raises:
        ValueError: the text does not match the whole pattern.
    """

    __slots__ = ()
    pattern: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")

    def __new__(cls, text: str) -> Self:
        """Check `text` and return it under this type."""
        if cls.pattern.fullmatch(text) is None:
            raise ValueError(f"not a {cls.__name__}: expected {cls.pattern.pattern}")
        return super().__new__(cls, text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse from a strict string; written out as a plain string."""
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True, max_length=256))


class Name(Identifier):
    """A short lower-case name such as `motion-forecast` or `2026q3`, at most 64 characters."""

    __slots__ = ()
    pattern = re.compile(r"(?=.{1,64}\Z)[a-z0-9]+(?:[-._][a-z0-9]+)*")


class SiteId(Identifier):
    """A site: a zone (`cn-shanghai`) or the coordinator's site (`hq`)."""

    __slots__ = ()
    pattern = re.compile(r"(?=.{2,32}\Z)[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


class PersonId(Identifier):
    """A person on the roster."""

    __slots__ = ()
    pattern = re.compile(r"(?=.{2,48}\Z)[a-z][a-z0-9]*(?:[-.][a-z0-9]+)*")


class OrganisationId(Identifier):
    """An organisation on the roster: the maker, a local partner."""

    __slots__ = ()
    pattern = re.compile(r"(?=.{2,48}\Z)[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


class Digest(Identifier):
    """A SHA-256 digest, `sha256:` and 64 lower-case hexadecimal digits."""

    __slots__ = ()
    pattern = re.compile(r"sha256:[0-9a-f]{64}")

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """Return the digest of `data`."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the digest whose 32 bytes are `raw`."""
        return cls("sha256:" + raw.hex())

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return bytes.fromhex(self[7:])


class OrderId(Digest):
    """An order's id: the digest of its canonical body."""

    __slots__ = ()


class CrossingId(Digest):
    """A crossing's id: the digest of its order, kind, recipient and slot (see `proof.ids`)."""

    __slots__ = ()


class JobId(Identifier):
    """A job at the coordinator: `job-` and 16 hexadecimal digits."""

    __slots__ = ()
    pattern = re.compile(r"job-[0-9a-f]{16}")


class FileId(Identifier):
    """One stored file of one column group: `file-` and 32 hexadecimal digits. It says nothing of what is inside."""

    __slots__ = ()
    pattern = re.compile(r"file-[0-9a-f]{32}")
