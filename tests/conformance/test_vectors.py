"""The checked-in vectors are what the script makes, and each does what it says."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from conformance import make_vectors
from conformance.make_vectors import cobblestone, open_wrapped, pattern
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.keys import HybridKey
from isthmus.proof import canonical, merkle, sealing
from isthmus.proof.canonical import from_base64
from isthmus.proof.checkpoint import Head, verify_checkpoint, verify_cosignature
from isthmus.proof.signing import SigningKey, parse_envelope, verify

TEXT = make_vectors.FILE.read_text()
VECTORS: dict[str, Any] = json.loads(TEXT)


def test_the_script_makes_the_checked_in_file_again() -> None:
    assert make_vectors.text(make_vectors.make(VECTORS)) == TEXT


def test_only_the_two_random_values_differ_when_made_afresh() -> None:
    afresh = make_vectors.make({})
    for vectors, part in ((afresh, VECTORS), (VECTORS, afresh)):
        assert vectors["wrapping"]["wrapped"] != part["wrapping"]["wrapped"]
        assert vectors["envelope"]["envelope"] != part["envelope"]["envelope"]
    for name in ("canonical", "sealing", "merkle", "checkpoint"):
        assert afresh[name] == VECTORS[name]
    for name, random in (("wrapping", {"wrapped"}), ("envelope", {"envelope", "refused"})):
        assert {k: v for k, v in afresh[name].items() if k not in random} == {
            k: v for k, v in VECTORS[name].items() if k not in random
        }


@pytest.mark.parametrize("data", VECTORS["canonical"]["accepted"])
def test_canonical_bytes_are_read_and_written_again(data: str) -> None:
    assert canonical.encode(canonical.decode(from_base64(data))) == from_base64(data)


@pytest.mark.parametrize("vector", VECTORS["canonical"]["refused"])
def test_bytes_that_are_not_canonical_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        canonical.decode(from_base64(vector["data"]))
    assert refused.value.code == vector["code"]


def test_the_envelope_holds() -> None:
    vector = VECTORS["envelope"]
    key = HybridKey(**vector["key"])
    envelope, payload = from_base64(vector["envelope"]), from_base64(vector["payload"])
    assert key.keyid == vector["keyid"]
    assert verify(envelope, vector["payload_type"], key) == payload
    signer = SigningKey.from_seeds(from_base64(vector["ed25519_seed"]), from_base64(vector["mldsa65_seed"]))
    assert signer.verify_key == key
    assert signer.sign_note(from_base64(vector["pre_authentication"])) == parse_envelope(envelope).ed25519


@pytest.mark.parametrize("vector", VECTORS["envelope"]["refused"], ids=lambda vector: vector["why"])
def test_a_spoiled_envelope_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        verify(from_base64(vector["envelope"]), make_vectors.PAYLOAD_TYPE, HybridKey(**VECTORS["envelope"]["key"]))
    assert refused.value.code == vector["code"]


@pytest.mark.parametrize("vector", VECTORS["sealing"], ids=lambda vector: vector["size"])
def test_the_sealed_payload_opens(vector: dict[str, Any]) -> None:
    key, salt, context = (from_base64(vector[name]) for name in ("key", "salt", "context"))
    sealed = cobblestone(key, pattern(vector["size"]), b"isthmus/v1/" + context, salt)
    assert Digest.of(sealed) == vector["sealed_digest"]
    assert sealed[-64:] == from_base64(vector["sealed_end"])
    assert len(sealed) == vector["sealed_size"] == sealing.sealed_size(vector["size"])
    assert sealing.open_sealed(key, [sealed], context=context) == pattern(vector["size"])
    with pytest.raises(Refusal) as refused:
        sealing.open_sealed(key, [sealed], context=context + b"0")
    assert refused.value.code is Code.PAYLOAD_ALTERED


def test_the_wrapped_key_opens_by_both_implementations() -> None:
    vector = VECTORS["wrapping"]
    private, context, secret, wrapped = (from_base64(vector[n]) for n in ("private", "context", "secret", "wrapped"))
    key = sealing.SealingKey.from_bytes(private)
    assert key.public.mlkem768_x25519 == vector["public"]
    assert key.open(wrapped, context=context) == secret
    assert open_wrapped(private, wrapped, b"isthmus/v1/" + context) == secret


def test_the_roots_and_proofs_hold() -> None:
    vector = VECTORS["merkle"]
    leaves = [merkle.leaf_hash(str(i).encode()) for i in range(13)]
    roots = [from_base64(root) for root in vector["roots"]]
    assert roots == [merkle.root(leaves[:size]) for size in range(14)]
    for item in vector["inclusion"]:
        path = [from_base64(hash_) for hash_ in item["path"]]
        index, size = item["index"], item["size"]
        assert merkle.verify_inclusion(leaves[index], index, size, path, roots[size])
        assert not merkle.verify_inclusion(leaves[index], index, size, [*path, bytes(32)], roots[size])
    for item in vector["consistency"]:
        path = [from_base64(hash_) for hash_ in item["path"]]
        first, second = item["first"], item["second"]
        assert merkle.verify_consistency(first, second, roots[first], roots[second], path)
        assert not merkle.verify_consistency(first, second, roots[first], roots[second], [*path, bytes(32)])


def _public(verifier_key: str) -> HybridKey:
    """The Ed25519 key of a C2SP verifier key; the other half plays no part in a note."""
    return HybridKey.from_bytes(base64.b64decode(verifier_key.split("+", 2)[2])[1:], bytes(1952))


def test_the_checkpoint_and_its_cosignature_hold() -> None:
    vector = VECTORS["checkpoint"]
    head = Head(vector["origin"], vector["size"], Digest(vector["root"]))
    log, peer = _public(vector["log_key"]), _public(vector["cosigner_key"])
    for note in (vector["note"], vector["cosigned"]):
        assert verify_checkpoint(note, vector["origin"], vector["origin"], log) == head
    assert verify_cosignature(vector["cosigned"], vector["cosigner"], peer) == (head, vector["time"])


@pytest.mark.parametrize("vector", VECTORS["checkpoint"]["refused"])
def test_a_spoiled_checkpoint_is_refused(vector: dict[str, str]) -> None:
    origin, key = VECTORS["checkpoint"]["origin"], _public(VECTORS["checkpoint"]["log_key"])
    with pytest.raises(Refusal) as refused:
        verify_checkpoint(vector["note"], origin, origin, key)
    assert refused.value.code == vector["code"]
