from __future__ import annotations

import numpy as np
import pytest

from isthmus.contracts.errors import Refusal
from isthmus.learning.forecaster import MODEL_SCHEMA
from isthmus.learning.metrics import constant_velocity, evaluate
from isthmus.learning.models import initial_weights, predict
from isthmus.learning.train import Trainer
from isthmus.learning.weights import decode, encode, schema_of
from isthmus.learning.windows import Windows, extract, split_by_vehicle
from unit.learning.tracks import Mover, circling_fleet, drive


@pytest.fixture(scope="module")
def split() -> tuple[Windows, Windows]:
    return split_by_vehicle(extract(circling_fleet(vehicles=40, samples=101, seed=7)), 8, "test")


def test_the_forecaster_has_29726_parameters_and_starts_at_constant_velocity(split: tuple[Windows, Windows]) -> None:
    weights = initial_weights(3)
    assert schema_of(weights) == MODEL_SCHEMA
    assert sum(value.size for value in weights.values()) == 29_726
    assert evaluate(predict(weights, split[1].inputs), split[1]) == constant_velocity(split[1])
    assert encode(initial_weights(3)) == encode(weights) != encode(initial_weights(4))
    assert encode(initial_weights(-3)) != encode(weights)


def test_forecasts_are_those_of_the_network_written_out(split: tuple[Windows, Windows]) -> None:
    generator = np.random.default_rng(0)
    weights = {s.name: generator.normal(0, 0.1, s.shape).astype(np.float32) for s in MODEL_SCHEMA}
    hidden = split[1].inputs.astype(np.float64)
    for layer in range(3):
        hidden = hidden @ weights[f"layer{layer}/weight"] + weights[f"layer{layer}/bias"]
        hidden = np.maximum(hidden, 0) if layer < 2 else hidden
    np.testing.assert_allclose(predict(weights, split[1].inputs), hidden.reshape(-1, 15, 2), atol=1e-3)


def test_training_beats_constant_velocity_on_vehicles_it_never_saw(split: tuple[Windows, Windows]) -> None:
    train, test = split
    weights = Trainer(train).train(initial_weights(0), epochs=40, seed=0, learning_rate=1e-3, batch_size=64)
    assert evaluate(predict(weights, test.inputs), test).ade_m < 0.6 * constant_velocity(test).ade_m


def test_a_round_repeats_bit_for_bit_from_its_seed(split: tuple[Windows, Windows]) -> None:
    def run(seed: int) -> bytes:
        # a fresh trainer, and weights as they arrive at a zone: read-only views of received bytes
        base = decode(encode(initial_weights(0)), MODEL_SCHEMA)
        return encode(Trainer(split[0]).train(base, epochs=2, seed=seed, learning_rate=1e-3, batch_size=100))

    assert run(5) == run(5) != run(6)


def test_training_leaves_its_start_as_it_was_and_takes_any_batch_size(split: tuple[Windows, Windows]) -> None:
    base = initial_weights(0)
    before = encode(base)
    trainer = Trainer(split[1])
    count = len(split[1])
    for batch_size in (count // 2 - 1, count, 2 * count + 1):  # a last batch to fill, none, and one more than all
        trained = trainer.train(base, epochs=1, seed=0, learning_rate=1e-3, batch_size=batch_size)
        assert schema_of(trained) == MODEL_SCHEMA
        assert encode(trained) != before
    assert encode(base) == before
    assert encode(trainer.train(base, epochs=0, seed=0, learning_rate=1e-3, batch_size=8)) == before


def test_a_falling_learning_rate_moves_less(split: tuple[Windows, Windows]) -> None:
    trainer, base = Trainer(split[1]), initial_weights(0)
    settings = {"epochs": 2, "seed": 0, "learning_rate": 1e-3, "batch_size": 32}
    constant = trainer.train(base, **settings)
    falling = trainer.train(base, **settings, schedule="cosine")

    def moved(weights: dict[str, np.ndarray]) -> float:
        return sum(float(np.abs(weights[name] - base[name]).sum()) for name in base)

    assert 0 < moved(falling) < moved(constant)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(Refusal):
        Trainer(extract(drive(Mover(), samples=5)))
