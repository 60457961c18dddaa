"""Public keys as they stand in genesis entries, rosters and roots.

A key of the wrong length, in a second spelling, or of an order so small that anyone can sign for it is no key.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from isthmus.contracts.wire import Base64, Wire

ED25519_SIZE = 32
MLDSA65_SIZE = 1952
MLKEM768_X25519_SIZE = 1216

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P


def _exactly(size: int) -> AfterValidator:
    """Hold base64 text to `size` bytes and to the one spelling that they have."""

    def check(text: str) -> str:
        raw = base64.b64decode(text, validate=True)
        if len(raw) != size or base64.b64encode(raw).decode() != text:
            raise ValueError(f"must be the base64 of {size} bytes")
        return text

    return AfterValidator(check)


def _not_of_small_order(text: str) -> str:
    """Refuse the Ed25519 points of order 1, 2, 4 and 8: under them a signature can fit every message.

    On the curve -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032, section 5.1) the y of such a point is a root of
    y (y^2 - 1) (d y^4 + 2 y^2 - 1): y = 0 has order 4, y^2 = 1 has order 1 or 2, and a point that doubles to y = 0
    has y^2 = -x^2. An y that is not reduced is refused too (section 5.1.3, step 1).
    """
    y = int.from_bytes(base64.b64decode(text), "little") & (2**255 - 1)
    square = y * y % _P
    if y >= _P or y * (square - 1) * (_D * square * square + 2 * square - 1) % _P == 0:
        raise ValueError("must be an Ed25519 key of full order")
    return text


class HybridKey(Wire):
    """The public half of a hybrid signing key; a signature counts when both parts fit.

    Attributes:
        ed25519: 32 bytes (RFC 8032), base64.
        mldsa65: 1952 bytes (FIPS 204), base64.
    """

    ed25519: Annotated[Base64, Field(max_length=44), _exactly(ED25519_SIZE), AfterValidator(_not_of_small_order)]
    mldsa65: Annotated[Base64, Field(max_length=2604), _exactly(MLDSA65_SIZE)]

    @classmethod
    def from_bytes(cls, ed25519: bytes, mldsa65: bytes) -> Self:
        """Return the key whose parts are these raw bytes."""
        return cls(ed25519=base64.b64encode(ed25519).decode(), mldsa65=base64.b64encode(mldsa65).decode())

    @property
    def ed25519_bytes(self) -> bytes:
        """The 32 raw bytes."""
        return base64.b64decode(self.ed25519)

    @property
    def mldsa65_bytes(self) -> bytes:
        """The 1952 raw bytes."""
        return base64.b64decode(self.mldsa65)

    @property
    def keyid(self) -> str:
        """`hybrid:` and the first 32 hexadecimal digits of the SHA-256 of the key's canonical bytes."""
        canonical = f'{{"ed25519":"{self.ed25519}","mldsa65":"{self.mldsa65}"}}'
        return "hybrid:" + hashlib.sha256(canonical.encode()).hexdigest()[:32]


class HpkeKey(Wire):
    """The public key that content keys are wrapped to.

    Attributes:
        mlkem768_x25519: 1184 bytes of ML-KEM-768 (FIPS 203) and 32 of X25519 (RFC 7748), base64.
    """

    mlkem768_x25519: Annotated[Base64, Field(max_length=1624), _exactly(MLKEM768_X25519_SIZE)]

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the key whose 1216 bytes are `raw`."""
        return cls(mlkem768_x25519=base64.b64encode(raw).decode())

    @property
    def raw(self) -> bytes:
        """The 1216 raw bytes."""
        return base64.b64decode(self.mlkem768_x25519)
