"""A training is the same on machines with few cores and with many."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TRAIN = """
import hashlib
import numpy as np
from isthmus.learning import windows
from isthmus.learning.forecaster import initial_weights
from isthmus.learning.models import predict
from isthmus.learning.train import Part, Trainer

draw = np.random.Generator(np.random.PCG64(5))
count = 1100
given = windows.Windows(
    inputs=draw.standard_normal((count, windows.INPUTS), dtype=np.float32),
    residuals=draw.standard_normal((count, windows.FUTURE, 2), dtype=np.float32),
    velocity=np.zeros((count, 2), np.float32),
    turn_rate=np.zeros(count, np.float32),
    vehicles=np.zeros(count, np.int32),
    vehicle_names=("v",),
    road_types=np.zeros(count, np.int8),
)
told = hashlib.sha256()
for size in (200, 512):
    trained = Trainer(given).train(initial_weights(3), epochs=2, seed=1, learning_rate=1e-3, batch_size=size)
    part = Part(given, np.arange(count), count)
    part.begin(epochs=1, seed=1, batch_size=size)
    flat = np.concatenate([trained[name].ravel() for name in sorted(trained)])
    told.update(flat.tobytes() + part.gradient(flat, 0, 0).tobytes() + predict(trained, given.inputs).tobytes())
print(told.hexdigest())
"""


def digest_of(cores: str, before: str) -> str:
    """Return the digest of what a process trains that takes its machine to have so many cores."""
    environment = {**os.environ, "PJRT_NPROC": cores, "NPROC": cores}
    ran = subprocess.run(
        [sys.executable, "-c", before + TRAIN],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def on_one_core() -> str:
    return digest_of("1", "")


@pytest.mark.parametrize(("cores", "before"), [("2", ""), ("8", ""), ("8", "import jax\n")])
def test_more_cores_train_the_same_bytes(on_one_core: str, cores: str, before: str) -> None:
    """Also where something else has imported jax before, as long as it has not computed with it."""
    assert digest_of(cores, before) == on_one_core
