"""What private training is worth: errors on held-out vehicles by epsilon, everything in one process, without borders.

Each zone's sum over vehicles, the noise and the division are those of the product; noise is drawn afresh, so figures
differ a little from run to run. Pooling nothing: both zones' sums are averaged alike, as a coordinator does. Simulated
fleets; a real fleet of the same size need not give the same figures.
`python tests/bench/private.py [--vehicles 300] [--rounds 20] [--steps 64]` prints one line for each setting.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.quality import load
from isthmus.contracts.identifiers import Name, SiteId
from isthmus.contracts.orders import GRAIN, TrainingPlan, TrainingPrivacy, Weighting
from isthmus.learning import metrics, sums, weights, windows
from isthmus.learning.aggregate import federated_average
from isthmus.learning.forecaster import MODEL_SCHEMA, initial_weights
from isthmus.learning.models import predict
from isthmus.learning.private import Vehicles
from isthmus.learning.train import Trainer
from isthmus.privacy import noise
from isthmus.privacy.training import noise_of
from isthmus.zone.compute import seed_of, summed

SITES = (SiteId("cn-shanghai"), SiteId("us-texas"))
MICRO = 1e6
HELD_OUT, SEED, CLIP, DELTA_EXPONENT = 30, 7, 20.0, 6
SETTINGS = ((1, 0.2), (4, 0.3), (8, 0.5), (None, 0.5))
"""Epsilon of the whole training (none: the same without noise), and the norm to which a vehicle's change is cut."""
PLAIN_EPOCHS, PLAIN_RATE, PLAIN_BATCH = 2, 1e-3, 256

Data = dict[SiteId, windows.Windows]


def plan_of(asked: argparse.Namespace, epsilon: int | None, norm: float) -> TrainingPlan:
    return TrainingPlan(
        rounds=asked.rounds,
        epochs=PLAIN_EPOCHS,
        batch_size=PLAIN_BATCH,
        learning_rate_micro=round(PLAIN_RATE * MICRO),
        seed=SEED,
        weighting=Weighting.VEHICLES,
        held_out_vehicles=HELD_OUT,
        split_salt=Name("split"),
        adaptation_epochs=0,
        reference_epochs=0,
        privacy=TrainingPrivacy(
            epsilon_micro=round((epsilon or 1) * MICRO),
            delta_exponent=DELTA_EXPONENT,
            vehicle_norm_micro=round(norm * MICRO),
            vehicles=asked.vehicles - HELD_OUT,
            vehicle_steps=asked.steps,
            vehicle_batch=asked.batch,
            vehicle_rate_micro=round(asked.rate * MICRO),
        ),
    )


def released(payload: bytes, plan: TrainingPlan, *, noised: bool) -> weights.Weights:
    """Return what a border makes of a sum."""
    privacy = plan.privacy
    assert privacy is not None
    total = sums.decode(payload, MODEL_SCHEMA).tolist()
    if noised:
        total = noise.add(total, "discrete_gaussian", noise_of(plan).deviation_micro)
    update = sums.released(total, MODEL_SCHEMA, privacy.vehicle_norm_micro / MICRO, GRAIN, privacy.vehicles)
    return weights.clip(update, CLIP)[0]


def privately(data: Data, plan: TrainingPlan, *, noised: bool) -> tuple[weights.Weights, float]:
    """Return the model of a whole training, and the seconds that a zone computes in a round."""
    vehicles = {site: Vehicles(part) for site, part in data.items()}
    shared: weights.Weights = initial_weights(SEED)
    computing = 0.0
    for slot in range(plan.rounds):
        updates = {}
        for site, holder in vehicles.items():
            began = time.perf_counter()
            payload = summed(holder, plan, shared, seed_of(SEED, site, f"round {slot}"))
            computing += time.perf_counter() - began
            updates[site] = released(payload, plan, noised=noised)
        shared = federated_average(shared, updates, dict.fromkeys(updates, 1))
    return shared, computing / plan.rounds / len(vehicles)


def plainly(data: Data, rounds: int) -> weights.Weights:
    """Return the model of federated averaging without privacy, as a job trains by default."""
    trainers = {site: Trainer(part) for site, part in data.items()}
    shared: weights.Weights = initial_weights(SEED)
    for slot in range(rounds):
        updates = {}
        for site, trainer in trainers.items():
            trained = trainer.train(
                shared, epochs=PLAIN_EPOCHS, seed=seed_of(SEED, site, f"round {slot}"), learning_rate=PLAIN_RATE,
                batch_size=PLAIN_BATCH,
            )  # fmt: skip
            updates[site] = weights.subtract(trained, shared)
        shared = federated_average(shared, updates, {s: len(part.vehicle_names) for s, part in data.items()})
    return shared


def run(data: Data, asked: argparse.Namespace, setting: tuple[int | None, float] | None) -> str:
    """Train once and say how well; without a setting, plainly."""
    parts = {site: windows.split_by_vehicle(part, HELD_OUT, "split") for site, part in data.items()}
    training, held_out = ({site: pair[half] for site, pair in parts.items()} for half in (0, 1))
    if setting is None:
        said, model = "plain FedAvg", plainly(training, asked.rounds)
    else:
        epsilon, norm = setting
        plan = plan_of(asked, epsilon, norm)
        model, seconds = privately(training, plan, noised=epsilon is not None)
        said = f"epsilon {epsilon or 'none'}, norm {norm}, {seconds:.2f} s a zone and round"
    return line({s: metrics.evaluate(predict(model, h.inputs), h).ade_m for s, h in held_out.items()}, said)


def line(found: dict[SiteId, float], said: str) -> str:
    return "  ".join(f"{site[:2]} {ade:.3f} m" for site, ade in found.items()) + "  " + said


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vehicles", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.03)
    parser.add_argument("--epsilon", type=float)
    parser.add_argument("--norm", type=float)
    asked = parser.parse_args()
    settings = ((asked.epsilon, asked.norm),) if asked.epsilon else (None, *SETTINGS)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        loaded = pool.map(partial(load, vehicles=asked.vehicles, seed=SEED), SITES)
        data = dict(zip(SITES, loaded, strict=True))
        for name, baseline in (("velocity", metrics.constant_velocity), ("turn rate", metrics.constant_turn_rate)):
            held_out = {s: windows.split_by_vehicle(part, HELD_OUT, "split")[1] for s, part in data.items()}
            print(line({s: baseline(part).ade_m for s, part in held_out.items()}, f"constant {name}"), flush=True)
        for said in pool.map(partial(run, data, asked), settings):
            print(said, flush=True)


if __name__ == "__main__":
    main()
