"""Sealing: what was sealed for one key and context opens whole there, and nowhere else."""

from __future__ import annotations

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.proof import sealing

CHUNK, TAG, HEADER = 16384, 16, 56
KEY = b"\x05" * 32
PLAINTEXT = bytes(range(256)) * 200  # 51,200 bytes: three full chunks and a short one
SEALED = b"".join(sealing.seal(KEY, PLAINTEXT, context=b"crossing"))
OWNER = sealing.SealingKey.generate()
WRAPPED = sealing.wrap(KEY, OWNER.public, context=b"crossing")
quick = settings(deadline=None, max_examples=60)


def refused(*chunks: bytes, key: bytes = KEY, context: bytes = b"crossing") -> bool:
    with pytest.raises(Refusal) as caught:
        sealing.open_sealed(key, chunks, context=context)
    return caught.value.code is Code.PAYLOAD_ALTERED


def pieces(sealed: bytes) -> tuple[bytes, list[bytes]]:
    """The header, and the encrypted chunks."""
    body = sealed[HEADER:]
    return sealed[:HEADER], [body[i : i + CHUNK + TAG] for i in range(0, len(body), CHUNK + TAG)]


@quick
@given(
    st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]),
    st.binary(max_size=20),
    st.sampled_from([1 << 10, 1 << 16, 1 << 22]),
)
def test_a_plaintext_comes_back_however_it_is_cut(size: int, context: bytes, cut: int) -> None:
    plaintext = (b"isthmus " * (size // 8 + 1))[:size]
    key = sealing.new_content_key()
    sealed = b"".join(sealing.seal(key, plaintext, context=context))
    assert len(sealed) == sealing.sealed_size(size)
    cuts = [sealed[i : i + cut] for i in range(0, len(sealed), cut)]
    assert sealing.open_sealed(key, cuts, context=context) == plaintext


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_sealed(kind: type[bytes]) -> None:
    sealed = sealing.seal(KEY, kind(PLAINTEXT), context=b"")
    assert sealing.open_sealed(KEY, sealed, context=b"") == PLAINTEXT


def test_a_buffer_of_wider_items_is_sealed_byte_by_byte() -> None:
    wide = memoryview(bytearray(PLAINTEXT)).cast("I")
    assert sealing.open_sealed(KEY, sealing.seal(KEY, wide, context=b""), context=b"") == PLAINTEXT


def test_two_sealings_of_one_plaintext_differ() -> None:
    assert b"".join(sealing.seal(KEY, PLAINTEXT, context=b"crossing")) != SEALED


def test_no_piece_is_much_larger_than_a_mebibyte() -> None:
    sizes = [len(piece) for piece in sealing.seal(KEY, bytes(5 << 20), context=b"")]
    assert max(sizes) <= (1 << 20) + 64 * TAG + HEADER
    assert len(sizes) == 6


@quick
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_one_changed_byte_anywhere_is_refused(place: int, flip: int) -> None:
    data = bytearray(SEALED)
    data[place] ^= flip
    assert refused(bytes(data))


@quick
@given(st.integers(0, len(SEALED) - 1))
def test_a_payload_cut_short_is_refused(length: int) -> None:
    assert refused(SEALED[:length])


@pytest.mark.parametrize("chunks", range(4))
def test_a_payload_cut_at_a_chunk_is_refused(chunks: int) -> None:
    assert refused(SEALED[: HEADER + chunks * (CHUNK + TAG)])


def test_chunks_out_of_order_repeated_or_left_out_are_refused() -> None:
    header, (a, b, c, last) = pieces(SEALED)
    for body in ([b, a, c, last], [a, a, b, c, last], [a, c, last], [a, b, last], [a, b, c], [last]):
        assert refused(header, *body)


def test_chunks_of_two_sealings_do_not_mix() -> None:
    header, (a, b, c, last) = pieces(SEALED)
    _, others = pieces(b"".join(sealing.seal(KEY, PLAINTEXT, context=b"crossing")))
    assert refused(header, a, others[1], c, last)
    assert refused(header, a, b, c, others[3])


@pytest.mark.parametrize("extra", [b"\x00", SEALED, bytes(CHUNK + TAG)])
def test_what_follows_the_end_is_refused(extra: bytes) -> None:
    assert refused(SEALED, extra)


def test_another_key_or_context_is_refused() -> None:
    assert refused(SEALED, key=b"\x06" * 32)
    for context in (b"", b"crossinG", b"crossing ", b"isthmus/v1/crossing"):
        assert refused(SEALED, context=context)


def test_the_context_stands_under_the_prefix_of_this_project() -> None:
    decryptor = Cobblestone256Decryptor(KEY, b"isthmus/v1/crossing")
    assert decryptor.update(SEALED) + decryptor.finalize() == PLAINTEXT


@quick
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_random_bytes_are_refused(chunks: list[bytes]) -> None:
    assert refused(*chunks)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_content_key_of_another_length_is_refused_at_once(size: int) -> None:
    with pytest.raises(ValueError, match="32"):
        sealing.seal(bytes(size), b"", context=b"")
    with pytest.raises(ValueError, match="32"):
        sealing.open_sealed(bytes(size), [], context=b"")


@quick
@given(st.binary(max_size=100), st.binary(max_size=40))
def test_a_wrapped_secret_comes_back(secret: bytes, context: bytes) -> None:
    wrapped = sealing.wrap(secret, OWNER.public, context=context)
    assert len(wrapped) == len(secret) + sealing.WRAP_OVERHEAD
    assert OWNER.open(wrapped, context=context) == secret


# The top bit of an X25519 coordinate is no part of the number (RFC 7748, section 5), but of what the KEM binds.
@quick
@given(st.integers(0, len(WRAPPED) - 1), st.integers(1, 255))
@example(1119, 0x80)
def test_a_wrapped_key_with_one_changed_byte_is_refused(place: int, flip: int) -> None:
    data = bytearray(WRAPPED)
    data[place] ^= flip
    with pytest.raises(Refusal) as caught:
        OWNER.open(bytes(data), context=b"crossing")
    assert caught.value.code is Code.PAYLOAD_ALTERED


@quick
@given(st.binary(max_size=1300))
def test_random_bytes_do_not_unwrap(data: bytes) -> None:
    with pytest.raises(Refusal):
        OWNER.open(data, context=b"crossing")


def test_a_wrapped_key_opens_for_its_owner_and_context_alone() -> None:
    for owner, context in ((sealing.SealingKey.generate(), b"crossing"), (OWNER, b"other"), (OWNER, b"")):
        with pytest.raises(Refusal) as caught:
            owner.open(WRAPPED, context=context)
        assert caught.value.code is Code.PAYLOAD_ALTERED
    assert OWNER.open(WRAPPED, context=b"crossing") == KEY
