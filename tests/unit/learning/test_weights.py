from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import TypeAdapter, ValidationError

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.tensors import MAX_ELEMENTS, ModelSchema, TensorSpec
from isthmus.learning.weights import MODEL_SCHEMA, add, clip, decode, encode, l2_norm, pieces, schema_of, subtract

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_/.]{0,12}", fullmatch=True)
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
WEIGHTS = st.dictionaries(NAMES, hnp.arrays(np.float32, SHAPES, elements=FINITE), min_size=1, max_size=5)
MODERATE = st.dictionaries(
    NAMES, hnp.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=5
)

SPECS = (TensorSpec(name="a", shape=(2, 3)), TensorSpec(name="b", shape=(4,)))
GOOD = encode({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)})
HEADER_END = 8 + int.from_bytes(GOOD[:8], "little")
HEADER, PAYLOAD = GOOD[8:HEADER_END], GOOD[HEADER_END:]


def spelled(header: str | bytes, payload: bytes = PAYLOAD) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + payload


def described(**changes: object) -> str:
    """The good header with entries changed."""
    header = json.loads(HEADER)
    for name, entry in changes.items():
        header[name] = {**header.get(name, {}), **entry} if isinstance(entry, dict) else entry
    text = json.dumps(header, separators=(",", ":"))
    return text + " " * (-len(text) % 8)


def refusal_of(data: bytes | memoryview, specs: tuple[TensorSpec, ...] = SPECS) -> Code:
    with pytest.raises(Refusal) as refusal:
        decode(data, specs)
    return refusal.value.code


@given(WEIGHTS)
def test_what_is_written_is_read_back_bit_for_bit(weights: dict[str, np.ndarray]) -> None:
    data = encode(weights)
    read = decode(data, schema_of(weights))
    assert list(read) == sorted(weights)
    for name, value in read.items():
        assert value.shape == weights[name].shape
        assert value.tobytes() == weights[name].tobytes()
    assert encode(read) == data == b"".join(pieces(read))


@given(WEIGHTS)
def test_the_file_is_the_one_that_the_safetensors_library_writes_and_reads(weights: dict[str, np.ndarray]) -> None:
    data = encode(weights)
    assert data == safetensors.numpy.save(weights)
    assert {name: value.tobytes() for name, value in safetensors.numpy.load(data).items()} == {
        name: value.tobytes() for name, value in weights.items()
    }


def test_the_order_of_tensors_and_their_layout_in_memory_do_not_show() -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, np.float32)
    assert encode({"b": b, "a": np.asfortranarray(a)}) == encode({"a": a, "b": b}) == GOOD


def test_what_is_read_shares_memory_and_cannot_be_written() -> None:
    buffer = bytearray(GOOD)
    read = decode(memoryview(buffer), SPECS)
    assert np.shares_memory(read["a"], np.frombuffer(buffer, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        read["a"][0, 0] = 1.0


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return print, ("ran",)


HOSTILE: dict[str, tuple[bytes, Code]] = {
    "nothing": (b"", Code.TRUNCATED),
    "half a length": (GOOD[:5], Code.TRUNCATED),
    "half a header": (GOOD[:40], Code.TRUNCATED),
    "header only": (GOOD[:HEADER_END], Code.TRUNCATED),
    "one byte short": (GOOD[:-1], Code.TRUNCATED),
    "one byte more": (GOOD + b"\0", Code.TOO_LARGE),
    "a second file behind": (GOOD + GOOD, Code.TOO_LARGE),
    "a header of 2^64-1 bytes": (b"\xff" * 8 + GOOD[8:], Code.TOO_LARGE),
    "a header of 1 MiB": (spelled(HEADER + b" " * 2**20), Code.TOO_LARGE),
    "an empty header": (spelled(""), Code.MALFORMED),
    "a list": (spelled("[1,2]   "), Code.MALFORMED),
    "deep nesting": (spelled("[" * 100_000), Code.MALFORMED),
    "a long number": (spelled("9" * 100_000), Code.MALFORMED),
    "not UTF-8": (spelled(b"{\xff\xfe"), Code.MALFORMED),
    "overlap": (spelled(described(b={"data_offsets": [8, 24]})), Code.MALFORMED),
    "gap": (spelled(described(b={"data_offsets": [28, 44]}), PAYLOAD[:24] + b"hide" + PAYLOAD[24:]), Code.MALFORMED),
    "offsets backwards": (spelled(described(a={"data_offsets": [24, 0]})), Code.MALFORMED),
    "offsets negative": (spelled(described(a={"data_offsets": [-24, 0]})), Code.MALFORMED),
    "offsets huge": (spelled(described(a={"data_offsets": [0, 2**80]})), Code.MALFORMED),
    "tensors in another order": (
        spelled(described(a={"data_offsets": [16, 40]}, b={"data_offsets": [0, 16]})),
        Code.MALFORMED,
    ),
    "metadata": (spelled(described(__metadata__={"note": "hidden"})), Code.MALFORMED),
    "more padding": (spelled(HEADER + b" " * 8), Code.MALFORMED),
    "other spaces": (spelled(HEADER.replace(b":", b": ", 1)), Code.MALFORMED),
    "an unknown key": (spelled(described(a={"note": "hidden"})), Code.MALFORMED),
    "a name twice": (spelled(b'{"a":{"dtype":"U8"},' + HEADER[1:]), Code.MALFORMED),
    "another name": (spelled(HEADER.replace(b'"b"', b'"c"')), Code.SCHEMA_MISMATCH),
    "one tensor more": (
        spelled(described(c={"dtype": "F32", "shape": [1], "data_offsets": [40, 44]}), PAYLOAD + bytes(4)),
        Code.SCHEMA_MISMATCH,
    ),
    "one tensor less": (encode({"a": np.zeros((2, 3), np.float32)}), Code.SCHEMA_MISMATCH),
    "no tensors": (encode({}), Code.SCHEMA_MISMATCH),
    "another shape": (spelled(described(a={"shape": [3, 2]})), Code.SCHEMA_MISMATCH),
    "a shape of text": (spelled(described(a={"shape": "2,3"})), Code.SCHEMA_MISMATCH),
    "another type": (spelled(described(a={"dtype": "I32"})), Code.SCHEMA_MISMATCH),
    "half floats": (
        safetensors.numpy.save({"a": np.zeros((2, 3), np.float16), "b": np.ones(4, np.float32)}),
        Code.SCHEMA_MISMATCH,
    ),
    "an entry that is no object": (spelled(described(a=7)), Code.SCHEMA_MISMATCH),
    "NaN": (GOOD[:-4] + np.float32(np.nan).tobytes(), Code.NOT_FINITE),
    "a signalling NaN": (GOOD[:-4] + bytes.fromhex("0100807f"), Code.NOT_FINITE),
    "infinity": (GOOD[:HEADER_END] + np.float32(np.inf).tobytes() + GOOD[HEADER_END + 4 :], Code.NOT_FINITE),
    "minus infinity": (GOOD[:-4] + np.float32(-np.inf).tobytes(), Code.NOT_FINITE),
    "a pickle": (pickle.dumps({"a": Bomb()}), Code.TOO_LARGE),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_its_code(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, code = HOSTILE[case]
    assert refusal_of(data) is code
    assert refusal_of(memoryview(data)) is code
    assert capsys.readouterr().out == ""


@given(st.binary(max_size=300))
@example(b"\x02\0\0\0\0\0\0\0{}")
def test_bytes_that_are_no_model_are_refused_and_nothing_else_happens(data: bytes) -> None:
    assert isinstance(refusal_of(data), Code)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_is_another_number(position: int, change: int) -> None:
    data = bytearray(GOOD)
    data[position] ^= change
    try:
        read = decode(bytes(data), SPECS)
    except Refusal:
        return
    assert position >= HEADER_END
    assert encode(read) == data


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.binary(max_size=40))
def test_a_spliced_file_is_refused_or_has_one_spelling(start: int, end: int, inserted: bytes) -> None:
    data = GOOD[:start] + inserted + GOOD[end:]
    try:
        read = decode(data, SPECS)
    except Refusal:
        return
    assert encode(read) == data
    assert data[:HEADER_END] == GOOD[:HEADER_END]


def test_a_schema_that_is_empty_or_names_a_tensor_twice_reads_nothing() -> None:
    assert refusal_of(encode({}), ()) is Code.SCHEMA_MISMATCH
    assert refusal_of(GOOD, (*SPECS, SPECS[0])) is Code.SCHEMA_MISMATCH


@pytest.mark.parametrize(
    "weights",
    [
        {"a": np.zeros(2)},
        {"a": np.zeros(2, ">f4")},
        {"a": np.float32(1.0).reshape(())},
        {"a": np.zeros((2, 0), np.float32)},
        {"A": np.zeros(2, np.float32)},
        {"__metadata__": np.zeros(2, np.float32)},
        {"a" * 65: np.zeros(2, np.float32)},
    ],
)
def test_weights_that_no_schema_allows_are_not_written(weights: dict[str, np.ndarray]) -> None:
    with pytest.raises(Refusal) as refusal:
        encode(weights)
    assert refusal.value.code is Code.SCHEMA_MISMATCH


@given(WEIGHTS, st.floats(1e-9, 1e30))
@example({"a": np.full(3, 3e38, np.float32)}, 1e-6)
@example({"a": np.array([1e-45], np.float32)}, 1e-9)
def test_clipped_weights_are_within_the_bound_and_keep_their_direction(
    weights: dict[str, np.ndarray], bound: float
) -> None:
    clipped, norm = clip(weights, bound)
    exact = float(np.sqrt(np.sum([np.sum(np.square(v.astype(np.longdouble))) for v in weights.values()])))
    assert norm == pytest.approx(exact, rel=1e-12)
    assert l2_norm(clipped) <= bound
    assert schema_of(clipped) == schema_of(weights)
    if norm <= bound:
        assert encode(clipped) == encode(weights)
    elif bound / norm > 1e-37:
        for name, value in weights.items():
            scaled = value.astype(np.float64) * (bound / norm)
            np.testing.assert_allclose(clipped[name], scaled, rtol=1e-6, atol=bound * 1e-6 + 1e-44)


def test_a_bound_on_many_numbers_holds_and_is_nearly_reached() -> None:
    weights = {"a": np.random.default_rng(0).normal(size=300_001).astype(np.float32)}
    clipped, norm = clip(weights, 1.0)
    assert norm > 500.0
    assert 1.0 - 1e-6 < l2_norm(clipped) <= 1.0


def test_weights_that_are_not_finite_cannot_be_clipped() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(Refusal) as refusal:
            clip({"a": np.array([1.0, bad], np.float32)}, 1.0)
        assert refusal.value.code is Code.NOT_FINITE
    for bound in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="bound"):
            clip({"a": np.ones(1, np.float32)}, bound)


@given(MODERATE)
def test_a_difference_added_again_is_where_it_started(weights: dict[str, np.ndarray]) -> None:
    zero = subtract(weights, weights)
    assert not any(value.any() for value in zero.values())
    assert all(np.array_equal(value, weights[name]) for name, value in add(weights, zero).items())
    doubled = add(weights, weights)
    assert all(np.array_equal(value, weights[name]) for name, value in subtract(doubled, weights).items())


def test_different_models_are_not_added_up() -> None:
    a = {"a": np.ones((2, 1), np.float32)}
    for b in ({"b": a["a"]}, {"a": np.ones((1, 2), np.float32)}, {"a": np.ones(2, np.float32)}, {**a, "b": a["a"]}):
        for combine in (add, subtract):
            with pytest.raises(Refusal) as refusal:
                combine(a, b)
            assert refusal.value.code is Code.SCHEMA_MISMATCH


def test_a_border_that_reads_models_does_not_load_jax() -> None:
    program = (
        "import sys; from isthmus.learning import aggregate, algorithm, forecaster, metrics, weights, windows; "
        "sys.exit(any(m in sys.modules for m in ('jax', 'optax')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "", "shape": [1]},
        {"name": "A", "shape": [1]},
        {"name": "a\n", "shape": [1]},
        {"name": "_a", "shape": [1]},
        {"name": "a" * 65, "shape": [1]},
        {"name": "a", "shape": []},
        {"name": "a", "shape": [0]},
        {"name": "a", "shape": [1, 1, 1, 1, 1]},
        {"name": "a", "shape": [MAX_ELEMENTS, 2]},
        {"name": "a", "shape": [True]},
        {"name": "a", "shape": [1], "dtype": "float64"},
        {"name": "a", "shape": [1], "note": "hidden"},
    ],
)
def test_a_specification_outside_the_rules_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TensorSpec.model_validate_json(json.dumps(spec))


def test_a_schema_is_sorted_without_repeats_and_not_too_large() -> None:
    adapter = TypeAdapter(ModelSchema)
    assert adapter.validate_python(MODEL_SCHEMA) == MODEL_SCHEMA
    half = TensorSpec(name="c", shape=(MAX_ELEMENTS,))
    for bad in ((SPECS[1], SPECS[0]), (SPECS[0], SPECS[0]), (*SPECS, half)):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)
