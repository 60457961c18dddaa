from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.contracts.crossings import Contributors
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.orders import Weighting
from isthmus.coordinator.averaging import average, made_of, read_update
from isthmus.coordinator.registry import Registry
from isthmus.learning.forecaster import MODEL_SCHEMA, initial_weights
from unit.coordinator.jobs import CN, US

if TYPE_CHECKING:
    from pathlib import Path


def put(registry: Registry, payload: bytes) -> Digest:
    registry.put(payload, Digest.of(payload))
    return Digest.of(payload)


def test_what_is_put_is_read_after_a_restart(tmp_path: Path) -> None:
    digest = put(Registry(tmp_path), b"weights")
    assert Registry(tmp_path).read(digest) == b"weights"


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    digest = put(registry, b"weights")
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(b"weighty")
    with pytest.raises(Refusal) as refused:
        registry.read(digest)
    assert refused.value.code is Code.FILE_ALTERED


def test_a_model_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        Registry(tmp_path).read(Digest.of(b"none"))
    assert refused.value.code is Code.NOT_FOUND


def test_space_given_back_holds_the_next_model_and_never_an_old_one(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    old = put(registry, b"a long first model")
    registry.give_back(old)
    assert not registry.holds(old)
    new = put(Registry(tmp_path), b"short")
    assert Registry(tmp_path).read(new) == b"short"
    assert [path.name for path in tmp_path.iterdir()] == [f"{new.raw.hex()}.safetensors"]


def test_spares_do_not_pile_up(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    digests = [put(registry, bytes([n])) for n in range(9)]
    for digest in digests:
        registry.give_back(digest)
    assert len(list(tmp_path.iterdir())) <= 2


@given(order=st.permutations([CN, US]))
def test_an_average_has_the_same_bytes_whoever_answers_first(order: list[str]) -> None:
    rng = np.random.default_rng(3)
    deltas = {zone: {s.name: rng.standard_normal(s.shape, dtype=np.float32) for s in MODEL_SCHEMA} for zone in (CN, US)}
    updates = {zone: read_update(bytearray(made_of(deltas[zone]).payload), MODEL_SCHEMA) for zone in (CN, US)}
    behind = {CN: Contributors(vehicles=150, windows=20_000), US: Contributors(vehicles=20, windows=3_000)}
    base = made_of(initial_weights(1))
    first = average(base, updates, behind, Weighting.VEHICLES)
    again = average(base, {z: updates[z] for z in order}, {z: behind[z] for z in order}, Weighting.VEHICLES)
    assert again.payload == first.payload
    by_windows = average(base, updates, behind, Weighting.WINDOWS)
    share = 20_000 / 23_000
    expected = base.weights["layer0/weight"] + share * deltas[CN]["layer0/weight"]
    expected = expected + (1 - share) * deltas[US]["layer0/weight"]
    np.testing.assert_allclose(by_windows.weights["layer0/weight"], expected, rtol=1e-4, atol=1e-5)
