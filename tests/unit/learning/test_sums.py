"""What lies between a zone and its border in a private training: whole numbers, and nothing else."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.tensors import TensorSpec
from isthmus.learning.sums import decode, encode, released

SCHEMA = (TensorSpec(name="a", shape=(2,)), TensorSpec(name="b", shape=(2, 2)))
INT32 = 2**31
WIDE = st.integers(-(2**40), 2**40)
SIX = st.lists(WIDE, min_size=6, max_size=6)


@given(st.lists(st.integers(-INT32, INT32 - 1), min_size=6, max_size=6))
def test_a_sum_arrives_as_it_left(numbers: list[int]) -> None:
    payload = encode(np.array(numbers))
    assert payload == struct.pack("<6i", *numbers)
    for data in (payload, bytearray(payload), memoryview(payload)):
        arrived = decode(data, SCHEMA)
        assert arrived.dtype == np.int64
        assert arrived.tolist() == numbers


@given(SIX, st.lists(st.integers(-(2**17), 2**17), min_size=6, max_size=6))
def test_what_one_vehicle_changes_is_never_made_larger(others: list[int], own: list[int]) -> None:
    """Also where the sum is beyond what int32 holds: the noise hides what it hid before."""
    without = decode(encode(np.array(others)), SCHEMA)
    together = decode(encode(np.array(others) + np.array(own)), SCHEMA)
    assert (np.abs(together - without) <= np.abs(own)).all()
    assert (np.sign(together - without) * np.sign(own) >= 0).all()


def test_what_is_beyond_int32_is_the_nearest_that_it_has() -> None:
    found = decode(encode(np.array([INT32, -INT32 - 1, 2**62, -(2**62), INT32 - 1, -INT32])), SCHEMA)
    assert found.tolist() == [INT32 - 1, -INT32, INT32 - 1, -INT32, INT32 - 1, -INT32]


@pytest.mark.parametrize("length", [0, 4, 20, 23, 25, 28])
def test_a_payload_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(Refusal) as refused:
        decode(bytes(length), SCHEMA)
    assert refused.value.code is Code.SCHEMA_MISMATCH


def test_a_model_without_tensors_has_no_sum() -> None:
    with pytest.raises(Refusal):
        decode(b"", ())


def test_the_update_is_the_noised_sum_in_the_models_units() -> None:
    noised = [4, -8, 2**33, -(2**33), 0, 1]
    update = released(noised, SCHEMA, norm=0.5, grain=4, vehicles=2)
    assert {name: value.dtype for name, value in update.items()} == {"a": np.float32, "b": np.float32}
    assert update["a"].tolist() == [0.25, -0.5]
    assert update["b"].tolist() == [[2.0**29, -(2.0**29)], [0.0, 0.0625]]


@pytest.mark.parametrize(
    ("noised", "norm", "code"),
    [([1] * 5, 1.0, Code.SCHEMA_MISMATCH), ([1] * 7, 1.0, Code.SCHEMA_MISMATCH), ([10**40] * 6, 1.0, Code.NOT_FINITE)],
)
def test_what_is_no_update_is_refused(noised: list[int], norm: float, code: Code) -> None:
    with pytest.raises(Refusal) as refused:
        released(noised, SCHEMA, norm=norm, grain=1, vehicles=1)
    assert refused.value.code is code
