"""Attacks on stored files: whatever is done to a sealed file, it is refused; the refusal names the file alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, FileId, Name
from isthmus.contracts.raw_table import Group
from isthmus.proof.ids import file_aad, file_key_context
from isthmus.proof.sealing import SealingKey, wrap
from isthmus.zone.vault import new_file_key, open_group, seal_group

CANARY = "LSVCANARYVIN00001"
FLEET = Name("fleet")


@dataclass(frozen=True, slots=True)
class Stored:
    """A sealed file with all that opens it."""

    file: FileId
    group: Group
    key: bytes
    data: bytes
    digest: Digest
    size: int

    def open(self) -> pa.Table:
        aad = file_aad(FLEET, self.file, self.group)
        return open_group(self.data, self.key, aad, file=self.file, digest=self.digest, size=self.size)

    def registered_anew(self) -> Stored:
        """As if whoever changed the bytes could also change what was registered of them."""
        return replace(self, digest=Digest.of(self.data), size=len(self.data))


def table(value: str = CANARY) -> pa.Table:
    metadata = {"pandas": '{"made_by": "/home/somebody/export.py"}'}
    columns = {
        "vin": [value] * 50,
        "x": pa.array(range(50), pa.float32()),
        "width": pa.array([None] * 50, pa.float32()),
    }
    return pa.table(columns).replace_schema_metadata(metadata)


def store(file: str = "a", group: Group = Group.IDENTITY, value: str = CANARY) -> Stored:
    name, key = FileId(f"file-{file * 32}"), new_file_key()
    data = seal_group(table(value), key, file_aad(FLEET, name, group))
    return Stored(name, group, key, data, Digest.of(data), len(data))


STORED = store()


def refused(stored: Stored) -> None:
    with pytest.raises(Refusal) as refusal:
        stored.open()
    assert refusal.value.code is Code.FILE_ALTERED
    assert stored.file in refusal.value.what
    said = str(refusal.value) + repr(refusal.value.__cause__)
    assert CANARY not in said
    assert "vin" not in said


def test_what_was_sealed_opens() -> None:
    assert STORED.open().equals(table())


def test_nothing_of_content_or_schema_shows() -> None:
    for secret in (CANARY.encode(), b"vin", b"width", b"pandas", b"somebody", b"parquet-cpp", b"arrow", b"schema"):
        assert secret not in STORED.data
    assert file_aad(FLEET, STORED.file, STORED.group) not in STORED.data


def test_every_file_has_a_key_of_its_own() -> None:
    assert len({new_file_key() for _ in range(100)}) == 100


@pytest.mark.parametrize(("key", "aad"), [(b"k" * 16, b"aad"), (b"", b"aad"), (b"k" * 32, b"")])
def test_a_short_key_or_no_binding_is_refused(key: bytes, aad: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal_group(table(), key, aad)


@settings(deadline=None)
@given(position=st.integers(0, len(STORED.data) - 1), mask=st.integers(1, 255))
def test_a_flipped_byte_is_refused(position: int, mask: int) -> None:
    data = bytearray(STORED.data)
    data[position] ^= mask
    refused(replace(STORED, data=bytes(data)))


@settings(max_examples=300, deadline=None)
@given(position=st.integers(4, len(STORED.data) - 1), mask=st.integers(1, 255))
def test_a_flipped_byte_is_refused_even_where_its_digest_was_registered_anew(position: int, mask: int) -> None:
    """Past the four bytes of the magic number, which say nothing, the cipher alone holds."""
    data = bytearray(STORED.data)
    data[position] ^= mask
    refused(replace(STORED, data=bytes(data)).registered_anew())


@settings(deadline=None)
@given(length=st.integers(0, len(STORED.data) - 1))
def test_a_truncated_file_is_refused(length: int) -> None:
    refused(replace(STORED, data=STORED.data[:length]))
    refused(replace(STORED, data=STORED.data[:length]).registered_anew())


def test_two_files_swapped_are_refused() -> None:
    other = store("b")
    refused(replace(STORED, data=other.data))
    refused(replace(other, data=STORED.data))
    refused(replace(STORED, data=other.data).registered_anew())


def test_a_file_does_not_open_in_another_files_place_even_with_its_own_key() -> None:
    other = store("b")
    refused(replace(STORED, data=other.data, key=other.key).registered_anew())


def test_a_group_does_not_open_as_another_group() -> None:
    refused(replace(STORED, group=Group.MOTION))


def test_a_foreign_key_is_refused() -> None:
    refused(replace(STORED, key=new_file_key()))
    refused(replace(STORED, key=b""))


def test_a_plain_file_in_its_place_is_refused() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table("another"), sink)
    refused(replace(STORED, data=bytes(sink.getvalue())).registered_anew())


def test_a_file_forged_with_the_borders_public_key_is_refused() -> None:
    """Anybody can seal a key to the border. Without the registered digest, neither the file nor its key opens."""
    border = SealingKey.generate()
    forged = store("a", value="forged")
    wrapped = wrap(forged.key, border.public, context=file_key_context(FLEET, forged.file, forged.group, forged.digest))
    refused(replace(STORED, data=forged.data, key=forged.key))
    with pytest.raises(Refusal) as refusal:
        border.open(wrapped, context=file_key_context(FLEET, STORED.file, STORED.group, STORED.digest))
    assert refusal.value.code is Code.PAYLOAD_ALTERED
