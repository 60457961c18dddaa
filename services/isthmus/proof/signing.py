"""Signed envelopes: DSSE v1 with two signatures, Ed25519 (RFC 8032) and ML-DSA-65 (FIPS 204), both required.

Rules:
1. An envelope has exactly one spelling: canonical JSON, two signatures, Ed25519 first, both of one key.
2. What is signed is the DSSE pre-authentication encoding, so a payload cannot be passed off under another type.
3. ML-DSA signs under the context `isthmus/v1`.
4. A payload is handed out after both signatures have been checked; `parse_envelope` says who *claims* to have signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.keys import HybridKey
from isthmus.proof import canonical

VerifyKey = HybridKey
"""The public half, as it stands in rosters and roots."""

CONTEXT = b"isthmus/v1"
ED25519_SIGNATURE_SIZE = 64
MLDSA65_SIGNATURE_SIZE = 3309
_ED25519, _MLDSA65 = ":ed25519", ":mldsa65"


class SigningKey:
    """A pair of private keys, Ed25519 and ML-DSA-65, that sign together."""

    __slots__ = ("_ed25519", "_mldsa65", "_verify_key")

    def __init__(self, ed25519: Ed25519PrivateKey, mldsa65: MLDSA65PrivateKey) -> None:
        """Take the two private keys."""
        self._ed25519 = ed25519
        self._mldsa65 = mldsa65
        self._verify_key = HybridKey.from_bytes(
            ed25519.public_key().public_bytes_raw(),
            mldsa65.public_key().public_bytes_raw(),
        )

    @classmethod
    def generate(cls) -> Self:
        """Make a new pair from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate(), MLDSA65PrivateKey.generate())

    @classmethod
    def from_seeds(cls, ed: bytes, mldsa: bytes) -> Self:
        """Make the pair again from its two seeds of 32 bytes.

        Raises:
            ValueError: a seed of another length.
        """
        return cls(Ed25519PrivateKey.from_private_bytes(ed), MLDSA65PrivateKey.from_seed_bytes(mldsa))

    def to_seeds(self) -> tuple[bytes, bytes]:
        """Return the two seeds, 32 bytes each: the secret itself, for a key store."""
        return self._ed25519.private_bytes_raw(), self._mldsa65.private_bytes_raw()

    @property
    def verify_key(self) -> HybridKey:
        """The public half."""
        return self._verify_key

    def sign(self, payload_type: str, payload: bytes) -> bytes:
        """Return the canonical bytes of an envelope over `payload`.

        ML-DSA is randomised, so two envelopes of one payload differ: store what was sent, do not sign again.

        Raises:
            ValueError: `payload_type` is not NFC.
        """
        message = _pre_authentication(payload_type, payload)
        envelope = Envelope(
            payload_type=payload_type,
            payload=payload,
            keyid=self._verify_key.keyid,
            ed25519=self._ed25519.sign(message),
            mldsa65=self._mldsa65.sign(message, context=CONTEXT),
        )
        return envelope.to_bytes()

    def sign_note(self, message: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature alone, for signed notes (see `proof.checkpoint`)."""
        return self._ed25519.sign(message)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The parts of an envelope. Nothing in it has been checked until `verify` has.

    Attributes:
        payload_type: media type of the payload.
        payload: the bytes as they were signed.
        keyid: the key that claims to have signed.
    """

    payload_type: str
    payload: bytes
    keyid: str
    ed25519: bytes = field(repr=False)
    mldsa65: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.encode(
            {
                "payload": canonical.to_base64(self.payload),
                "payloadType": self.payload_type,
                "signatures": [
                    {"keyid": self.keyid + _ED25519, "sig": canonical.to_base64(self.ed25519)},
                    {"keyid": self.keyid + _MLDSA65, "sig": canonical.to_base64(self.mldsa65)},
                ],
            }
        )


def parse_envelope(data: bytes, *, limit: int = canonical.DEFAULT_LIMIT) -> Envelope:
    """Take an envelope apart without checking its signatures: to find out which key to check it with.

    Raises:
        Refusal: `TOO_LARGE` over `limit` bytes; `MALFORMED` when it is not an envelope in its one spelling.
    """
    value = canonical.decode(data, limit=limit)
    try:
        envelope = _take_apart(value)
    except ValueError:
        raise _malformed() from None
    sizes = (len(envelope.ed25519), len(envelope.mldsa65))
    # The comparison holds every rule of spelling: order, base64, no further field, both signatures of one key.
    if sizes != (ED25519_SIGNATURE_SIZE, MLDSA65_SIGNATURE_SIZE) or envelope.to_bytes() != data:
        raise _malformed()
    return envelope


def verify(data: bytes, payload_type: str, key: HybridKey, *, limit: int = canonical.DEFAULT_LIMIT) -> bytes:
    """Check an envelope and return its payload.

    Raises:
        Refusal: `TOO_LARGE` and `MALFORMED` as `parse_envelope`; `SIGNATURE_INVALID` when the type is another one,
            the key is another one, or either signature does not fit.
    """
    envelope = parse_envelope(data, limit=limit)
    if envelope.payload_type != payload_type:
        raise _invalid("its payload is of another type")
    if envelope.keyid != key.keyid:
        raise _invalid("it was signed by another key")
    message = _pre_authentication(envelope.payload_type, envelope.payload)
    ed25519, mldsa65 = _public_keys(key.ed25519_bytes, key.mldsa65_bytes)
    try:
        ed25519.verify(envelope.ed25519, message)
        mldsa65.verify(envelope.mldsa65, message, context=CONTEXT)
    except InvalidSignature:
        raise _invalid("a signature does not fit what it stands under") from None
    return envelope.payload


def _pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE v1's PAE(type, body): `DSSEv1`, then each part after its length, one space between."""
    name = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def _take_apart(value: canonical.JsonValue) -> Envelope:
    """Find the parts by their places; raises `ValueError` where one is missing."""
    match value:
        case {
            "payload": str(payload),
            "payloadType": str(payload_type),
            "signatures": [{"keyid": str(keyid), "sig": str(ed25519)}, {"sig": str(mldsa65)}],
        }:
            return Envelope(
                payload_type=payload_type,
                payload=canonical.from_base64(payload),
                keyid=keyid.removesuffix(_ED25519),
                ed25519=canonical.from_base64(ed25519),
                mldsa65=canonical.from_base64(mldsa65),
            )
        case _:
            raise ValueError("not an envelope")


@lru_cache(maxsize=64)
def _public_keys(ed25519: bytes, mldsa65: bytes) -> tuple[Ed25519PublicKey, MLDSA65PublicKey]:
    """Unpack a public key once: ML-DSA's takes about as long as checking a signature."""
    return Ed25519PublicKey.from_public_bytes(ed25519), MLDSA65PublicKey.from_public_bytes(mldsa65)


def _malformed() -> Refusal:
    return Refusal(Code.MALFORMED, "the envelope is malformed", why="it is not a DSSE envelope with two signatures")


def _invalid(why: str) -> Refusal:
    return Refusal(Code.SIGNATURE_INVALID, "the envelope's signatures do not hold", why=why)
