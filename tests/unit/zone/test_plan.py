from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.contracts.crossings import Contributors, Kind
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, Digest, JobId, Name, OrderId, SiteId
from isthmus.contracts.inside import Delivery
from isthmus.contracts.orders import Algorithm, DatasetRef, EvaluationPlan, Order, TrainingPlan, Weighting
from isthmus.contracts.raw_table import Group
from isthmus.learning.forecaster import MODEL_SCHEMA
from isthmus.zone.plan import (
    Abandon,
    Begin,
    CloseAgain,
    OrderState,
    PassOver,
    Step,
    Work,
    cannot_evaluate,
    decide,
    is_over,
    steps_at,
)

ROUNDS = 3


def order(at_slots: tuple[int, ...] = (0, ROUNDS)) -> Order:
    return Order(
        version=1,
        job=JobId("job-0123456789abcdef"),
        issuer=SiteId("hq"),
        zone=SiteId("cn-shanghai"),
        algorithm=Algorithm(name=Name("any"), digest=Digest.of(b"")),
        dataset=DatasetRef(dataset=Name("fleet"), snapshot=Name("s")),
        groups=(Group.MOTION,),
        purpose=Name("forecasting"),
        recipients=(SiteId("cn-shanghai"), SiteId("hq")),
        outputs=(Kind.AGGREGATE, Kind.MODEL_UPDATE) if at_slots else (Kind.MODEL_UPDATE,),
        training=TrainingPlan(
            rounds=ROUNDS,
            epochs=1,
            batch_size=1,
            learning_rate_micro=1,
            seed=0,
            weighting=Weighting.WINDOWS,
            held_out_vehicles=0,
            split_salt=Name("salt"),
            adaptation_epochs=0,
            reference_epochs=0,
        ),
        evaluation=EvaluationPlan(at_slots=at_slots, band_um=10_000, minimum_vehicles=10) if at_slots else None,
        tensors=MODEL_SCHEMA,
        clip_norm_micro=1,
        base=None,
        issued_at=1000,
        expires_at=2000,
    )


def delivery(kind: Kind, event: str = "crossing", code: Code | None = None) -> Delivery:
    return Delivery.model_validate(
        {
            "ordinal": 1,
            "event": event,
            "crossing": CrossingId.of(b""),
            "kind": kind,
            "sender": SiteId("hq"),
            "job": JobId("job-0123456789abcdef"),
            "order": OrderId.of(b""),
            "slot": 0,
            "contributors": None,
            "code": code,
        }
    )


@pytest.mark.parametrize(
    ("kind", "state", "decision"),
    [
        (Kind.ORDER, None, Begin()),
        (Kind.ORDER, OrderState.OPEN, Begin()),
        (Kind.ORDER, OrderState.FINISHING, PassOver()),
        (Kind.ORDER, OrderState.CLOSED, CloseAgain()),
        (Kind.MODEL, None, PassOver()),
        (Kind.MODEL, OrderState.OPEN, Work()),
        (Kind.MODEL, OrderState.FINISHING, PassOver()),
        (Kind.MODEL, OrderState.CLOSED, CloseAgain()),
    ],
)
def test_orders_are_begun_models_worked_on_and_repeats_recognised(
    kind: Kind, state: OrderState | None, decision: object
) -> None:
    assert decide(delivery(kind), state) == decision


@settings(deadline=None)
@given(
    st.sampled_from([kind for kind in Kind if kind not in {Kind.ORDER, Kind.MODEL}]),
    st.sampled_from([None, *OrderState]),
)
def test_whatever_else_comes_in_moves_nothing(kind: Kind, state: OrderState | None) -> None:
    assert decide(delivery(kind), state) == PassOver()


@settings(deadline=None)
@given(st.sampled_from(list(Kind)), st.sampled_from([None, *OrderState]))
def test_only_a_refused_update_of_an_open_order_ends_it(kind: Kind, state: OrderState | None) -> None:
    ends = kind is Kind.MODEL_UPDATE and state is OrderState.OPEN
    expected = Abandon(Code.SCHEMA_MISMATCH) if ends else PassOver()
    assert decide(delivery(kind, "refused", Code.SCHEMA_MISMATCH), state) == expected


def test_each_slot_is_answered_once_and_the_last_one_ends_the_order() -> None:
    assert [steps_at(order(), slot, reference_kept=False) for slot in range(ROUNDS + 2)] == [
        (Step.TRAIN, Step.EVALUATE, Step.REFERENCE),
        (Step.TRAIN,),
        (Step.TRAIN,),
        (Step.EVALUATE, Step.FINISH),
        (),
    ]


def test_a_reference_is_not_computed_twice_and_no_evaluation_crosses_unasked() -> None:
    steps = [step for slot in range(ROUNDS + 1) for step in steps_at(order(()), slot, reference_kept=True)]
    assert steps == [Step.TRAIN] * ROUNDS + [Step.FINISH]


@pytest.mark.parametrize(
    ("at_slots", "windows", "cannot"), [((0,), 0, True), ((0,), 1, False), ((), 0, False), ((), 5, False)]
)
def test_evaluations_need_something_held_out(at_slots: tuple[int, ...], windows: int, *, cannot: bool) -> None:
    assert cannot_evaluate(order(at_slots), Contributors(vehicles=windows, windows=windows)) is cannot


def test_an_order_is_over_when_its_time_and_the_clocks_skew_are() -> None:
    assert [is_over(order(), now) for now in (1000, 2000, 2300, 2301)] == [False, False, False, True]
