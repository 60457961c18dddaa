"""A dry run names the guarantee that an answer's noise has: pure, or by its loss distribution at a delta."""

from __future__ import annotations

import pytest

from isthmus.contracts.tables import TABLES, TableName
from isthmus.coordinator.asking import plan_of
from isthmus.coordinator.explaining import explain
from unit.coordinator.questions import question

FEW = "SELECT count(*) FROM drives"
MANY = ", ".join(f"variance({measure.name})" for measure in TABLES[TableName.DRIVES].measures).join(
    ("SELECT ", " FROM drives")
)


def checks(**changes: object) -> tuple[str, ...]:
    plan, columns = plan_of(question(**changes))
    return explain(plan, columns, (), paid={}, trained={}, budgets={}).checks


@pytest.mark.parametrize(
    ("sql", "exponent", "told"),
    [
        (FEW, 6, "discrete Laplace noise: pure epsilon 0.5"),
        (MANY, 6, "discrete Gaussian noise: epsilon 0.5 at delta 1e-6, by PLD"),
        (MANY, 9, "discrete Gaussian noise: epsilon 0.5 at delta 1e-9, by PLD"),
    ],
)
def test_the_promise_is_that_of_the_noise(sql: str, exponent: int, told: str) -> None:
    found = checks(sql=sql, epsilon_micro=500_000, delta_exponent=exponent)
    assert [check for check in found if check.endswith(told)]


def test_without_noise_nothing_is_promised() -> None:
    assert not any("epsilon" in check for check in checks(sql=FEW, mode="disclosure_controlled"))
