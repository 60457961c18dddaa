"""Sealing: a payload under a fresh content key, and that key wrapped to each recipient.

Rules:
1. Content keys and file keys are wrapped by HPKE (RFC 9180): MLKEM768-X25519, HKDF-SHA256, AES-256-GCM.
2. Bulk goes through Cobblestone-256 (C2SP chunked-encryption: SHA-512, AES-256-GCM, 16 KiB chunks).
3. Both are bound to a context, under the prefix `isthmus/v1/`: what was sealed for one crossing opens for no other.
4. A plaintext is handed out whole or not at all: changed, cut short, reordered or under another context, it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeAlias

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.keys import HpkeKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Buffer: TypeAlias = bytes | bytearray | memoryview

PREFIX = b"isthmus/v1/"
WRAP_OVERHEAD = 1136
PIECE_SIZE = 1 << 20

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_SEED, _MLKEM_PUBLIC, _X25519 = 64, 1184, 32
_CHUNK, _TAG, _HEADER = 1 << 14, 16, 24 + 32


class SealingKey:
    """A private key that opens what was wrapped to its public half."""

    __slots__ = ("_mlkem", "_pair", "_x25519")

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        """Take the two private keys."""
        self._mlkem = mlkem
        self._x25519 = x25519
        self._pair = MLKEM768X25519PrivateKey(mlkem, x25519)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's generator."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Make a key again from its 96 bytes: the ML-KEM seed (64), then the X25519 scalar (32).

        Raises:
            ValueError: another length.
        """
        if len(raw) != _MLKEM_SEED + _X25519:
            raise ValueError(f"a sealing key has {_MLKEM_SEED + _X25519} bytes")
        return cls(
            MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED]),
            X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED:]),
        )

    def to_bytes(self) -> bytes:
        """Return the 96 bytes: the secret itself, for a key store."""
        return self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    @property
    def public(self) -> HpkeKey:
        """The public half."""
        return HpkeKey.from_bytes(
            self._mlkem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw()
        )

    def open(self, wrapped: bytes, *, context: bytes) -> bytes:
        """Return the secret that `wrap` was given.

        Raises:
            Refusal: `PAYLOAD_ALTERED` when it was changed, wrapped to another key or under another context.
        """
        try:
            return _SUITE.decrypt(wrapped, self._pair, info=PREFIX + context)
        except (InvalidTag, ValueError):
            raise _altered("the wrapped key does not open") from None


def wrap(secret: bytes, to: HpkeKey, *, context: bytes) -> bytes:
    """Return `secret` sealed to `to`: the KEM's 1120 bytes, then ciphertext and tag; 1136 bytes more than `secret`.

    Raises:
        Refusal: `MALFORMED` when `to` has the right length but is no usable key.
    """
    try:
        public = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(to.raw[:_MLKEM_PUBLIC]),
            X25519PublicKey.from_public_bytes(to.raw[_MLKEM_PUBLIC:]),
        )
        return _SUITE.encrypt(secret, public, info=PREFIX + context)
    except ValueError:
        raise Refusal(
            Code.MALFORMED,
            "the recipient's key cannot be used",
            why="it is not a point of X25519 of full order with an ML-KEM-768 key",
            remedy="Ask for the key again by another way.",
        ) from None


def new_content_key() -> bytes:
    """Return 32 bytes from the operating system's generator, to seal one payload."""
    return Cobblestone256Encryptor.generate_key()


def sealed_size(plaintext_size: int) -> int:
    """Return the exact number of sealed bytes.

    A header of 56 bytes (salt, key commitment), then chunks of 16 KiB, each with a tag of 16 bytes; the last one is
    always shorter than 16 KiB, and empty where it must be.

    >>> sealed_size(0), sealed_size(16384)
    (72, 16472)
    """
    return _HEADER + plaintext_size + _TAG * (plaintext_size // _CHUNK + 1)


def seal(key: bytes, plaintext: Buffer, *, context: bytes) -> Iterator[bytes]:
    """Yield the sealed bytes in pieces of about 1 MiB, `sealed_size(len(plaintext))` in all.

    `plaintext` is read as the pieces are taken and must stay as it is until the last one.

    Raises:
        ValueError: `key` has another length than 32 bytes.
    """
    return _pieces(Cobblestone256Encryptor(key, PREFIX + context), memoryview(plaintext).cast("B"))


def _pieces(encryptor: Cobblestone256Encryptor, plaintext: memoryview) -> Iterator[bytes]:
    for start in range(0, len(plaintext), PIECE_SIZE):
        yield encryptor.update(plaintext[start : start + PIECE_SIZE])
    yield encryptor.finalize()


def open_sealed(key: bytes, chunks: Iterable[Buffer], *, context: bytes) -> bytearray:
    """Return the plaintext of the sealed bytes in `chunks`, however they are cut.

    Raises:
        Refusal: `PAYLOAD_ALTERED` when the bytes are not, whole and in order, what `seal` gave for key and context.
        ValueError: `key` has another length than 32 bytes.
    """
    decryptor = Cobblestone256Decryptor(key, PREFIX + context)
    plaintext = bytearray()
    try:
        for chunk in chunks:
            plaintext += decryptor.update(chunk)
        plaintext += decryptor.finalize()
    except InvalidTag:
        raise _altered("the sealed payload does not open") from None
    return plaintext


def _altered(what: str) -> Refusal:
    return Refusal(
        Code.PAYLOAD_ALTERED,
        what,
        why="it was changed, cut short, or sealed for another recipient or context",
    )
