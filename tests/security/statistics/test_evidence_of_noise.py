"""What a verifier, who has no library of accounting, makes of an answer of many figures under Gaussian noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.evidence import REPORTED, FindingCode
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.ledger import Log, PrivacyReserved
from isthmus.contracts.queries import Figure, FigureKind
from isthmus.contracts.tables import TABLES, TableName
from isthmus.proof import accounting
from isthmus.proof.bundle import verify
from world.forge import Forge
from world.pair import CN, Pair
from world.questions import VEHICLES, plan, spec

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDE = 100
"""Bounds, in steps, that the made-up sums fit into."""
MEANS = [Figure(kind=FigureKind.MEAN, measure=m.name) for m in TABLES[TableName.DRIVES].measures if m.high > WIDE]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    pair = Pair(tmp_path_factory.mktemp("noise") / "sites")
    pair.prepare()
    pair.ask(CN, JobId(f"job-{1:016x}"), plan(spec(VEHICLES, *MEANS), epsilon_micro=20_000, delta_exponent=6))
    yield Forge(pair)
    pair.close()


def reservation(forge: Forge) -> tuple[int, PrivacyReserved]:
    index = forge.internal(CN, PrivacyReserved)
    entry = forge.entries[CN][Log.INTERNAL][index]
    assert isinstance(entry, PrivacyReserved)
    return index, entry


def test_it_is_accepted_by_its_loss_where_divergences_alone_would_refuse_it(answered: Forge) -> None:
    _, entry = reservation(answered)
    assert entry.curve[-1] == accounting.UNBOUNDED
    assert accounting.epsilon_micro(entry.curve, 6) > entry.epsilon_micro
    assert verify(answered.copy().build(), answered.roots).findings == ()


@pytest.mark.parametrize("part", [0.01, 0.5])
def test_less_noise_than_its_epsilon_allows_is_found_in_its_curve(answered: Forge, part: float) -> None:
    forge = answered.copy()
    index, entry = reservation(forge)
    rho = entry.curve[-2] / accounting.ALPHAS[-2] / accounting.NANO * (1 + part)
    forge.edit(CN, index, curve=accounting.curve([rho * alpha for alpha in accounting.ALPHAS]))
    report = verify(forge.build(), forge.roots)
    assert {finding.code for finding in report.findings} - REPORTED == {FindingCode.PRIVACY_DISAGREES}


def test_a_curve_with_less_at_the_order_that_the_budget_counts_is_no_gaussian_s(answered: Forge) -> None:
    forge = answered.copy()
    index, entry = reservation(forge)
    lower = tuple(1 if alpha < 8 else rdp for alpha, rdp in zip(accounting.ALPHAS, entry.curve, strict=True))
    forge.edit(CN, index, curve=lower)
    report = verify(forge.build(), forge.roots)
    assert {finding.code for finding in report.findings} - REPORTED == {FindingCode.PRIVACY_DISAGREES}
