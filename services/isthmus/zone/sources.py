"""Files that `ingest` takes: raw tables or plain tracks, as Parquet or CSV. Which of the two, the columns tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from isthmus.contracts.errors import Code, Refusal
from isthmus.zone.columns import Source
from isthmus.zone.tracks import drives_from_tracks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def tables_of(path: Path) -> Iterator[pa.Table]:
    """Yield the raw tables in a file: itself where it has a column `vehicle`, else the drives of its tracks.

    Raises:
        Refusal: `INPUT_INVALID` for what is not such a file, or has no rows.
    """
    table = _read(path)
    Source(path.name).refuse_empty(table)
    if "vehicle" in table.schema.names:
        yield table
    else:
        yield from drives_from_tracks(table, name=path.name)


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix == ".csv":
            return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(strings_can_be_null=True))
        return pq.ParquetFile(path).read()
    except OSError as error:
        raise _unreadable(path, error.strerror or "it is no Parquet file") from None
    except (pa.ArrowException, ValueError):
        # Arrow's own words can quote the content, so they are dropped.
        raise _unreadable(path, "it is no table in Parquet or CSV") from None


def _unreadable(path: Path, why: str) -> Refusal:
    return Refusal(Code.INPUT_INVALID, f"{path.name} cannot be read: {why}.", remedy="Give a .parquet or a .csv file.")
