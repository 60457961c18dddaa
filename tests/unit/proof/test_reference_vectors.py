"""Vectors that others published: they show that we read the standards as others do."""

from __future__ import annotations

import base64

import pytest

from isthmus.contracts.keys import HybridKey
from isthmus.proof import canonical, merkle
from isthmus.proof.checkpoint import KeyKind, verifier_key
from isthmus.proof.signing import SigningKey, parse_envelope

# The inputs and roots of the Certificate Transparency log's own tests (RFC 6962 trees of 0 to 8 leaves).
CT_LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
CT_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


@pytest.mark.parametrize("size", range(9))
def test_the_roots_of_certificate_transparency_come_out(size: int) -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES[:size]]
    assert merkle.root(leaves).hex() == CT_ROOTS[size]


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    assert merkle.empty_root().hex() == CT_ROOTS[0]


def test_keys_sort_by_utf16_code_units() -> None:
    # RFC 8785, section 3.2.3, with U+FF21 for the example's U+FB33, which is not NFC. In code point order U+1F600,
    # a surrogate pair in UTF-16, would come last.
    value = {"\u20ac": 1, "\r": 2, "\uff21": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert canonical.encode(value).decode() == (
        '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\U0001f600":5,"\uff21":3}'
    )


def test_strings_escape_as_rfc_8785_has_it() -> None:
    # RFC 8785, section 3.2.2.2 (and its example string).
    assert canonical.encode('\u20ac$\u000f\nA\'B"\\\\"/').decode() == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'
    assert canonical.encode("\b\t\f\r\x00\x1f\x7f") == b'"\\b\\t\\f\\r\\u0000\\u001f\x7f"'


def test_a_verifier_key_of_the_go_note_package_comes_out() -> None:
    published = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    public = base64.b64decode(published.rpartition("+")[2] if published.count("+") == 2 else published.split("+", 2)[2])
    assert public[0] == KeyKind.CHECKPOINT
    key = HybridKey.from_bytes(public[1:], bytes(1952))
    assert verifier_key("PeterNeumann", key, KeyKind.CHECKPOINT) == published


def test_the_ed25519_part_signs_the_encoding_of_the_dsse_specification() -> None:
    # DSSE v1 protocol, the worked example of PAE.
    key = SigningKey.from_seeds(bytes(32), bytes(32))
    envelope = parse_envelope(key.sign("http://example.com/HelloWorld", b"hello world"))
    assert envelope.ed25519 == key.sign_note(b"DSSEv1 29 http://example.com/HelloWorld 11 hello world")


def test_the_ed25519_part_is_that_of_rfc_8032() -> None:
    # RFC 8032, section 7.1, test 2.
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = SigningKey.from_seeds(seed, bytes(32))
    assert key.verify_key.ed25519_bytes.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign_note(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
