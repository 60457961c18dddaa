"""Columns of an input table, read strictly: each comes out in the type its specification names, or is refused.

A refusal names the row (counted from 0) and the column, never a value: values may be personal.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.raw_table import Dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from isthmus.contracts.raw_table import Column

TEXT = pa.dictionary(pa.int32(), pa.string())
"""Texts of drives repeat from row to row: each is held once, and rows point to it."""

ARROW_TYPES: dict[Dtype, pa.DataType] = {
    Dtype.STRING: TEXT,
    Dtype.INT32: pa.int32(),
    Dtype.FLOAT32: pa.float32(),
    Dtype.FLOAT64: pa.float64(),
}
MAX_TEXT = 128
MAX_INT32 = 2**31 - 1
ROWS_PER_RUN = 8
LOOKED_AT = 512
"""From so many rows a run on, finding the runs of a text is cheaper than looking up each row's. The first rows tell."""
_FIRST = np.zeros(1, np.int64)
_TEXTUAL = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
_NUMBER = r"(?i)^\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf(inity)?)\s*$"


@dataclass(frozen=True, slots=True)
class Source:
    """What refusals speak of."""

    name: str

    def refuse_empty(self, table: pa.Table) -> None:
        """Refuse a table without rows: a header alone is more likely a failed export than a drive."""
        if table.num_rows == 0:
            remedy = "Export it again, or leave it out: nothing of it has been stored."
            raise Refusal(Code.INPUT_INVALID, f"{self.name} has no rows.", remedy=remedy)

    def refuse(self, bad: NDArray[np.bool_], column: str, why: str) -> None:
        """Refuse for the first row that is `bad`, if any is."""
        if bad.any():
            raise self.refusal(int(np.argmax(bad)), column, why)

    def refusal(self, row: int, column: str, why: str) -> Refusal:
        """Return the refusal of one row for its value in one column."""
        what = f"Row {row} of {self.name}, column {column}: {why}"
        remedy = "Correct the input and ingest it again: nothing of it has been stored."
        return Refusal(Code.INPUT_INVALID, what, why="Rows are counted from 0.", remedy=remedy)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece, without a copy where it is one already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def text_codes(column: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.int32], list[str]]:
    """Return the rows' numbers in a `TEXT` column (-1 for null) and the texts by number."""
    encoded = whole(column) if isinstance(column, pa.ChunkedArray) else column
    return codes_of(encoded), encoded.dictionary.to_pylist()


def codes_of(encoded: pa.DictionaryArray) -> NDArray[np.int32]:
    """Return the rows' numbers in a column of texts, -1 for null."""
    indices = pc.fill_null(encoded.indices, -1) if encoded.null_count else encoded.indices
    return cast("NDArray[np.int32]", indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False))


def changes(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the rows whose code is not that of the row before, the first of all among them."""
    return np.append(0, np.flatnonzero(codes[1:] != codes[:-1]) + 1)[: len(codes)]


def array(table: pa.Table, column: Column, source: Source) -> pa.Array:
    """Return a column as its specification says, nulls where an optional one is not there.

    Raises:
        Refusal: `INPUT_INVALID`: another type, a null where none may be, NaN, a value out of range.
    """
    if column.name not in table.schema.names:
        return pa.nulls(table.num_rows, ARROW_TYPES[column.dtype])
    values = table.column(column.name)
    if pa.types.is_null(values.type):
        values = values.cast(pa.string() if column.dtype is Dtype.STRING else pa.float64())
    if column.dtype is Dtype.STRING and pa.types.is_dictionary(values.type) and _is_text(values.type.value_type):
        values = values.cast(pa.string())  # a null may be one of its words, which Arrow counts as no null of the rows
    if column.required and values.null_count:
        source.refuse(values.is_null().to_numpy(), column.name, "it is empty.")
    if column.dtype is Dtype.STRING:
        return _texts(values, column, source)
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise source.refusal(_first_no_number(values), column.name, f"it is {values.type}, not a number.")
    numbers = whole(values)
    if numbers.null_count == 0 and _is_fit_range(numbers, column):
        return numbers if numbers.type == ARROW_TYPES[column.dtype] else numbers.cast(ARROW_TYPES[column.dtype])
    return _numbers(numbers, numbers.is_null().to_numpy(zero_copy_only=False), column, source)


def _texts(values: pa.ChunkedArray, column: Column, source: Source) -> pa.Array:
    type_ = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not _is_text(type_):
        raise source.refusal(0, column.name, f"it is {type_}, not text.")
    plain = values if values.type == pa.string() else values.cast(pa.string())
    encoded = _encoded(plain)
    try:
        encoded.dictionary.validate(full=True)
    except pa.ArrowInvalid:
        raise Refusal(Code.INPUT_INVALID, f"Column {column.name} of {source.name} is not UTF-8.") from None
    codes, texts = text_codes(encoded)
    if not all(_is_fit(text) for text in texts):
        bad = np.array([not _is_fit(text) for text in texts] + [False])
        source.refuse(
            bad[codes], column.name, f"it is empty, over {MAX_TEXT} characters long, not printable, or not Unicode NFC."
        )
    if column.values is not None and not set(texts) <= set(column.values):
        bad = np.array([text not in column.values for text in texts] + [False])
        source.refuse(bad[codes], column.name, f"it is none of {', '.join(column.values)}.")
    return encoded if encoded.type == TEXT else encoded.cast(TEXT)


def _encoded(plain: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return texts as a dictionary, in the order in which they first stand there, and the rows' numbers in it."""
    head = plain.slice(0, LOOKED_AT).combine_chunks()
    if plain.null_count or len(_runs(head)) * ROWS_PER_RUN > len(head):
        return pc.dictionary_encode(plain).unify_dictionaries().combine_chunks()
    pieces = [piece for piece in plain.chunks if len(piece)]
    runs = [_runs(piece) for piece in pieces]
    firsts = [
        piece[:1] if len(begins) == 1 else piece.take(pa.array(begins))
        for piece, begins in zip(pieces, runs, strict=True)
    ]
    few = pc.dictionary_encode(pa.concat_arrays(firsts))
    starts = accumulate((len(piece) for piece in pieces), initial=0)
    begins = np.concatenate([begins + start for begins, start in zip(runs, starts, strict=False)])
    codes = np.repeat(few.indices.to_numpy(), np.diff(begins, append=len(plain)))
    return pa.DictionaryArray.from_arrays(pa.array(codes), few.dictionary)


def _runs(texts: pa.Array) -> NDArray[np.int64]:
    """Return the rows where a text stands that is not the one before: the first, and some more."""
    ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    size = int(ends[1] - ends[0])
    if size and bool((np.diff(ends) == size).all()):
        letters = np.frombuffer(texts.buffers()[2], np.uint8)[ends[0] : ends[-1]]
        differs = (letters[size:] != letters[:-size]).nonzero()[0] // size
        return np.concatenate([_FIRST, np.unique(differs) + 1]) if len(differs) else _FIRST
    differs = pc.not_equal(texts[1:], texts[:-1]).to_numpy(zero_copy_only=False).nonzero()[0]
    return np.concatenate([_FIRST, differs + 1])


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _is_fit(text: str) -> bool:
    return 0 < len(text) <= MAX_TEXT and text.isprintable() and unicodedata.is_normalized("NFC", text)


def _is_float(type_: pa.DataType) -> bool:
    return type_ in {pa.float32(), pa.float64()}


def _is_fit_range(values: pa.Array, column: Column) -> bool:
    """Tell, from the least and the greatest of a column without nulls, that every value of it will do.

    False where it takes a closer look: that is for `_numbers`, which names the row.
    """
    fit = pa.types.is_integer if column.dtype is Dtype.INT32 else _is_float
    if not fit(values.type):
        return False
    numbers = values.to_numpy()
    least, greatest = float(numbers.min()), float(numbers.max())  # NaN where one of them is NaN
    high = np.inf if column.high is None else column.high
    low = -np.inf if column.low is None else column.low
    if column.dtype is Dtype.INT32:
        high = min(high, MAX_INT32)
    return low <= least and greatest <= high


def _numbers(values: pa.Array, nulls: NDArray[np.bool_], column: Column, source: Source) -> pa.Array:
    filled = pc.fill_null(values, 0) if nulls.any() else values
    numbers = cast("NDArray[np.float64]", filled.to_numpy().astype(np.float64, copy=False))
    source.refuse(np.isnan(numbers), column.name, "it is not a number (NaN).")
    low = -np.inf if column.low is None else column.low
    high = np.inf if column.high is None else column.high
    if column.dtype is Dtype.INT32:
        high = min(high, MAX_INT32)
        source.refuse(np.floor(numbers) != numbers, column.name, "it is not a whole number.")
    # Where a null was filled with 0, that is no value to be judged.
    out = ((numbers < low) | (numbers > high)) & ~nulls
    source.refuse(out, column.name, f"it is not within {low:g} and {high:g}{f' {column.unit}' if column.unit else ''}.")
    return pa.array(numbers, mask=nulls).cast(ARROW_TYPES[column.dtype])


def _first_no_number(values: pa.ChunkedArray) -> int:
    """Return the first row of a column of another type that does not read as a number, 0 where its type alone is wrong.

    One word among numbers makes a column of a CSV file text, so that it is the word's row that has to be found.
    """
    type_ = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not any(is_text(type_) for is_text in _TEXTUAL):
        return 0
    reads = pc.match_substring_regex(values.cast(type_), _NUMBER)
    return max(0, int(pc.index(pc.fill_null(reads, fill_value=True), value=False).as_py()))
