"""Checkpoints of a ledger and their cosignatures, as signed notes.

Rules (C2SP signed-note, tlog-checkpoint, tlog-cosignature; the parts of `SHOULD` that are held to here):
1. A checkpoint is three lines, origin, size, root, each in its one spelling; extension lines are refused.
2. A log signs with Ed25519 (type 0x01), a cosigner with cosignature/v1 (type 0x04), which adds the time.
3. Lines of unknown keys are ignored; a line of the known key must hold and stands once.
4. Names and origins are URLs without a scheme: no space, no plus, no control character. So no note reads like a DSSE
   encoding (`DSSEv1 ...`) or a cosignature's message (whose second line is not a size), which the same key signs.

These carry Ed25519 alone. Where a checkpoint is evidence between sites, it also stands inside a hybrid envelope.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.wire import MAX_INTEGER
from isthmus.proof.canonical import from_base64, to_base64

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.contracts.keys import HybridKey
    from isthmus.proof.signing import SigningKey

MAX_NOTE = 1 << 17
MAX_SIGNATURES = 32
_ID_SIZE, _TIME_SIZE, _SIGNATURE_SIZE = 4, 8, 64
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_DASH = "\u2014"


@unique
class KeyKind(IntEnum):
    """Signature types of C2SP signed-note."""

    CHECKPOINT = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class Head:
    """A log's tree head.

    Attributes:
        origin: the log's name, such as `isthmus.example/cn-shanghai/crossings`.
        size: number of leaves.
        root: root hash of the tree of that size.

    Raises:
        ValueError: an origin that is no name, a size out of range.
    """

    origin: str
    size: int
    root: Digest

    def __post_init__(self) -> None:
        _check_name(self.origin)
        if not 0 <= self.size <= MAX_INTEGER:
            raise ValueError("a size lies between 0 and 2^53")

    @property
    def text(self) -> str:
        """The three lines that are signed, each ending in a newline."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root.raw)}\n"


Line: TypeAlias = tuple[str, bytes]
"""One signature line: the key's name, then key id and signature."""


def sign_checkpoint(head: Head, name: str, key: SigningKey) -> str:
    """Return the note: the head's text, a blank line, and the log's signature line.

    Args:
        head: what to sign. A log never signs a head that is inconsistent with one it signed before: the caller's part.
        name: the log's key name; by custom the origin.
        key: its Ed25519 part signs.

    Raises:
        ValueError: `name` is no name.
    """
    id_ = _key_id(name, key.verify_key, KeyKind.CHECKPOINT)
    return _note(head, [(name, id_ + key.sign_note(head.text.encode()))])


def cosign(note: str, name: str, key: SigningKey, time: int) -> str:
    """Return the whole note with this cosigner's line added at the end; an earlier line of the same key goes.

    The log's own signature and the consistency with the last head are the caller's to check first.

    Args:
        note: a checkpoint.
        name: the cosigner's key name.
        key: its Ed25519 part signs.
        time: seconds since 1970, UTC.

    Raises:
        Refusal: `EVIDENCE_INVALID` when `note` is no checkpoint.
        ValueError: `name` is no name, `time` is out of range.
    """
    if not 0 <= time <= MAX_INTEGER:
        raise ValueError("a time lies between 0 and 2^53")
    head, lines = _read(note)
    id_ = _key_id(name, key.verify_key, KeyKind.COSIGNATURE)
    others = [line for line in lines if not (line[0] == name and line[1].startswith(id_))]
    if len(others) == MAX_SIGNATURES:
        _refuse("it has no room for another signature")
    signed = time.to_bytes(_TIME_SIZE, "big") + key.sign_note(_cosigned(head, time))
    return _note(head, [*others, (name, id_ + signed)])


def verify_checkpoint(note: str, origin: str, name: str, key: HybridKey) -> Head:
    """Return the head that the log signed.

    Raises:
        Refusal: `EVIDENCE_INVALID` when it is no checkpoint of `origin`; `SIGNATURE_INVALID` when the log's line is
            missing or does not hold.
        ValueError: `name` is no name.
    """
    head, lines = _read(note)
    if head.origin != origin:
        _refuse("it speaks of another log")
    _check_signature(_only_line(lines, name, key, KeyKind.CHECKPOINT), head.text.encode(), key)
    return head


def verify_cosignature(note: str, name: str, key: HybridKey) -> tuple[Head, int]:
    """Return the head that the cosigner saw and when, in seconds since 1970. Whose log it is, the caller compares.

    Raises:
        Refusal: `EVIDENCE_INVALID` when it is no checkpoint; `SIGNATURE_INVALID` when the cosigner's line is missing
            or does not hold.
        ValueError: `name` is no name.
    """
    head, lines = _read(note)
    signed = _only_line(lines, name, key, KeyKind.COSIGNATURE)
    time = int.from_bytes(signed[:_TIME_SIZE], "big")
    if time > MAX_INTEGER:
        _refuse("its time is out of range")
    _check_signature(signed[_TIME_SIZE:], _cosigned(head, time), key)
    return head, time


def verifier_key(name: str, key: HybridKey, kind: KeyKind) -> str:
    """Return the key as C2SP tools take it: `<name>+<key id in hex>+<base64 of type and key>`.

    Raises:
        ValueError: `name` is no name.
    """
    return f"{name}+{_key_id(name, key, kind).hex()}+{to_base64(_typed(key, kind))}"


def _cosigned(head: Head, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{head.text}".encode()


def _typed(key: HybridKey, kind: KeyKind) -> bytes:
    return bytes([kind]) + key.ed25519_bytes


def _key_id(name: str, key: HybridKey, kind: KeyKind) -> bytes:
    """Return the first four bytes of SHA-256(name || newline || type || key)."""
    _check_name(name)
    return hashlib.sha256(name.encode() + b"\n" + _typed(key, kind)).digest()[:_ID_SIZE]


def _check_name(name: str) -> None:
    if not name or any(c.isspace() or c < " " or c == "+" for c in name):
        raise ValueError("a name holds no space, plus or control character, and is not empty")
    name.encode()


def _note(head: Head, lines: Iterable[Line]) -> str:
    return head.text + "\n" + "".join(f"{_DASH} {name} {to_base64(raw)}\n" for name, raw in lines)


def _read(note: str) -> tuple[Head, list[Line]]:
    """Take a note apart without checking a signature. What comes back is spelled as it was given."""
    if len(note) > MAX_NOTE:
        raise Refusal(Code.EVIDENCE_INVALID, "the checkpoint is too large", why=f"over {MAX_NOTE} characters")
    text, blank, signatures = note.rpartition("\n\n")
    try:
        head, lines = _head(text), [_line(line) for line in signatures.split("\n")[:-1]]
    except ValueError:
        _refuse("a line is not as the format has it")
    if not blank or not 0 < len(lines) <= MAX_SIGNATURES or _note(head, lines) != note:
        _refuse("it is not three lines, a blank one, then signature lines, each ended by a newline")
    return head, lines


def _head(text: str) -> Head:
    origin, size, root = text.split("\n")
    if _DECIMAL.fullmatch(size) is None:
        raise ValueError("not a size")
    return Head(origin=origin, size=int(size), root=Digest.from_bytes(from_base64(root)))


def _line(line: str) -> Line:
    dash, name, encoded = line.split(" ")
    raw = from_base64(encoded)
    _check_name(name)
    if dash != _DASH or len(raw) <= _ID_SIZE:
        raise ValueError("not a signature line")
    return name, raw


def _only_line(lines: list[Line], name: str, key: HybridKey, kind: KeyKind) -> bytes:
    """Return what follows the key id on the one line of this key."""
    id_ = _key_id(name, key, kind)
    known = [raw[_ID_SIZE:] for line_name, raw in lines if line_name == name and raw.startswith(id_)]
    expected = _SIGNATURE_SIZE + (_TIME_SIZE if kind is KeyKind.COSIGNATURE else 0)
    if len(known) != 1 or len(known[0]) != expected:
        raise Refusal(Code.SIGNATURE_INVALID, "the signature is missing", why=f"{name} has not signed it just once")
    return known[0]


def _check_signature(signature: bytes, message: bytes, key: HybridKey) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.ed25519_bytes).verify(signature, message)
    except InvalidSignature:
        raise Refusal(
            Code.SIGNATURE_INVALID,
            "the signature does not hold",
            why="it was made by another key or over another text",
        ) from None


def _refuse(why: str) -> NoReturn:
    raise Refusal(Code.EVIDENCE_INVALID, "this is no checkpoint", why=why)
