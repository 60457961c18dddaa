"""What a raw table must be before anything of it is stored.

Rules:
1. Its columns are those of `contracts.raw_table`; an optional one may be missing, no other may be there.
2. Types can be cast without loss; there is no null in a required column and no NaN in any; values are in range.
3. (`scene_id`, `t`, `track_id`) stands once. A scene has one vehicle, one ego at every instant, and its instants are
   0.2 s apart, give or take 10 ms, or a multiple of it where samples were lost.
4. A refusal names the row (counted from 0) and the column, never a value: values may be personal.

What is right is seen at once, over many small tables laid end to end. What is not, or stands in another order, is
looked at again table by table and row by row: that alone refuses, so a refusal is the same however tables are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.raw_table import EGO_TRACK, RAW_COLUMNS, SAMPLE_RATE_HZ
from isthmus.kit.ahead import ahead
from isthmus.zone.columns import Source, array, changes, text_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

CHECKED_AT_ONCE = 2
"""Heaps of tables that are checked side by side, and held."""
ROWS_PER_HEAP = 1 << 16
"""About 10 MB of a raw table."""
STEP_S = 1.0 / SAMPLE_RATE_HZ
STEP_TOLERANCE_S = 0.01


def validated(table: pa.Table, *, name: str = "the table") -> pa.Table:
    """Check a raw table and return it in canonical form.

    Args:
        table: any number of drives, in any order of rows.
        name: what to call it in a refusal.

    Returns:
        The columns of `RAW_COLUMNS` in their order and types (texts as `TEXT`), rows by `scene_id`, `t`, `track_id`.

    Raises:
        Refusal: `INPUT_INVALID`, with the first row and the column that break a rule.
    """
    source = Source(name)
    arrays = _columns(table, source)
    canonical = pa.table(list(arrays.values()), names=list(arrays))
    if _are_in_order(arrays, [0]):
        return canonical
    return canonical.take(pa.array(_check_drives(arrays, source)))


def all_validated(tables: Iterable[pa.Table], *, heap_rows: int = ROWS_PER_HEAP) -> Iterator[pa.Table]:
    """Check tables one after the other (see `validated`); a drive stands in one of them.

    Args:
        tables: taken a few at a time, before the first is given back.
        heap_rows: tables are taken together up to so many rows; a larger one is alone.

    Raises:
        Refusal: `INPUT_INVALID`, the first in the tables' order. Tables are counted from 0.
        Exception: what taking a table raises, where nothing is wrong with the tables before it.
    """
    seen: set[str] = set()
    for heap, scenes in ahead(_checked, _heaps(tables, heap_rows), CHECKED_AT_ONCE):
        if scenes is None or scenes & seen:
            yield from _one_by_one(heap, seen)
        else:
            seen |= scenes
            yield from heap.tables


@dataclass(frozen=True, slots=True)
class _Heap:
    """Tables of one schema that are checked together; `first` is the first one's number."""

    first: int
    tables: tuple[pa.Table, ...]

    @property
    def starts(self) -> list[int]:
        """The tables' first rows, where they are laid end to end."""
        return list(accumulate((table.num_rows for table in self.tables[:-1]), initial=0))


def _heaps(tables: Iterable[pa.Table], most: int) -> Iterator[_Heap]:
    """Gather tables that follow each other, up to so many rows; one without rows is the last of its heap.

    Where taking a table fails, those before it come first: what is wrong with them is wrong earlier in the input.
    """
    held: list[pa.Table] = []
    rows = first = 0
    try:
        for table in tables:
            ends = held and (held[-1].num_rows == 0 or table.schema != held[0].schema)
            if ends or (held and rows + table.num_rows > most):
                yield _Heap(first, tuple(held))
                first, rows, held = first + len(held), 0, []
            held.append(table)
            rows += table.num_rows
    except Exception:
        if held:
            yield _Heap(first, tuple(held))
        raise
    if held:
        yield _Heap(first, tuple(held))


def _checked(heap: _Heap) -> tuple[_Heap, set[str] | None]:
    """Check a heap as one table; return it in canonical form, and its scenes.

    Rows stand where they stood. Where it takes a closer look, the heap comes back as it is, and None.
    """
    if not all(table.num_rows for table in heap.tables):
        return heap, None
    try:
        arrays = _columns(pa.concat_tables(heap.tables), Source("the heap"))
    except Refusal:
        return heap, None
    if not _are_in_order(arrays, heap.starts):
        return heap, None
    whole = pa.table(list(arrays.values()), names=list(arrays))
    parts = (whole.slice(start, table.num_rows) for start, table in zip(heap.starts, heap.tables, strict=True))
    return _Heap(heap.first, tuple(parts)), set(text_codes(arrays["scene_id"])[1])


def _one_by_one(heap: _Heap, seen: set[str]) -> Iterator[pa.Table]:
    """Check each table of a heap; scenes that earlier tables hold are `seen`, and those of the heap come to them."""
    for number, table in enumerate(heap.tables, heap.first):
        source = Source(f"table {number}")
        checked = validated(table, name=source.name)
        scenes = set(text_codes(checked.column("scene_id"))[1])
        if again := scenes & seen:
            repeated = pc.is_in(table.column("scene_id").cast(pa.string()), pa.array(sorted(again)))
            source.refuse(repeated.to_numpy(), "scene_id", "an earlier table holds this scene.")
        seen |= scenes
        yield checked


def _columns(table: pa.Table, source: Source) -> dict[str, pa.Array]:
    """Return the columns of a table that has rows, each as its specification says."""
    if table.num_rows == 0:
        raise Refusal(Code.INPUT_INVALID, f"{source.name} has no rows.")
    _check_names(table, source)
    return {column.name: array(table, column, source) for column in RAW_COLUMNS}


def _check_names(table: pa.Table, source: Source) -> None:
    names = table.schema.names
    for column in RAW_COLUMNS:
        if names.count(column.name) > 1 or (column.required and column.name not in names):
            times = "more than once" if column.name in names else "not there"
            raise Refusal(Code.INPUT_INVALID, f"Column {column.name} of {source.name} is {times}.")
    known = {column.name for column in RAW_COLUMNS}
    if unknown := [number for number, name in enumerate(names) if name not in known]:
        what = f"Column number {unknown[0]} of {source.name} (counted from 0) is none of the raw table's."
        remedy = f"The columns are {', '.join(column.name for column in RAW_COLUMNS)}."
        raise Refusal(Code.INPUT_INVALID, what, remedy=remedy)


def _are_in_order(arrays: dict[str, pa.Array], starts: list[int]) -> bool:
    """Tell whether rule 3 holds and rows stand in canonical order, in each of the tables that begin at `starts`.

    Every drive is then one run of rows. False where it is not so, or is not seen to be.
    """
    scene, names = text_codes(arrays["scene_id"])
    t, track = arrays["t"].to_numpy(), arrays["track_id"].to_numpy()
    vehicle, _ = text_codes(arrays["vehicle"])
    begins = changes(scene)
    drives, tables = begins.tolist(), set(starts)
    if len(drives) != len(names) or not tables.issubset(drives) or not np.isin(changes(vehicle), begins).all():
        return False
    named = [names[scene[row]] for row in drives]
    if any(named[n] <= named[n - 1] and row not in tables for n, row in enumerate(drives) if n):
        return False
    same_instant = t[1:] == t[:-1]
    goes_on = (t[1:] > t[:-1]) | (same_instant & (track[1:] > track[:-1]))
    goes_on[begins[1:] - 1] = True
    same_instant[begins[1:] - 1] = False
    instants = np.concatenate([[0], np.flatnonzero(~same_instant) + 1])
    step = np.diff(t[instants])
    uneven = np.abs(step - np.maximum(np.round(step / STEP_S), 1) * STEP_S) > STEP_TOLERANCE_S
    uneven[np.searchsorted(instants, begins[1:]) - 1] = False
    return bool(goes_on.all() and (track[instants] == EGO_TRACK).all() and not uneven.any())


def _check_drives(arrays: dict[str, pa.Array], source: Source) -> NDArray[np.int64]:
    """Hold the rows to rule 3; return the order that sorts them."""
    scene = _ranks(arrays["scene_id"])
    vehicle, _ = text_codes(arrays["vehicle"])
    t, track = arrays["t"].to_numpy(), arrays["track_id"].to_numpy()
    order = np.arange(len(scene)) if _is_sorted(scene, t, track) else np.lexsort((track, t, scene))
    scene, t, track, vehicle = scene[order], t[order], track[order], vehicle[order]
    same_scene = np.diff(scene, prepend=-1) == 0
    same_instant = same_scene & (np.diff(t, prepend=0.0) == 0.0)
    repeated = same_instant & (np.diff(track, prepend=-1) == 0)
    _refuse_sorted(source, order, repeated, "track_id", "its scene has this track at this instant twice.")
    first = np.maximum.accumulate(np.where(same_scene, 0, np.arange(len(scene))))
    foreign = vehicle != vehicle[first]
    _refuse_sorted(source, order, foreign, "vehicle", "its scene has more than one recording vehicle.")
    alone = ~same_instant & (track != EGO_TRACK)
    _refuse_sorted(source, order, alone, "track_id", f"its instant has no ego (track {EGO_TRACK}).")
    ego = np.flatnonzero(~same_instant)
    step = np.diff(t[ego], prepend=0.0)
    steps = np.maximum(np.round(step / STEP_S), 1)
    uneven = np.zeros(len(scene), np.bool_)
    uneven[ego] = same_scene[ego] & (np.abs(step - steps * STEP_S) > STEP_TOLERANCE_S)
    _refuse_sorted(source, order, uneven, "t", f"its scene is not sampled at {SAMPLE_RATE_HZ} Hz.")
    return order


def _is_sorted(scene: NDArray[np.int64], t: NDArray[np.float64], track: NDArray[np.int32]) -> bool:
    """Tell whether rows stand by scene, then time, then track."""
    earlier, later = slice(None, -1), slice(1, None)
    in_track = (t[earlier] == t[later]) & (track[earlier] <= track[later])
    in_scene = (scene[earlier] == scene[later]) & ((t[earlier] < t[later]) | in_track)
    return bool(((scene[earlier] < scene[later]) | in_scene).all())


def _refuse_sorted(source: Source, order: NDArray[np.int64], bad: NDArray[np.bool_], column: str, why: str) -> None:
    """Refuse for the bad row that stands first in the input."""
    if bad.any():
        raise source.refusal(int(order[bad].min()), column, why)


def _ranks(column: pa.Array) -> NDArray[np.int64]:
    """Give each row the place of its text in alphabetical order."""
    codes, texts = text_codes(column)
    rank = np.empty(len(texts), np.int64)
    rank[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
    return rank[codes]
