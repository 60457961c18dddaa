"""One number for each vehicle, over all files: each has a dictionary of its own.

Files of the same vehicles have the same dictionary, which is found by one comparison; otherwise, and where a dictionary
has a word twice, words are looked up, each dictionary's once. Rows of large files stay where they lie; small files,
each of which costs as much to look at as thousands of rows, are put together first.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.analytics.stored import VEHICLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Numbers = NDArray[np.int32] | None
    """Vehicles' numbers by their places in a dictionary; None where they are these places."""

CORES = os.cpu_count() or 1
BLOCK = 1 << 21
"""Rows looked at together, on one core: what is computed about them is small beside the table."""
SMALL = 1 << 16
"""Rows of which fewer are copied, to be looked at together with others, in less time than by themselves."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows in blocks.

    Attributes:
        files: in how many tables a vehicle may have rows, as far as dictionaries tell at a glance: guesses are made of
            it, and no sums.
        blocks: the rows.
        vehicles: the vehicles, by their numbers.
        numbers: for each block, the numbers by its dictionary.
    """

    files: int
    blocks: tuple[pa.RecordBatch, ...]
    vehicles: pa.Array
    numbers: tuple[Numbers, ...]

    @classmethod
    def of(cls, rows: pa.Table, files: int, most: int | None = None) -> Blocks:
        """Cut the rows of so many files into blocks, and number their vehicles.

        Args:
            rows: of all files, one after the other.
            files: how many they were.
            most: rows of a block at most; where None, so many that all cores have the same to do.
        """
        most = _shared_out(rows.num_rows) if most is None else most
        dictionaries: list[pa.Array] = []
        blocks: list[pa.RecordBatch] = []
        which: list[int] = []
        for block in _joined(rows, most):
            mine = block.column(VEHICLE).dictionary
            if not dictionaries or not mine.equals(dictionaries[-1]):
                dictionaries.append(mine)
            size = -(-block.num_rows // -(-block.num_rows // most))
            parts = [block.slice(start, size) for start in range(0, block.num_rows, size)]
            blocks += parts
            which += [len(dictionaries) - 1] * len(parts)
        if not dictionaries or (len(dictionaries) == 1 and _are_apart(dictionaries[0])):
            (vehicles,) = dictionaries or [pa.array([], pa.string())]
            return cls(files, tuple(blocks), vehicles, (None,) * len(blocks))
        vehicles = pc.unique(pa.chunked_array(dictionaries))  # in the order in which they first stand there
        ends = np.cumsum([len(each) for each in dictionaries], dtype=np.int32)
        if are_apart := len(vehicles) == ends[-1]:
            numbers = [
                np.arange(end - len(each), end, dtype=np.int32) for each, end in zip(dictionaries, ends, strict=True)
            ]
        else:
            numbers = [pc.index_in(each, vehicles).to_numpy() for each in dictionaries]
        return cls(1 if are_apart else files, tuple(blocks), vehicles, tuple(numbers[place] for place in which))


def _shared_out(rows: int) -> int:
    """Return how many rows a block has, so that each core has as many blocks as any other."""
    blocks = max(1, -(-rows // BLOCK))
    return max(SMALL, -(-rows // (blocks + -blocks % CORES)))


def _joined(rows: pa.Table, most: int) -> Iterator[pa.RecordBatch]:
    """Yield rows in their order; small pieces that follow each other as one, of at most so many rows."""
    runs: list[list[pa.RecordBatch]] = []
    room = 0
    for piece in filter(len, rows.to_batches()):
        if piece.num_rows > min(room, SMALL):
            runs.append([])
            room = most if piece.num_rows <= SMALL else 0
        runs[-1].append(piece)
        room -= piece.num_rows
    with ThreadPoolExecutor(CORES) as pool:
        for run in pool.map(_one, runs):
            yield from run


def _one(run: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return run if len(run) == 1 else pa.Table.from_batches(run).combine_chunks().to_batches()


def _are_apart(words: pa.Array) -> bool:
    """Tell whether no word of a dictionary is there twice. Where words rise, as ingest writes them, that is quick."""
    rise = pc.all(pc.less(words[:-1], words[1:]), skip_nulls=False).as_py()
    return bool(rise) or len(pc.unique(words)) == len(words)


def rows_of(block: pa.RecordBatch, some: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the places of some vehicles' rows in a block; vehicles by their places in its dictionary."""
    vehicle: NDArray[np.int32] = block.column(VEHICLE).indices.to_numpy()
    if (vehicle[1:] < vehicle[:-1]).any():
        return np.flatnonzero(some.take(vehicle))
    them = np.flatnonzero(some).astype(np.int32)
    starts, ends = (np.searchsorted(vehicle, them, side) for side in ("left", "right"))
    counts = ends - starts
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
