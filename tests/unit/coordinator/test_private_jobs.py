"""A private training at the coordinator: updates that tell no number, weighed alike; without privacy none is taken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from isthmus.contracts.crossings import Contributors
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import JobId
from isthmus.contracts.jobs import JobState
from isthmus.contracts.orders import TrainingPrivacy
from isthmus.contracts.queries import PrivacyBudget
from isthmus.coordinator.asking import as_job, plan_of
from isthmus.coordinator.explaining import explain
from isthmus.coordinator.intake import judge, weighed
from isthmus.coordinator.plans import default_recipes, make_orders
from isthmus.coordinator.progress import Begun, Ended, Stopped, UpdateIn
from isthmus.coordinator.store import Step
from isthmus.privacy.training import noise_of
from isthmus.proof import accounting
from unit.coordinator.jobs import CN, HQ, JOB, NOW, US, create, job_request, open_store, training, update
from unit.coordinator.questions import question

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.inside import Delivery
    from isthmus.contracts.jobs import JobRequest
    from isthmus.coordinator.store import Store

PRIVACY = TrainingPrivacy(epsilon_micro=4_000_000, delta_exponent=6, vehicle_norm_micro=1_000_000, vehicles=200)


def private(rounds: int = 2) -> JobRequest:
    return job_request(training={**training(rounds), "privacy": json.loads(PRIVACY.model_dump_json())})


def arrived(store: Store, request: JobRequest, told: dict[str, Contributors | None]) -> list[object]:
    """Have an update of each zone come in; return what they mean."""
    facts: list[object] = []
    for ordinal, zone in enumerate((CN, US), 1):
        delivery: Delivery = update(ordinal, store.orders(JOB)[zone][0], zone, 0)
        delivery = weighed(delivery.model_copy(update={"contributors": told[zone]}), request.training)
        fact = judge(store.progress(JOB), own=HQ, zone=zone, delivery=delivery)
        store.record(JOB, Step((fact,) if fact else (), delivery=delivery))
        facts.append(fact)
    return facts


def test_every_zone_weighs_what_the_plan_fixes_whatever_it_tells(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    create(store, private())
    store.record(JOB, Step((Begun(),)))
    told = {CN: None, US: Contributors(vehicles=9_000, windows=900_000)}
    assert arrived(store, private(), told) == [UpdateIn(CN, 0), UpdateIn(US, 0)]
    assert [item.contributors for item in store.updates(JOB, 0)] == [Contributors(vehicles=200, windows=200)] * 2


def test_without_privacy_an_update_says_what_stands_behind_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    create(store)
    store.record(JOB, Step((Begun(),)))
    told = {CN: None, US: Contributors(vehicles=20, windows=3_000)}
    assert arrived(store, job_request(), told)[0] == Stopped(CN, Code.TOO_FEW_CONTRIBUTORS)


def test_every_zone_s_order_carries_the_job_s_privacy(tmp_path: Path) -> None:
    orders = make_orders(private(), default_recipes(), job=JOB, issuer=HQ, now=NOW)
    assert [order.training and order.training.privacy for order in orders] == [PRIVACY, PRIVACY]
    store = open_store(tmp_path)
    create(store, private())
    assert store.job(JOB).privacy == PRIVACY


def test_a_dry_run_counts_the_rounds_that_are_reserved_or_paid_for(tmp_path: Path) -> None:
    store, request = open_store(tmp_path), private(rounds=5)
    create(store, request)
    create(store, job_request(), JobId("job-00000000000000bb"))  # not private: it takes nothing
    store.record(JOB, Step((Begun(),)))
    arrived(store, request, {CN: None, US: None})
    assert [rounds for _, rounds in store.trained(CN)] == [5]
    store.record(JOB, Step((Stopped(US, Code.NOT_RELEASED),)))
    store.record(JOB, Step((Ended(JobState.FAILED),)))
    ((order, rounds),) = store.trained(CN)
    assert (order.zone, rounds) == (CN, 2)  # the round whose update came, and the next one

    asked = question(sql="SELECT count(*) FROM drives", epsilon_micro=1_000_000)
    plan, columns = plan_of(asked)
    orders = make_orders(as_job(asked, plan), default_recipes(), job=JOB, issuer=HQ, now=NOW)
    budget = PrivacyBudget(epsilon_micro=16_000_000, delta_exponent=6)
    found = explain(plan, columns, orders, paid={}, trained={CN: [(order, rounds)]}, budgets={CN: budget, US: budget})
    spent = {cost.zone: cost.spent_ppm for cost in found.costs}
    trained = request.training
    assert trained is not None
    curve = accounting.paid(noise_of(trained).curve, 2, 5)
    assert spent == {CN: -(-accounting.spent_micro(curve, budget) // 16), US: 0}
