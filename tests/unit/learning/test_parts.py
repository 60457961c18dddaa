"""Training that is shared out is the training of one that has everything."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from isthmus.contracts.errors import Refusal
from isthmus.learning.models import initial_weights
from isthmus.learning.train import Part, Trainer, train_in_parts
from isthmus.learning.windows import Windows, extract
from unit.learning.tracks import circling_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS = ("inputs", "residuals", "velocity", "turn_rate", "vehicles", "road_types")


@pytest.fixture(scope="module")
def windows() -> Windows:
    return extract(circling_fleet(vehicles=20, samples=101, seed=7))


def parts_of(windows: Windows, *chosen: np.ndarray) -> list[Part]:
    return [
        Part(
            dataclasses.replace(windows, **{name: getattr(windows, name)[mine] for name in COLUMNS}),
            np.flatnonzero(mine).astype(np.int64),
            len(windows),
        )
        for mine in chosen
    ]


def trained(windows: Windows, parts: list[Part], **plan: object) -> dict[str, np.ndarray]:
    own, *others = parts
    for part in others:
        part.begin(epochs=plan["epochs"], seed=plan["seed"], batch_size=plan["batch_size"])

    def ask(flat: np.ndarray, epoch: int, step: int) -> Callable[[], list[np.ndarray]]:
        return lambda: [part.gradient(flat, epoch, step) for part in others]

    return train_in_parts(initial_weights(0), own, ask, total=len(windows), **plan)


@pytest.mark.parametrize("batch_size", [100, 256, 10_000])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_it_ends_where_one_ends_that_has_everything(windows: Windows, batch_size: int, schedule: str) -> None:
    """Also where a part is small, and where it is empty; where the last batch is filled up, and where all is one."""
    plan = {"epochs": 2, "seed": 5, "learning_rate": 1e-3, "batch_size": batch_size, "schedule": schedule}
    place = np.arange(len(windows))
    parts = parts_of(windows, place % 3 == 0, (place % 3 != 0) & (place != 7), place == 7, place < 0)
    alone, together = Trainer(windows).train(initial_weights(0), **plan), trained(windows, parts, **plan)
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol=0, atol=1e-6)
    moved = np.concatenate([(alone[name] - initial_weights(0)[name]).ravel() for name in alone])
    assert np.abs(moved).max() > 1e-4


def test_a_part_that_leaves_its_windows_out_is_noticed(windows: Windows) -> None:
    """The comparison above is not one that everything passes."""
    plan = {"epochs": 2, "seed": 5, "learning_rate": 1e-3, "batch_size": 100}
    place = np.arange(len(windows))
    alone = Trainer(windows).train(initial_weights(0), **plan)
    without = trained(windows, parts_of(windows, place % 3 == 0, place < 0), **plan)
    assert max(np.abs(without[name] - alone[name]).max() for name in alone) > 1e-4


def test_no_epochs_change_nothing(windows: Windows) -> None:
    parts = parts_of(windows, np.ones(len(windows), bool))
    same = trained(windows, parts, epochs=0, seed=1, learning_rate=1e-3, batch_size=64)
    assert all((same[name] == value).all() for name, value in initial_weights(0).items())


def test_there_is_something_to_train_on_in_all(windows: Windows) -> None:
    empty = dataclasses.replace(windows, **{name: getattr(windows, name)[:0] for name in COLUMNS})
    with pytest.raises(Refusal):
        Part(empty, np.zeros(0, np.int64), 0)
