"""A tiny algorithm whose every byte follows from the order and the model: a job without data that takes no time."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from isthmus.contracts.bands import band_contributors
from isthmus.contracts.crossings import Contributors
from isthmus.contracts.identifiers import Digest, Name
from isthmus.contracts.orders import Algorithm, Evaluation, Figures, Predictor
from isthmus.contracts.tensors import TensorSpec
from isthmus.coordinator.plans import Recipe
from isthmus.learning import weights
from isthmus.learning.aggregate import federated_average
from isthmus.proof.sealing import SealingKey
from isthmus.zone.compute import CPU

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import KeyGrant
    from isthmus.contracts.orders import Order
    from isthmus.learning.weights import Weights

ALGORITHM = Algorithm(name=Name("tiny"), digest=Digest.of(b"tiny"))
SCHEMA = (TensorSpec(name="bias", shape=(3,)), TensorSpec(name="slope", shape=(4, 3)))

Buffer = bytes | bytearray | memoryview


def first(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {spec.name: rng.standard_normal(spec.shape, dtype=np.float32) for spec in SCHEMA}


RECIPES = {ALGORITHM.name: Recipe(ALGORITHM.digest, SCHEMA, first)}


class TinyRun:
    """Moves every number by a little that depends on the zone, the slot and the model it was sent."""

    def __init__(self, zone: SiteId) -> None:
        number = int.from_bytes(hashlib.sha256(zone.encode()).digest()[:2], "big")
        self._share = np.float32(number / 2**20)
        self.contributors = Contributors(vehicles=20 + number % 7, windows=2000 + number)
        self.evaluators = Contributors(vehicles=12, windows=345)

    def train(self, slot: int, base: Buffer) -> bytes:
        step = self._share / np.float32(slot + 1)
        return weights.encode({name: np.cos(value) * step for name, value in _decoded(base).items()})

    def evaluate(self, slot: int, model: Buffer) -> Evaluation | None:
        return Evaluation(version=1, slot=slot, figures=(_figures(Predictor.FEDERATED, model),))

    def reference(self, initial: Buffer) -> Figures | None:
        return _figures(Predictor.LOCAL_ONLY, initial)

    def adapt(self, final: Buffer) -> tuple[bytes, Figures | None]:
        adapted = weights.encode({name: value + self._share for name, value in _decoded(final).items()})
        return adapted, _figures(Predictor.ADAPTED, adapted)

    def close(self) -> None:
        """Nothing is held."""


class TinyOpening:
    """Asks for keys, as every compute does, and opens nothing with them."""

    def __init__(self, zone: SiteId) -> None:
        self._zone = zone
        self.run_keys = (SealingKey.generate().public,)
        self.accelerators = (CPU,)

    def open(self, grants: Sequence[KeyGrant]) -> TinyRun:
        return TinyRun(self._zone)

    def close(self) -> None:
        """Nothing is held."""


class TinyCompute:
    """Opens any order of the tiny algorithm; it reads no file."""

    def prepare(self, order: Order) -> TinyOpening:
        return TinyOpening(order.zone)


def final_model(seed: int, rounds: int, zones: tuple[SiteId, ...]) -> Digest:
    """Return the model that a job of all these zones, weighted by vehicles, comes to."""
    model = first(seed)
    runs = {zone: TinyRun(zone) for zone in zones}
    counts = {zone: band_contributors(run.contributors).vehicles for zone, run in runs.items()}
    for slot in range(rounds):
        base = weights.encode(model)
        model = federated_average(model, {zone: _decoded(run.train(slot, base)) for zone, run in runs.items()}, counts)
    return Digest.of(weights.encode(model))


def _decoded(model: Buffer) -> Weights:
    return weights.decode(memoryview(model), SCHEMA)


def _figures(predictor: Predictor, model: Buffer) -> Figures:
    error = int(1e6 * weights.l2_norm(_decoded(model)))
    return Figures(predictor=predictor, ade_um=error, fde_um=2 * error, miss_ppm=error % 1_000_000)
