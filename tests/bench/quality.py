"""What federation and adaptation are worth, over several splits: everything in one process, without borders.

Pooling both zones' drives, as here, is what a deployment may not do; this is a measurement on simulated fleets.
`python tests/bench/quality.py [--rounds 60] [--splits 5] [--local-epochs 2]` prints one line a split and their mean.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from isthmus.contracts.identifiers import SiteId
from isthmus.fleet import simulate
from isthmus.learning import metrics, weights, windows
from isthmus.learning.aggregate import federated_average
from isthmus.learning.forecaster import initial_weights
from isthmus.learning.models import predict
from isthmus.learning.train import Trainer
from isthmus.zone.compute import seed_of

FLEETS = {SiteId("cn-shanghai"): 160, SiteId("us-texas"): 32}
HELD_OUT, EPOCHS, ADAPTATION, BATCH, RATE, SEED = 12, 2, 10, 256, 1e-3, 7


def load(site: str, vehicles: int, seed: int) -> windows.Windows:
    parts = []
    for table in simulate(site, vehicles, 3, seed):
        motion = table.drop_columns(["vehicle", "vin", "lat", "lon"])
        parts.append(
            windows.extract(motion.add_column(0, "vehicle_pseudonym", table.column("vehicle").cast(pa.string())))
        )
    return windows.concatenate(parts)


def ade(model: weights.Weights, held_out: windows.Windows) -> float:
    return metrics.evaluate(predict(model, held_out.inputs), held_out).ade_m


def run(data: dict[SiteId, windows.Windows], split: int, rounds: int) -> dict[str, float]:
    parts = {site: windows.split_by_vehicle(w, HELD_OUT, f"split-{split}") for site, w in data.items()}
    trainers = {site: Trainer(training) for site, (training, _) in parts.items()}
    held_out = {site: held for site, (_, held) in parts.items()}
    counts = {site: len(training.vehicle_names) for site, (training, _) in parts.items()}

    def train(site: SiteId, start: weights.Weights, purpose: str, epochs: int, schedule: str) -> weights.Weights:
        return trainers[site].train(
            start, epochs=epochs, seed=seed_of(SEED, site, purpose), learning_rate=RATE, batch_size=BATCH,
            schedule=schedule,  # type: ignore[arg-type]
        )  # fmt: skip

    shared: weights.Weights = initial_weights(SEED)
    alone = {s: train(s, shared, "reference", rounds * EPOCHS + ADAPTATION, "cosine") for s in data}
    for slot in range(rounds):
        deltas = {s: weights.subtract(train(s, shared, f"round {slot}", EPOCHS, "constant"), shared) for s in data}
        shared = federated_average(shared, deltas, counts)
    found: dict[str, float] = {}
    for site in data:
        short = site[:2]
        found[f"{short} cv"] = metrics.constant_velocity(held_out[site]).ade_m
        found[f"{short} local"] = ade(alone[site], held_out[site])
        found[f"{short} federated"] = ade(shared, held_out[site])
        found[f"{short} adapted"] = ade(train(site, shared, "adaptation", ADAPTATION, "cosine"), held_out[site])
    first, second = data
    found["cn model in us"] = ade(alone[first], held_out[second])
    found["us model in cn"] = ade(alone[second], held_out[first])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    data = {site: load(site, vehicles, asked.seed) for site, vehicles in FLEETS.items()}
    all_found = []
    for split in range(asked.splits):
        found = run(data, split, asked.rounds)
        all_found.append(found)
        print(split, {k: round(v, 3) for k, v in found.items()}, flush=True)
    print("mean", {k: round(float(np.mean([f[k] for f in all_found])), 3) for k in all_found[0]})


if __name__ == "__main__":
    main()
