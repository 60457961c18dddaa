"""Checkpoints: a head counts when the log's key, or the cosigner's, signed just this text."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.proof.checkpoint import (
    Head,
    KeyKind,
    cosign,
    sign_checkpoint,
    verifier_key,
    verify_checkpoint,
    verify_cosignature,
)
from isthmus.proof.signing import SigningKey

LOG = SigningKey.from_seeds(b"\x01" * 32, b"\x02" * 32)
PEER = SigningKey.from_seeds(b"\x03" * 32, b"\x04" * 32)
ORIGIN = "isthmus.example/cn-shanghai/crossings"
WITNESS = "isthmus.example/hq"
HEAD = Head(ORIGIN, 1234, Digest.of(b"root"))
NOTE = sign_checkpoint(HEAD, ORIGIN, LOG)
COSIGNED = cosign(NOTE, WITNESS, PEER, 1_790_000_000)
quick = settings(deadline=None, max_examples=150)


def refusal(note: str, *, key: SigningKey = LOG, name: str = ORIGIN, origin: str = ORIGIN) -> Code:
    with pytest.raises(Refusal) as refused:
        verify_checkpoint(note, origin, name, key.verify_key)
    return refused.value.code


def cosignature_refusal(note: str, *, key: SigningKey = PEER, name: str = WITNESS) -> Code:
    with pytest.raises(Refusal) as refused:
        verify_cosignature(note, name, key.verify_key)
    return refused.value.code


@quick
@given(st.integers(0, 2**53), st.binary(min_size=32, max_size=32), st.integers(0, 2**53))
def test_a_head_comes_back(size: int, root: bytes, time: int) -> None:
    head = Head(ORIGIN, size, Digest.from_bytes(root))
    note = cosign(sign_checkpoint(head, ORIGIN, LOG), WITNESS, PEER, time)
    assert verify_checkpoint(note, ORIGIN, ORIGIN, LOG.verify_key) == head
    assert verify_cosignature(note, WITNESS, PEER.verify_key) == (head, time)


def test_a_note_is_laid_out_as_the_specification_has_it() -> None:
    text, signatures = COSIGNED.split("\n\n")
    assert text.split("\n") == [ORIGIN, "1234", base64.b64encode(HEAD.root.raw).decode()]
    log, peer, end = signatures.split("\n")
    assert end == ""
    public = LOG.verify_key.ed25519_bytes
    key_id = hashlib.sha256(ORIGIN.encode() + b"\n\x01" + public).digest()[:4]
    raw = base64.b64decode(log.removeprefix(f"\u2014 {ORIGIN} "))
    assert raw == key_id + LOG.sign_note(text.encode() + b"\n")
    key_id = hashlib.sha256(WITNESS.encode() + b"\n\x04" + PEER.verify_key.ed25519_bytes).digest()[:4]
    raw = base64.b64decode(peer.removeprefix(f"\u2014 {WITNESS} "))
    stamped = f"cosignature/v1\ntime 1790000000\n{text}\n".encode()
    assert raw == key_id + (1_790_000_000).to_bytes(8, "big") + PEER.sign_note(stamped)


def test_a_verifier_key_names_kind_and_key() -> None:
    name, key_id, typed = verifier_key(WITNESS, PEER.verify_key, KeyKind.COSIGNATURE).split("+", 2)
    assert base64.b64decode(typed) == b"\x04" + PEER.verify_key.ed25519_bytes
    assert (name, key_id) == (
        WITNESS,
        hashlib.sha256(b"isthmus.example/hq\n" + base64.b64decode(typed)).hexdigest()[:8],
    )


@settings(deadline=None, max_examples=400)
@given(st.integers(0, len(COSIGNED.encode()) - 1), st.integers(1, 255))
def test_one_changed_byte_breaks_the_log_signature_or_stands_in_the_cosignature(place: int, flip: int) -> None:
    data = bytearray(COSIGNED.encode())
    data[place] ^= flip
    note = data.decode("utf-8", "surrogateescape")
    text_end = len(COSIGNED.split("\n\n", maxsplit=1)[0].encode()) + 2
    cosignature = len(NOTE.encode())
    if place < cosignature:
        assert refusal(note) in {Code.EVIDENCE_INVALID, Code.SIGNATURE_INVALID}
    if place < text_end or place >= cosignature:
        assert cosignature_refusal(note) in {Code.EVIDENCE_INVALID, Code.SIGNATURE_INVALID}


@quick
@given(st.text(max_size=120))
def test_any_text_is_refused(text: str) -> None:
    assert refusal(text) is Code.EVIDENCE_INVALID
    assert cosignature_refusal(text) is Code.EVIDENCE_INVALID


@quick
@given(st.lists(st.sampled_from([*NOTE.split("\n"), "", "0", "\u2014", "\x00", "\ud800"]), max_size=9))
def test_lines_put_together_anyhow_are_refused_or_the_note_itself(lines: list[str]) -> None:
    note = "\n".join(lines)
    if note != NOTE:
        assert refusal(note) in {Code.EVIDENCE_INVALID, Code.SIGNATURE_INVALID}


def test_another_log_name_or_key_is_refused() -> None:
    assert refusal(NOTE, origin="isthmus.example/us-texas/crossings") is Code.EVIDENCE_INVALID
    assert refusal(NOTE, name="isthmus.example/other") is Code.SIGNATURE_INVALID
    assert refusal(NOTE, key=PEER) is Code.SIGNATURE_INVALID
    assert cosignature_refusal(NOTE) is Code.SIGNATURE_INVALID
    assert cosignature_refusal(COSIGNED, key=LOG) is Code.SIGNATURE_INVALID
    assert cosignature_refusal(COSIGNED, name=ORIGIN) is Code.SIGNATURE_INVALID


def test_a_signature_of_one_kind_does_not_count_as_the_other() -> None:
    own = cosign(sign_checkpoint(HEAD, ORIGIN, PEER), ORIGIN, LOG, 5)
    assert refusal(own) is Code.SIGNATURE_INVALID
    # The log's own signature, relabelled as a cosignature of time 5.
    text, line = NOTE.split("\n\n")
    signature = base64.b64decode(line.split(" ")[2])[4:]
    key_id = hashlib.sha256(ORIGIN.encode() + b"\n\x04" + LOG.verify_key.ed25519_bytes).digest()[:4]
    forged = base64.b64encode(key_id + (5).to_bytes(8, "big") + signature).decode()
    assert cosignature_refusal(f"{text}\n\n\u2014 {ORIGIN} {forged}\n", key=LOG, name=ORIGIN) is Code.SIGNATURE_INVALID


def test_a_cosignature_cannot_be_redated() -> None:
    head, line = COSIGNED.rsplit("\u2014", 1)
    raw = bytearray(base64.b64decode(line.split(" ")[2]))
    raw[11] += 1
    assert cosignature_refusal(f"{head}\u2014 {WITNESS} {base64.b64encode(raw).decode()}\n") is Code.SIGNATURE_INVALID


def _line(key: SigningKey, name: str, kind: bytes, signed: bytes) -> str:
    key_id = hashlib.sha256(name.encode() + b"\n" + kind + key.verify_key.ed25519_bytes).digest()[:4]
    return f"\u2014 {name} {base64.b64encode(key_id + signed).decode()}\n"


@pytest.mark.parametrize("length", [1, 63, 65, 72])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    note = HEAD.text + "\n" + _line(LOG, ORIGIN, b"\x01", bytes(length))
    assert refusal(note) is Code.SIGNATURE_INVALID
    note = HEAD.text + "\n" + _line(PEER, WITNESS, b"\x04", bytes(length - 1) + b"\x01" if length < 72 else bytes(73))
    assert cosignature_refusal(note) is Code.SIGNATURE_INVALID


@pytest.mark.parametrize("time", [2**53 + 1, 2**63, 2**64 - 1])
def test_a_time_beyond_the_wire_is_refused_even_when_signed(time: int) -> None:
    signature = PEER.sign_note(f"cosignature/v1\ntime {time}\n{HEAD.text}".encode())
    note = HEAD.text + "\n" + _line(PEER, WITNESS, b"\x04", time.to_bytes(8, "big") + signature)
    assert cosignature_refusal(note) is Code.EVIDENCE_INVALID


def test_lines_of_unknown_keys_are_ignored() -> None:
    text, line = NOTE.split("\n\n")
    strangers = [
        f"\u2014 {name} {base64.b64encode(raw).decode()}\n"
        for name, raw in [("stranger.example/x", b"12345"), (ORIGIN, b"\x00" * 68), ("a", b"\xff" * 4000)]
    ]
    note = f"{text}\n\n{strangers[0]}{line}{strangers[1]}{strangers[2]}"
    assert verify_checkpoint(note, ORIGIN, ORIGIN, LOG.verify_key) == HEAD
    cosigned = cosign(note, WITNESS, PEER, 7)
    assert cosigned.startswith(note)
    assert verify_cosignature(cosigned, WITNESS, PEER.verify_key) == (HEAD, 7)


def test_a_second_line_of_the_known_key_is_refused() -> None:
    line = NOTE.split("\n\n")[1]
    assert refusal(NOTE + line) is Code.SIGNATURE_INVALID


def test_cosigning_again_replaces_the_older_line() -> None:
    again = cosign(COSIGNED, WITNESS, PEER, 1_790_000_100)
    assert again.count(WITNESS) == 1
    assert verify_cosignature(again, WITNESS, PEER.verify_key) == (HEAD, 1_790_000_100)


ROOT = base64.b64encode(HEAD.root.raw).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n01234\n{ROOT}\n",
        f"{ORIGIN}\n+1234\n{ROOT}\n",
        f"{ORIGIN}\n-1\n{ROOT}\n",
        f"{ORIGIN}\n 1234\n{ROOT}\n",
        f"{ORIGIN}\n1_234\n{ROOT}\n",
        f"{ORIGIN}\n\u0661\n{ROOT}\n",
        f"{ORIGIN}\n\n{ROOT}\n",
        f"{ORIGIN}\n9007199254740993\n{ROOT}\n",
        f"{ORIGIN}\n{'9' * 5000}\n{ROOT}\n",
        f"{ORIGIN}\n1234\n{ROOT[:-2]}\n",
        f"{ORIGIN}\n1234\n{ROOT[:-1]}\n",
        f"{ORIGIN}\n1234\n{ROOT[:-2] + chr(ord(ROOT[-2]) + 1)}=\n",
        f"{ORIGIN}\n1234\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n1234\n{ROOT}\nextension\n",
        f"{ORIGIN}\n1234\n{ROOT}",
        f"{ORIGIN}\r\n1234\r\n{ROOT}\r\n",
        f"a b\n1234\n{ROOT}\n",
        f"a+b\n1234\n{ROOT}\n",
        f"a\u00a0b\n1234\n{ROOT}\n",
        f"\n1234\n{ROOT}\n",
        "",
    ],
)
def test_a_text_in_a_second_spelling_is_refused_even_when_signed(text: str) -> None:
    assert refusal(text + "\n" + _line(LOG, ORIGIN, b"\x01", LOG.sign_note(text.encode()))) is Code.EVIDENCE_INVALID


@pytest.mark.parametrize(
    "note",
    [
        NOTE[:-1],
        NOTE + "\n",
        "\n" + NOTE,
        NOTE + "stray\n",
        NOTE + "stray",
        COSIGNED[:-1],
        NOTE.replace("\u2014", "-"),
        NOTE.replace("\u2014 ", "\u2014  "),
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("\n\n", "\n\n\n"),
        NOTE.rsplit("\u2014", 1)[0],
        NOTE + "\u2014 bad+name MTIzNDU=\n",
        NOTE + "\u2014 short MTIzNA==\n",
        NOTE + "\u2014 stray MTIzNDV=\n",
        NOTE + "\u2014 x MTIzNDU=\n" * 32,
        NOTE + "\u2014 x " + "MTIz" * 40_000 + "\n",
    ],
)
def test_a_note_in_a_second_spelling_is_refused(note: str) -> None:
    assert refusal(note) is Code.EVIDENCE_INVALID
    with pytest.raises(Refusal):
        cosign(note, WITNESS, PEER, 5)


def test_sixteen_signatures_are_read() -> None:
    note = NOTE + "".join(f"\u2014 w{i}.example {base64.b64encode(bytes(4900)).decode()}\n" for i in range(15))
    assert verify_checkpoint(note, ORIGIN, ORIGIN, LOG.verify_key) == HEAD


def test_a_full_note_takes_no_further_cosignature() -> None:
    note = NOTE + "\u2014 x MTIzNDU=\n" * 31
    with pytest.raises(Refusal):
        cosign(note, WITNESS, PEER, 5)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\tb", "a\u2003b", "a\x00b"])
def test_a_name_that_could_be_misread_is_not_used(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Head(name, 0, Digest.of(b""))
    with pytest.raises(ValueError, match="name"):
        sign_checkpoint(HEAD, name, LOG)
    with pytest.raises(ValueError, match="name"):
        cosign(NOTE, name, LOG, 5)


@pytest.mark.parametrize("number", [-1, 2**53 + 1])
def test_numbers_out_of_range_are_not_signed(number: int) -> None:
    with pytest.raises(ValueError, match="between"):
        Head(ORIGIN, number, Digest.of(b""))
    with pytest.raises(ValueError, match="between"):
        cosign(NOTE, WITNESS, PEER, number)
