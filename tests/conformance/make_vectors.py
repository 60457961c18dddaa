"""Makes `vectors/proof.json`: what another implementation of the wire format has to give, and to refuse.

Everything follows from fixed seeds, except ML-DSA signatures and HPKE encapsulations, which are random by design: a
recorded one is kept as long as it holds, so that the file stays the same. Sealed payloads are made by an
implementation of C2SP chunked-encryption written out here, whose salt can be fixed, and wrapped keys are opened by an
implementation of MLKEM768-X25519 and RFC 9180 written out here: so the vectors do not merely repeat one library.

Run: `python tests/conformance/make_vectors.py`
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from isthmus.contracts.errors import Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.proof import canonical, checkpoint, merkle, sealing, signing
from isthmus.proof.canonical import from_base64, to_base64

FILE = Path(__file__).parent / "vectors" / "proof.json"
PAYLOAD_TYPE = "application/vnd.isthmus.crossing+json"
ORIGIN, COSIGNER = "isthmus.example/cn-shanghai/crossings", "isthmus.example/hq"


def seed(label: str, size: int = 32) -> bytes:
    """Bytes that look random and follow from `label`."""
    return hashlib.shake_256(f"isthmus vectors: {label}".encode()).digest(size)


def canonical_vectors() -> dict[str, Any]:
    """Bytes that are canonical, and bytes that are not with the code of their refusal."""
    accepted = [
        "null", "true", "0", "-1", "9007199254740992", "-9007199254740992", '""', "[]", "{}", '[{"a":[]},null]',
        '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\U0001f600":5,"\uff21":3}',
        '"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\"\\\\/\u007f\u2028"', "[" * 32 + "]" * 32,
    ]  # fmt: skip
    refused = [
        "", "1.0", "1e0", "-0", "01", "NaN", "9007199254740993", "[1, 2]", "null\n", '{"a":1,"a":1}', '{"b":1,"a":1}',
        '{"\uff21":1,"\U0001f600":2}', '"e\u0301"', '"\\u0041"', '"\\u000A"', '"\\/"', '"\\ud800"', "[" * 33 + "]" * 33,
    ]  # fmt: skip
    data = [text.encode() for text in refused] + [b"\xff", b"\xef\xbb\xbfnull", '"a"'.encode("utf-16-le")]
    return {
        "accepted": [to_base64(text.encode()) for text in accepted],
        "refused": [{"data": to_base64(item), "code": "malformed"} for item in data],
    }


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """DSSE v1: PAE(type, body)."""
    name = payload_type.encode()
    return b" ".join([b"DSSEv1", str(len(name)).encode(), name, str(len(payload)).encode(), payload])


def envelope_vectors(recorded: dict[str, Any]) -> dict[str, Any]:
    """One signed envelope, and what must be refused in its place."""
    seeds = seed("ed25519"), seed("mldsa65")
    key = signing.SigningKey.from_seeds(*seeds)
    payload = b'{"sequence":7}'
    envelope = from_base64(recorded.get("envelope", ""))
    if not _holds(envelope, key):
        envelope = key.sign(PAYLOAD_TYPE, payload)
    value = json.loads(envelope)
    first, second = value["signatures"]
    spoiled = {
        "one signature": value | {"signatures": [first]},
        "signatures in the other order": value | {"signatures": [second, first]},
        "one signature twice": value | {"signatures": [first, first]},
        "a third signature": value | {"signatures": [first, second, first]},
        "an unknown field": value | {"note": ""},
    }
    invalid = {
        "another payload": value | {"payload": to_base64(b'{"sequence":8}')},
        "another type": value | {"payloadType": PAYLOAD_TYPE + "2"},
        "Ed25519 spoiled": value | {"signatures": [first | {"sig": _flip(first["sig"])}, second]},
        "ML-DSA spoiled": value | {"signatures": [first, second | {"sig": _flip(second["sig"])}]},
    }
    return {
        "ed25519_seed": to_base64(seeds[0]),
        "mldsa65_seed": to_base64(seeds[1]),
        "key": key.verify_key.model_dump(),
        "keyid": key.verify_key.keyid,
        "payload_type": PAYLOAD_TYPE,
        "payload": to_base64(payload),
        "pre_authentication": to_base64(pre_authentication(PAYLOAD_TYPE, payload)),
        "mldsa65_context": to_base64(signing.CONTEXT),
        "envelope": to_base64(envelope),
        "refused": [
            {"why": why, "code": code, "envelope": to_base64(canonical.encode(changed))}
            for code, group in (("malformed", spoiled), ("signature_invalid", invalid))
            for why, changed in group.items()
        ],
    }


def _holds(envelope: bytes, key: signing.SigningKey) -> bool:
    try:
        return signing.verify(envelope, PAYLOAD_TYPE, key.verify_key) == b'{"sequence":7}'
    except Refusal:
        return False


def _flip(encoded: str) -> str:
    raw = bytearray(from_base64(encoded))
    raw[0] ^= 1
    return to_base64(bytes(raw))


def expand(key: bytes, info: bytes, size: int, hash_: str) -> bytes:
    """HKDF-Expand (RFC 5869, section 2.3)."""
    done, block, count = b"", b"", 1
    while len(done) < size:
        block = hmac.digest(key, block + info + bytes([count]), hash_)
        done, count = done + block, count + 1
    return done[:size]


def cobblestone(key: bytes, plaintext: bytes, context: bytes, salt: bytes) -> bytes:
    """C2SP chunked-encryption with SHA-512 and AES-256-GCM, salt given."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + salt + context
    derived = expand(key, info, 32 + 12 + 32, "sha512")
    aead, nonce = AESGCM(derived[:32]), int.from_bytes(derived[32:44], "big")
    sealed = [salt, derived[44:]]
    for count in range(len(plaintext) // 16384 + 1):
        chunk = plaintext[count * 16384 : (count + 1) * 16384]
        sealed.append(aead.encrypt((nonce ^ count).to_bytes(12, "big"), chunk, None))
    return b"".join(sealed)


def sealing_vectors() -> list[dict[str, Any]]:
    """Sealed payloads around the edges of a chunk. The plaintext is byte i mod 251, `size` of them."""
    vectors = []
    for size in (0, 1, 16383, 16384, 16385, 40000):
        key, salt, context = seed(f"content key {size}"), seed(f"salt {size}", 24), f"crossing-{size}".encode()
        sealed = cobblestone(key, pattern(size), sealing.PREFIX + context, salt)
        vectors.append(
            {
                "key": to_base64(key),
                "salt": to_base64(salt),
                "context": to_base64(context),
                "size": size,
                "sealed_size": len(sealed),
                "sealed_digest": Digest.of(sealed),
                "sealed_end": to_base64(sealed[-64:]),
            }
        )
    return vectors


def pattern(size: int) -> bytes:
    """The plaintext of the sealing vectors."""
    return bytes(i % 251 for i in range(size))


def open_wrapped(private: bytes, wrapped: bytes, info: bytes) -> bytes:
    """Open what HPKE sealed in base mode (RFC 9180) with MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM."""
    mlkem, x25519 = MLKEM768PrivateKey.from_seed_bytes(private[:64]), X25519PrivateKey.from_private_bytes(private[64:])
    post_quantum, share, body = wrapped[:1088], wrapped[1088:1120], wrapped[1120:]
    combined = hashlib.sha3_256(
        mlkem.decapsulate(post_quantum)
        + x25519.exchange(X25519PublicKey.from_public_bytes(share))
        + share
        + x25519.public_key().public_bytes_raw()
        + b"\\.//^\\"
    ).digest()
    suite = b"HPKE" + (0x647A).to_bytes(2, "big") + (0x0001).to_bytes(2, "big") + (0x0002).to_bytes(2, "big")

    def labeled_extract(salt: bytes, label: bytes, keying: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + keying, "sha256")

    def labeled_expand(prk: bytes, label: bytes, about: bytes, size: int) -> bytes:
        return expand(prk, size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + about, size, "sha256")

    about = b"\x00" + labeled_extract(b"", b"psk_id_hash", b"") + labeled_extract(b"", b"info_hash", info)
    secret = labeled_extract(combined, b"secret", b"")
    key, nonce = labeled_expand(secret, b"key", about, 32), labeled_expand(secret, b"base_nonce", about, 12)
    return AESGCM(key).decrypt(nonce, body, b"")


def wrapping_vectors(recorded: dict[str, Any]) -> dict[str, Any]:
    """One wrapped content key."""
    private, secret, context = seed("sealing key", 96), seed("content key"), b"crossing-0"
    key = sealing.SealingKey.from_bytes(private)
    wrapped = from_base64(recorded.get("wrapped", ""))
    try:
        holds = key.open(wrapped, context=context) == secret
    except Refusal:
        holds = False
    if not holds:
        wrapped = sealing.wrap(secret, key.public, context=context)
    if open_wrapped(private, wrapped, sealing.PREFIX + context) != secret:
        raise AssertionError("two implementations of HPKE differ")
    return {
        "private": to_base64(private),
        "public": key.public.mlkem768_x25519,
        "context": to_base64(context),
        "secret": to_base64(secret),
        "wrapped": to_base64(wrapped),
    }


def merkle_vectors() -> dict[str, Any]:
    """A log of 13 entries, entry i being the decimal of i: its roots and all its proofs from some places."""
    leaves = [merkle.leaf_hash(str(i).encode()) for i in range(13)]
    nodes: dict[tuple[int, int], bytes] = {}

    def node(level: int, index: int) -> bytes:
        return nodes[level, index]

    for i, leaf in enumerate(leaves):
        nodes.update({(level, index): hash_ for level, index, hash_ in merkle.completed_nodes(i, leaf, node)})
    return {
        "roots": [to_base64(merkle.tree_root(node, size)) for size in range(14)],
        "inclusion": [
            {"index": i, "size": n, "path": [to_base64(h) for h in merkle.inclusion(node, i, n)]}
            for n in (1, 2, 3, 7, 8, 13)
            for i in range(n)
        ],
        "consistency": [
            {"first": m, "second": n, "path": [to_base64(h) for h in merkle.consistency(node, m, n)]}
            for n in (1, 2, 3, 7, 8, 13)
            for m in range(n + 1)
        ],
    }


def checkpoint_vectors() -> dict[str, Any]:
    """A checkpoint, cosigned, and notes that must be refused in its place."""
    log = signing.SigningKey.from_seeds(seed("log ed25519"), seed("log mldsa65"))
    peer = signing.SigningKey.from_seeds(seed("peer ed25519"), seed("peer mldsa65"))
    head = checkpoint.Head(ORIGIN, 13, Digest.from_bytes(from_base64(merkle_vectors()["roots"][13])))
    note = checkpoint.sign_checkpoint(head, ORIGIN, log)
    cosigned = checkpoint.cosign(note, COSIGNER, peer, 1_790_000_000)
    return {
        "origin": ORIGIN,
        "cosigner": COSIGNER,
        "log_key": checkpoint.verifier_key(ORIGIN, log.verify_key, checkpoint.KeyKind.CHECKPOINT),
        "cosigner_key": checkpoint.verifier_key(COSIGNER, peer.verify_key, checkpoint.KeyKind.COSIGNATURE),
        "size": head.size,
        "root": head.root,
        "time": 1_790_000_000,
        "note": note,
        "cosigned": cosigned,
        "refused": [
            {"code": "evidence_invalid", "note": note.replace("\n13\n", "\n013\n")},
            {"code": "evidence_invalid", "note": note.replace("\n\n", "\nextension\n\n")},
            {"code": "evidence_invalid", "note": note[:-1]},
            {"code": "evidence_invalid", "note": note + "\n"},
            {"code": "evidence_invalid", "note": note.replace(ORIGIN, ORIGIN + "2")},
            {"code": "signature_invalid", "note": note.replace("\n13\n", "\n14\n")},
            {"code": "signature_invalid", "note": cosigned.replace(note.rpartition("\u2014")[2], " x MTIzNDU=\n")},
        ],
    }


def make(recorded: dict[str, Any]) -> dict[str, Any]:
    """All vectors; `recorded` is the file as it stands, for the two values that are random."""
    return {
        "about": "Test vectors of the wire format. Bytes are base64. Made by tests/conformance/make_vectors.py.",
        "canonical": canonical_vectors(),
        "envelope": envelope_vectors(recorded.get("envelope", {})),
        "sealing": sealing_vectors(),
        "wrapping": wrapping_vectors(recorded.get("wrapping", {})),
        "merkle": merkle_vectors(),
        "checkpoint": checkpoint_vectors(),
    }


def text(vectors: dict[str, Any]) -> str:
    """The file as it is checked in."""
    return json.dumps(vectors, indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write the file again."""
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {}
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(make(recorded)))


if __name__ == "__main__":
    main()
