from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isthmus.contracts.errors import Code, Refusal
from isthmus.learning.aggregate import federated_average
from isthmus.learning.weights import encode

NUMBERS = hnp.arrays(np.float32, (2, 3), elements=st.floats(-1000, 1000, width=32))
SITES = ("cn-shanghai", "eu-berlin", "us-texas")


def model(*numbers: float) -> dict[str, np.ndarray]:
    return {"a": np.array(numbers, np.float32)}


def test_an_update_weighs_as_much_as_its_count() -> None:
    average = federated_average(
        model(10.0, 0.0), {"cn": model(4.0, -8.0), "us": model(0.0, 8.0)}, {"cn": 148, "us": 148 * 3}
    )
    np.testing.assert_array_equal(average["a"], [11.0, 4.0])


@given(st.lists(st.tuples(NUMBERS, st.integers(1, 10**6)), min_size=1, max_size=3), NUMBERS)
def test_the_average_is_the_weighted_mean_whoever_answered_first(
    updates: list[tuple[np.ndarray, int]], start: np.ndarray
) -> None:
    deltas = {site: {"a": delta} for site, (delta, _) in zip(SITES, updates, strict=False)}
    counts = {site: count for site, (_, count) in zip(SITES, updates, strict=False)}
    before = encode({"a": start})
    average = federated_average({"a": start}, deltas, counts)
    total = sum(counts.values())
    exact = start + sum(deltas[s]["a"].astype(np.float64) * counts[s] / total for s in counts)
    np.testing.assert_allclose(average["a"], exact, atol=2e-3)
    backwards = federated_average({"a": start}, dict(reversed(deltas.items())), dict(reversed(counts.items())))
    assert encode(backwards) == encode(average)
    assert encode({"a": start}) == before


def test_a_model_larger_than_a_block_is_averaged_to_its_end() -> None:
    size = 200_003
    base, delta = np.arange(size, dtype=np.float32), np.full(size, 2.0, np.float32)
    average = federated_average({"a": base}, {"x": {"a": delta}, "y": {"a": -delta}}, {"x": 3, "y": 1})
    np.testing.assert_array_equal(average["a"], base + 1.0)


def test_what_cannot_be_averaged_is_refused() -> None:
    one, huge = model(1.0), model(3e38)
    cases = [
        ({}, {}, Code.TOO_FEW_CONTRIBUTORS),
        ({"cn": one}, {"cn": 0}, Code.INPUT_INVALID),
        ({"cn": one, "us": one}, {"cn": 5, "us": -4}, Code.INPUT_INVALID),
        ({"cn": one}, {}, Code.INPUT_INVALID),
        ({"cn": one}, {"us": 1}, Code.INPUT_INVALID),
        ({"cn": one}, {"cn": 1, "us": 1}, Code.INPUT_INVALID),
        ({"cn": model(1.0, 2.0)}, {"cn": 1}, Code.SCHEMA_MISMATCH),
        ({"cn": {"b": one["a"]}}, {"cn": 1}, Code.SCHEMA_MISMATCH),
        ({"cn": model(float("nan"))}, {"cn": 1}, Code.NOT_FINITE),
    ]
    for deltas, counts, code in cases:
        with pytest.raises(Refusal) as refusal:
            federated_average(one, deltas, counts)
        assert refusal.value.code is code
    with pytest.raises(Refusal) as refusal:
        federated_average(huge, {"cn": huge}, {"cn": 1})
    assert refusal.value.code is Code.NOT_FINITE
