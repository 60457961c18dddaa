from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from isthmus.contracts.crossings import Kind
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, JobId
from isthmus.contracts.jobs import JobState
from isthmus.contracts.orders import Evaluation, Figures, Order, Predictor
from isthmus.coordinator.plans import default_recipes, make_orders
from isthmus.coordinator.progress import (
    Averaged,
    Begun,
    Ended,
    EvaluationIn,
    Ordered,
    Sent,
    Stopped,
    UpdateIn,
)
from isthmus.coordinator.store import Step, Store
from isthmus.proof import canonical, ids
from unit.coordinator.jobs import CN, ENGINEER, HQ, JOB, NOW, US, create, job_request, open_store, record, update

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.inside import Delivery

MODELS = [b"model %d" % slot for slot in range(3)]


def begun(store: Store) -> None:
    create(store)
    facts = (Ordered(CN), Ordered(US), Begun(), Sent(CN, 0), Sent(US, 0))
    store.record(JOB, Step(facts, model=record(MODELS[0], 0)))


def take(store: Store, item: Delivery) -> None:
    store.record(JOB, Step((UpdateIn(item.sender, item.slot),), delivery=item))


def events(store: Store) -> list[str]:
    return [event.event for event in store.events(JOB, 0)]


def test_a_restart_finds_everything_as_it_was(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    begun(store)
    order = store.orders(JOB)[CN][0]
    take(store, update(4, order, CN, 0))
    again = open_store(tmp_path)  # the first was never closed, as after kill -9
    assert again.progress(JOB) == store.progress(JOB)
    assert again.cursor() == 4
    assert again.running() == (JOB,)
    assert again.orders(JOB) == store.orders(JOB)
    assert again.current(JOB) == Digest.of(MODELS[0])
    assert [item.contributors.windows for item in again.updates(JOB, 0)] == [3000]
    assert again.events(JOB, 0) == store.events(JOB, 0)


def test_orders_keep_their_bytes(tmp_path: Path) -> None:
    create(open_store(tmp_path))
    stored = open_store(tmp_path).orders(JOB)
    for zone, (order, body) in stored.items():
        read = canonical.load(Order, body)
        assert (read.zone, read.issued_at, ids.order_id(read)) == (zone, NOW, order)


def test_a_delivery_that_comes_again_has_one_effect(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    begun(store)
    order = store.orders(JOB)[CN][0]
    take(store, update(4, order, CN, 0))
    before = store.progress(JOB), events(store)
    take(store, update(4, order, CN, 0))  # the same ordinal: the cursor stands behind it
    take(store, update(5, order, CN, 0))  # the same crossing again
    assert (store.progress(JOB), events(store)) == before
    assert events(store).count("update_received") == 1
    assert store.cursor() == 5


def test_an_update_is_let_go_only_when_its_model_is_durable(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    begun(store)
    items = [update(n, store.orders(JOB)[zone][0], zone, 0) for n, zone in ((1, CN), (2, US))]
    for item in items:
        take(store, item)
    take(store, update(3, items[0].order, CN, 0))
    assert store.acknowledgements() == ()
    store.record(JOB, Step((Averaged(0),), model=record(MODELS[1], 1, lineage=(CN, US)), round_us=1234))
    assert set(store.acknowledgements()) == {item.crossing for item in items}
    store.acknowledged([items[0].crossing])
    assert store.acknowledgements() == (items[1].crossing,)
    assert store.current(JOB) == Digest.of(MODELS[1])
    assert [e.round_us for e in store.events(JOB, 0) if e.event == "round_done"] == [1234]


def test_a_job_that_fails_lets_its_updates_go_and_ignores_what_comes_late(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    begun(store)
    orders = store.orders(JOB)
    take(store, update(1, orders[CN][0], CN, 0))
    store.record(JOB, Step((Stopped(US, Code.COMPUTE_FAILED), Ended(JobState.FAILED))))
    late = update(2, orders[US][0], US, 0)
    take(store, late)
    assert set(store.acknowledgements()) == {ids.crossing_id(orders[CN][0], Kind.MODEL_UPDATE, HQ, 0), late.crossing}
    view = store.job(JOB)
    assert (view.state, view.code, view.finished_at) == (JobState.FAILED, Code.COMPUTE_FAILED, NOW)
    assert [zone.code for zone in view.zones] == [None, Code.COMPUTE_FAILED]
    assert events(store)[-2:] == ["refused", "failed"]
    assert store.running() == ()


def test_a_delivery_for_no_job_is_recorded_and_let_go(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    stray = update(9, ids.OrderId(Digest.of(b"foreign")), CN, 0)
    store.ignore(stray)
    store.ignore(stray)
    assert (store.cursor(), store.acknowledgements()) == (9, (stray.crossing,))
    rows = sqlite3.connect(tmp_path / "coordinator.db").execute("SELECT ordinal, crossing FROM ignored").fetchall()
    assert rows == [(9, str(stray.crossing))]


def test_an_evaluation_is_kept_with_its_crossing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    begun(store)
    order = store.orders(JOB)[US][0]
    figures = (Figures(predictor=Predictor.FEDERATED, ade_um=970_000, fde_um=2_000_000, miss_ppm=120_000),)
    evaluation = Evaluation(version=1, slot=2, figures=figures)
    crossing = ids.crossing_id(order, Kind.AGGREGATE, HQ, 2)
    item = update(1, order, US, 2).model_copy(update={"kind": Kind.AGGREGATE, "crossing": crossing})
    store.record(JOB, Step((EvaluationIn(US, 2),), delivery=item, evaluation=evaluation))
    (kept,) = store.results(JOB).evaluations
    assert (kept.zone, kept.crossing, kept.evaluation) == (US, crossing, evaluation)
    assert store.acknowledgements() == (crossing,)


def test_a_step_is_whole_or_not_at_all(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    begun(store)
    order = store.orders(JOB)[CN][0]
    before = store.progress(JOB), store.cursor(), events(store)
    with sqlite3.connect(tmp_path / "coordinator.db") as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(Fault) as failed:
        take(store, update(1, order, CN, 0))
    assert failed.value.code is Code.STORAGE_FAILED
    assert (store.progress(JOB), store.cursor(), events(store)) == before
    with sqlite3.connect(tmp_path / "coordinator.db") as other:
        other.execute("DROP TRIGGER full")
    take(store, update(1, order, CN, 0))
    assert store.cursor() == 1


def test_one_key_stands_for_one_job(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    request = job_request()

    def submit(job: str, body: bytes) -> JobId:
        orders = make_orders(request, default_recipes(), job=JobId(job), issuer=HQ, now=NOW)
        body_digest = Digest.of(body)
        return store.create(job=JobId(job), person=ENGINEER, request=request, orders=orders, key="k1", body=body_digest)

    first = submit("job-0000000000000001", b"one")
    assert submit("job-0000000000000002", b"one") == first
    assert [view.id for view in store.jobs()] == [first]
    with pytest.raises(Refusal) as conflict:
        submit("job-0000000000000003", b"two")
    assert conflict.value.code is Code.CONFLICTING_PAYLOAD


def test_a_model_that_something_starts_from_is_not_disposable(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    begun(store)
    assert store.disposable(JOB, 0) is None  # the current one
    for n, zone in ((1, CN), (2, US)):
        take(store, update(n, store.orders(JOB)[zone][0], zone, 0))
    store.record(JOB, Step((Averaged(0),), model=record(MODELS[1], 1)))
    assert store.disposable(JOB, 0) == Digest.of(MODELS[0])
    create(store, job_request(base=str(Digest.of(MODELS[0]))), JobId("job-00000000000000bb"))
    assert store.disposable(JOB, 0) is None


def test_a_store_of_another_release_is_not_touched(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with sqlite3.connect(tmp_path / "coordinator.db") as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(Fault) as fault:
        open_store(tmp_path)
    assert fault.value.code is Code.CONFIGURATION


def test_an_unknown_crossing_has_no_origin(tmp_path: Path) -> None:
    assert open_store(tmp_path).origin(CrossingId(Digest.of(b"none"))) is None
