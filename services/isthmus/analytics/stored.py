"""How a derived table is stored: the catalogue's columns, and two that say which rows of a vehicle count first.

| column | type | |
|---|---|---|
| `vehicle_pseudonym` | text | the privacy unit |
| `draw` | int64 | a hash of the row: rows of a vehicle count in the order of their draws |
| `place` | int32 | the row's place in that order among its vehicle's rows of one file |
| dimensions | text | values of the public domain |
| measures | int32 | in steps, not clamped; null where an optional one is missing |

Rows stand by vehicle and place. What counts is decided by `draw`, over all files. `place` makes reading fast: a row
whose place is past the number that a vehicle may add need not be looked at. A wrong place can make rows vanish; never
do more rows of a vehicle count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.raw_table import PSEUDONYM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.tables import TableSpec

VEHICLE = PSEUDONYM.name
DRAW = "draw"
PLACE = "place"
TEXT = pa.dictionary(pa.int32(), pa.string())


def schema_of(table: TableSpec) -> pa.Schema:
    """Return the Arrow schema in which a table is stored."""
    return pa.schema(
        [
            pa.field(VEHICLE, TEXT, nullable=False),
            pa.field(DRAW, pa.int64(), nullable=False),
            pa.field(PLACE, pa.int32(), nullable=False),
            *(pa.field(d.name, TEXT, nullable=False) for d in table.dimensions),
            *(pa.field(m.name, pa.int32(), nullable=m.optional) for m in table.measures),
        ]
    )


def in_schema(stored: Sequence[pa.Table], table: TableSpec) -> pa.Table:
    """Return stored tables, one after the other, in the table's own schema.

    Raises:
        Refusal: `SCHEMA_MISMATCH` where a column is missing, of another type, or null where none may be.
    """
    schema = schema_of(table)
    # Files of one build are of one schema as they are: to cast each takes longer than to count its rows.
    alike = [each if each.schema.equals(schema) else _cast(each, schema, table) for each in stored]
    same = pa.concat_tables([schema.empty_table(), *alike])
    if any(_has_nulls(same.column(field.name)) for field in schema if not field.nullable):
        raise _of_another(table)
    return same


def _cast(each: pa.Table, schema: pa.Schema, table: TableSpec) -> pa.Table:
    try:
        return each.select(schema.names).cast(schema)
    except (KeyError, ValueError, pa.ArrowException):  # ValueError: a null where none may be
        raise _of_another(table) from None


def _has_nulls(column: pa.ChunkedArray) -> bool:
    """Tell whether there are nulls in a column, or in a dictionary of it, whether or not a row names them."""
    if column.null_count:
        return True
    return pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks)


def _of_another(table: TableSpec) -> Refusal:
    why = "The file was made for another version of the table."
    remedy = "Ingest the drives again, and ask of the new snapshot."
    return Refusal(Code.SCHEMA_MISMATCH, f"A stored file is not of the table {table.name}.", why=why, remedy=remedy)
