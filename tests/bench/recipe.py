"""A model of any size and a compute that does not train: what is left is the way the bytes go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.crossings import Contributors
from isthmus.contracts.identifiers import Digest, Name
from isthmus.contracts.orders import Algorithm, Evaluation, Figures, Order
from isthmus.contracts.tensors import TensorSpec
from isthmus.coordinator.plans import Recipe
from isthmus.learning import weights
from isthmus.proof.sealing import SealingKey
from isthmus.zone.compute import CPU

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.inside import KeyGrant

LAYERS = 8
"""Tensors that a bench model is split into."""


def name_of(parameters: int) -> Name:
    return Name(f"bench-{parameters}")


def algorithm_of(parameters: int) -> Algorithm:
    return Algorithm(name=name_of(parameters), digest=Digest.of(f"bench {parameters}".encode()))


def schema_of(parameters: int) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=f"layer{i}", shape=(parameters // LAYERS,)) for i in range(LAYERS))


def weights_of(parameters: int, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        spec.name: (scale * rng.standard_normal(spec.shape, dtype=np.float32)).astype(np.float32)
        for spec in schema_of(parameters)
    }


def recipe_of(parameters: int) -> Recipe:
    return Recipe(algorithm_of(parameters).digest, schema_of(parameters), lambda seed: weights_of(parameters, seed))


class IdleRun:
    """Answers every model with an update that was made beforehand, just within the clipping bound."""

    contributors = Contributors(vehicles=100, windows=10_000)
    evaluators = Contributors(vehicles=0, windows=0)

    def __init__(self, order: Order) -> None:
        parameters = sum(spec.elements for spec in order.tensors)
        self._update = weights.encode(weights_of(parameters, 3, scale=1e-4))

    def train(self, slot: int, base: bytes | bytearray | memoryview) -> bytes:
        return self._update

    def evaluate(self, slot: int, model: bytes | bytearray | memoryview) -> Evaluation | None:
        return None

    def reference(self, initial: bytes | bytearray | memoryview) -> Figures | None:
        return None

    def adapt(self, final: bytes | bytearray | memoryview) -> tuple[bytes, Figures | None]:
        return bytes(final), None

    def close(self) -> None:
        """Nothing is kept."""


class IdleOpening:
    def __init__(self, order: Order) -> None:
        self._order = order
        self.run_keys = (SealingKey.generate().public,)
        self.accelerators = (CPU,)

    def open(self, grants: Sequence[KeyGrant]) -> IdleRun:
        return IdleRun(self._order)

    def close(self) -> None:
        """Nothing is held."""


class IdleCompute:
    def prepare(self, order: Order) -> IdleOpening:
        return IdleOpening(order)
