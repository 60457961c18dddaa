"""The vault's file: one column group of some drives, as one encrypted Parquet file.

Rules:
1. Every file has a key of its own: 256 bits from the operating system's generator, for footer and all columns.
2. The footer is encrypted too: no column name, statistic, schema or writer's note can be read without the key.
3. A file opens only where it belongs: `aad_prefix` names dataset, file and group and is not stored in the file
   (Parquet modular encryption, section 4.4.2).
4. Size and SHA-256 are checked before a byte is parsed. Whatever is wrong with a file, the refusal is `FILE_ALTERED`
   and names the file alone.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import FileId

KEY_SIZE = 32
TAIL = 8
"""How long header and footer are, and the magic number: the last bytes of a file."""
MEASURED = frozenset({"lat", "lon", "x", "y", "vx", "vy", "heading"})
"""Columns of what a sensor measured: each row has a number of its own."""


def new_file_key() -> bytes:
    """Return 32 bytes from the operating system's generator, to seal one file."""
    return secrets.token_bytes(KEY_SIZE)


def seal_group(table: pa.Table, key: bytes, aad: bytes) -> bytes:
    """Return `table` as an encrypted Parquet file.

    Args:
        table: the columns of one group; notes in its schema (pandas leaves some) are dropped.
        key: 32 bytes, never used for another file.
        aad: what the file is bound to (`proof.ids.file_aad`).

    Raises:
        ValueError: `key` has another length, or there is no `aad`.
    """
    if len(key) != KEY_SIZE or not aad:
        raise ValueError(f"a file is sealed with {KEY_SIZE} bytes of key and an AAD")
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(None),
        sink,
        **encoding(table.schema),
        encryption_properties=pe.create_encryption_properties(key, aad_prefix=aad, store_aad_prefix=False),
    )
    return bytes(sink.getvalue())


def encoding(schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are encoded, as `pyarrow.parquet.write_table` takes it.

    Measured numbers hardly repeat: split by bytes, LZ4 finds in them what zstd does, in half the time. Times, tracks
    and sizes do repeat: as they are, zstd makes less of them than of their bytes apart or of a dictionary. Texts have
    theirs already.
    """
    names = [field.name for field in schema]
    measured = [name for name in names if name in MEASURED]
    return {
        "compression": {name: "lz4" if name in MEASURED else "zstd" for name in names},
        "use_dictionary": [field.name for field in schema if pa.types.is_dictionary(field.type)],
        "use_byte_stream_split": measured,
        "write_statistics": False,
    }


def open_group(data: bytes, key: bytes, aad: bytes, *, file: FileId, digest: Digest, size: int) -> pa.Table:
    """Return the table that `seal_group` was given.

    Args:
        data: the bytes as they were stored.
        key: the file's key.
        aad: what the file is bound to.
        file: its id, for the refusal.
        digest: what it was registered with.
        size: what it was registered with, in bytes.

    Raises:
        Refusal: `FILE_ALTERED` for a changed, truncated, swapped or forged file, another key or another AAD.
    """
    if len(data) != size:
        raise _altered(file, "Its size is not the registered one.")
    if Digest.of(data) != digest:
        raise _altered(file, "Its digest is not the registered one.")
    if not _has_our_header(data):
        raise _altered(file, "Its open header is not the one that every sealed file has.")
    try:
        properties = pe.create_decryption_properties(key, aad_prefix=aad)
        return pq.ParquetFile(pa.BufferReader(data), decryption_properties=properties).read()
    except (OSError, ValueError, pa.ArrowException):
        # Arrow's own words can quote column names, so they are dropped.
        raise _altered(file, "It does not open with its key as this file of this dataset and group.") from None


def _has_our_header(data: bytes) -> bool:
    """Tell whether the header before the footer is written as it was: it is in the clear, and no cipher guards it.

    Parquet encryption, section 5.1, `FileCryptoMetaData`, in Thrift's compact protocol: AES-GCM, a unique part of eight
    bytes, an AAD prefix that is to be supplied, and three ends of structs. A reader takes an end in sixteen spellings.
    """
    start = len(data) - TAIL - int.from_bytes(data[-TAIL:-4], "little")
    begins, ends = data[start : start + 4], data[start + 12 : start + 16]
    return start > 0 and (begins, ends) == (b"\x1c\x1c\x28\x08", b"\x11\x00\x00\x00")


def _altered(file: FileId, why: str) -> Refusal:
    remedy = "Restore the file from a copy, or take it out of the snapshot."
    return Refusal(Code.FILE_ALTERED, f"The stored file {file} has been changed or swapped.", why=why, remedy=remedy)
