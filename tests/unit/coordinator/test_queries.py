"""Questions at the coordinator: asked, answered by some zones or all, shown, explained."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from isthmus.client.border import BorderClient
from isthmus.client.jobs import JobsClient
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import JobId, SiteId
from isthmus.contracts.jobs import JobState
from isthmus.contracts.orders import Order
from isthmus.contracts.queries import Mode, PrivacyBudget
from isthmus.coordinator.app import Coordinator, assemble
from isthmus.coordinator.asking import plan_of
from isthmus.coordinator.intake import read_answer
from isthmus.coordinator.people import people_file
from isthmus.coordinator.progress import Ended, EvaluationDeclined, Ordered, Stopped
from isthmus.coordinator.rounds import Fail, Finish, SubmitOrder, decide
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.coordinator.store import Step
from isthmus.kit.clock import ManualClock
from isthmus.kit.tokens import write_secret
from isthmus.privacy.mechanism import curve_of
from isthmus.proof import accounting, canonical
from unit.coordinator.jobs import CN, HQ, JOB, NOW, US, job_request
from unit.coordinator.questions import SQL, answer, ask, crossing, notice, question, question_json, refusal, take
from unit.coordinator.test_api import PEOPLE, TOKENS, calling

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.answers import QueryView
    from isthmus.contracts.queries import QueryPlan
    from isthmus.coordinator.store import Store

BUDGET = PrivacyBudget(epsilon_micro=10_000_000, delta_exponent=9)


def assembled(folder: Path) -> Coordinator:
    if not (folder / "people.toml").exists():
        write_secret(folder / "people.toml", people_file(PEOPLE))
    settings = CoordinatorSettings(
        site=SiteId("hq"),
        border_url="http://border",
        people=folder / "people.toml",
        data=folder / "data",
        budgets={CN: BUDGET},
    )
    unused = BorderClient(httpx2.AsyncClient(base_url="http://border"), "unused")
    return assemble(settings, unused, ManualClock(NOW))


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return assembled(tmp_path)


@pytest.fixture
def store(coordinator: Coordinator) -> Store:
    return coordinator.store


def shown(coordinator: Coordinator, job: JobId = JOB) -> QueryView:
    async def test() -> QueryView:
        async with calling(coordinator) as http:
            return await JobsClient(http, TOKENS["ada"]).query(job)

    return asyncio.run(test())


def finish(store: Store) -> JobState:
    """Do what the runner does when nothing is awaited any more."""
    (action,) = decide(store.progress(JOB))
    state = JobState.DONE if isinstance(action, Finish) else JobState.FAILED
    assert isinstance(action, Finish | Fail)
    return store.record(JOB, Step((Ended(state),))).state


def test_each_zone_gets_an_order_with_the_specification_and_never_the_text(coordinator: Coordinator) -> None:
    async def test() -> QueryView:
        async with calling(coordinator) as http:
            return await JobsClient(http, TOKENS["ada"]).ask(question(sql=f"{SQL} -- a note to self"))

    view = asyncio.run(test())
    orders = coordinator.store.orders(view.id)
    assert set(orders) == {CN, US}
    for _, text in orders.values():
        assert b"note to self" not in text
        order = canonical.load(Order, text)
        assert order.query == view.plan
        assert (order.outputs, order.training, order.tensors) == (("aggregate",), None, ())
        assert order.groups == ("drives",)
    assert decide(coordinator.store.progress(view.id)) == (SubmitOrder(CN), SubmitOrder(US))


def test_answers_of_both_zones_are_shown_and_added_up(coordinator: Coordinator, store: Store) -> None:
    plan = ask(store)
    one, other = answer(plan, 4_000), answer(plan, 8_000)
    take(store, CN, crossing(store, CN, 1), one)
    assert [zone.waiting for zone in shown(coordinator).zones] == ["nothing", "order"]
    take(store, US, crossing(store, US, 2), other)
    assert finish(store) is JobState.DONE
    view = shown(coordinator)
    assert [zone.answer for zone in view.zones] == [one, other]
    assert (view.state, view.code, view.answered) == (JobState.DONE, None, (CN, US))
    assert [column.label for column in view.columns] == ["drives", "avg(speed_mps)"]
    assert view.units == ("", "m/s")
    assert [cell.group for cell in view.whole] == [("free",), ("moderate",), ("dense",)]
    for zone, exact in ((view.zones[0].cells, 4_000), (view.zones[1].cells, 8_000), (view.whole, 12_000)):
        rows, mean = (column.points[0] for column in zone[0].columns)
        assert abs(rows.value_micro / 1e6 - exact) < 300
        assert rows.low_micro < rows.value_micro < rows.high_micro
        assert abs(mean.value_micro / 1e6 - 20) < 1
    widths = [c[0].columns[0].points[0].high_micro - c[0].columns[0].points[0].low_micro
              for c in (view.zones[0].cells, view.whole)]  # fmt: skip
    assert widths[1] > widths[0], "errors of two zones add up"


@pytest.mark.parametrize("how", [notice, refusal])
@pytest.mark.parametrize("code", [Code.BUDGET_EXHAUSTED, Code.NOT_RELEASED, Code.DATASET_UNKNOWN, Code.COMPUTE_FAILED])
def test_one_zone_that_does_not_answer_leaves_the_others_answer(
    coordinator: Coordinator, store: Store, how: Any, code: Code
) -> None:
    plan = ask(store)
    take(store, CN, how(store, CN, 1, code))
    assert store.job(JOB).state is JobState.RUNNING
    take(store, US, crossing(store, US, 2), answer(plan))
    assert finish(store) is JobState.DONE
    view = shown(coordinator)
    assert [(zone.zone, zone.code, zone.answer is None) for zone in view.zones] == [(CN, code, True), (US, None, False)]
    assert view.answered == (US,)
    assert view.whole == view.zones[1].cells


def test_a_question_that_no_zone_answers_has_failed_with_a_code(coordinator: Coordinator, store: Store) -> None:
    ask(store)
    take(store, CN, notice(store, CN, 1, Code.BUDGET_EXHAUSTED))
    take(store, US, refusal(store, US, 2, Code.DATASET_UNKNOWN))
    assert finish(store) is JobState.FAILED
    view = shown(coordinator)
    assert (view.state, view.code, view.whole) == (JobState.FAILED, Code.BUDGET_EXHAUSTED, ())
    assert [zone.code for zone in view.zones] == [Code.BUDGET_EXHAUSTED, Code.DATASET_UNKNOWN]


def test_a_zone_that_never_answers_is_marked_expired(coordinator: Coordinator, store: Store) -> None:
    """What a zone that died in mid-query leaves: the other's answer, and an end when the orders have expired."""
    plan = ask(store)
    take(store, US, crossing(store, US, 1), answer(plan))
    store.record(JOB, Step((Stopped(HQ, Code.EXPIRED),)))
    assert finish(store) is JobState.DONE
    view = shown(coordinator)
    assert [(zone.code, zone.answer is None) for zone in view.zones] == [(Code.EXPIRED, True), (None, False)]


def test_an_order_that_the_own_border_refuses_stops_that_zone_alone(store: Store) -> None:
    ask(store)
    store.record(JOB, Step((EvaluationDeclined(CN, 0, Code.WRONG_RECIPIENT), Ordered(US))))
    assert store.progress(JOB).state is JobState.RUNNING
    assert decide(store.progress(JOB)) == ()
    assert [zone.waiting for zone in store.job(JOB).zones] == ["nothing", "evaluation"]


def test_an_answer_that_was_held_says_so_until_it_comes(coordinator: Coordinator, store: Store) -> None:
    plan = ask(store)
    store.record(JOB, Step((Ordered(CN), Ordered(US))))
    take(store, CN, notice(store, CN, 1, Code.APPROVAL_MISSING))
    assert [(z.waiting, z.code) for z in shown(coordinator).zones] == [
        ("approval", Code.APPROVAL_MISSING), ("answer", None),
    ]  # fmt: skip
    take(store, CN, crossing(store, CN, 2), answer(plan))
    assert [(z.waiting, z.code) for z in shown(coordinator).zones] == [("nothing", None), ("answer", None)]


def test_a_delivery_that_comes_again_changes_nothing(coordinator: Coordinator, store: Store) -> None:
    plan = ask(store)
    first, other = answer(plan), answer(plan, 80_000)
    take(store, CN, crossing(store, CN, 1), first)
    take(store, CN, crossing(store, CN, 2), other)
    take(store, CN, notice(store, CN, 3, Code.NOT_RELEASED))
    assert shown(coordinator).zones[0].answer == first


def test_what_was_answered_is_there_after_a_restart(tmp_path: Path) -> None:
    first = assembled(tmp_path)
    plan = ask(first.store)
    take(first.store, CN, crossing(first.store, CN, 1), answer(plan))
    before = shown(first)
    first.store.close()
    again = assembled(tmp_path)
    assert shown(again) == before
    assert again.store.running() == (JOB,)
    assert decide(again.store.progress(JOB)) == (SubmitOrder(US),)


def test_an_answer_to_another_question_is_not_taken(store: Store) -> None:
    plan = ask(store)
    good = answer(plan)
    other = ask(store, question(sql=SQL.replace("drives GROUP", "minutes GROUP")), JobId("job-00000000000000bb"))
    wrong = [
        good.model_copy(update={"mode": Mode.DISCLOSURE_CONTROLLED}),
        good.model_copy(update={"cells": good.cells[1:]}),
        good.model_copy(update={"noise": good.noise[1:]}),
        good.model_copy(update={"epsilon_micro": 2 * good.epsilon_micro}),
        good.model_copy(update={"cells": (good.cells[0].model_copy(update={"values": ()}), *good.cells[1:])}),
        answer(other),
    ]
    for each in wrong:
        with pytest.raises(Refusal) as refused:
            read_answer(plan, canonical.dump(each))
        assert refused.value.code is Code.SCHEMA_MISMATCH
    assert read_answer(plan, canonical.dump(good)) == good


def test_the_same_key_and_body_is_the_same_question(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            headers = {"idempotency-key": "q-1"}
            first = await http.post("/v1/queries", json=question_json(), headers=headers)
            again = await http.post("/v1/queries", json=question_json(), headers=headers)
            other = await http.post("/v1/queries", json=question_json(slot_s=9), headers=headers)
            assert (first.status_code, again.json()) == (201, first.json())
            assert (other.status_code, other.json()["code"]) == (409, "conflicting_payload")

    asyncio.run(test())


def test_questions_are_listed_apart_from_jobs(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            client = JobsClient(http, TOKENS["ada"])
            asked = await client.ask(question())
            job = await client.submit(job_request())
            assert [item.id for item in await client.queries()] == [asked.id]
            assert [item.id for item in await client.jobs()] == [job.id]
            assert [event.event for event in await client.events(asked.id)] == ["submitted"]
            for path in (f"/v1/queries/{job.id}", "/v1/queries/x", "/v1/queries/job-0000000000000000"):
                assert (await http.get(path)).status_code == 404

    asyncio.run(test())


def test_a_viewer_reads_and_explains_and_does_not_ask(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator, "vera") as http:
            refused = await http.post("/v1/queries", json=question_json())
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert (await http.get("/v1/queries")).status_code == 200
            assert (await http.post("/v1/queries/explain", json=question_json())).status_code == 200

    asyncio.run(test())
    assert coordinator.store.questions() == ()


def test_a_wait_for_answers_is_woken_by_the_last(coordinator: Coordinator, store: Store) -> None:
    """The wait is far longer than this test may take: only the end can end it."""
    plan = ask(store)
    take(store, CN, crossing(store, CN, 1), answer(plan))

    async def test() -> None:
        async with calling(coordinator) as http:
            poll = asyncio.create_task(JobsClient(http, TOKENS["ada"]).answered(JOB))
            await asyncio.sleep(0)
            await asyncio.to_thread(take, store, US, crossing(store, US, 2), answer(plan))
            await asyncio.to_thread(finish, store)
            async with asyncio.timeout(10):
                assert (await poll).answered == (CN, US)

    asyncio.run(test())


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"sql": "SELECT max(speed_mps) FROM drives"}, "query_name_unknown", "Line 1, column 12"),
    ({"sql": "SELECT count(*) FROM drives LIMIT 1"}, "query_invalid", "Line 1, column 29"),
    ({"sql": "SELECT count(*) FROM drives" + " " * 5_000}, "too_large", "Line 1, column 4097"),
    ({"sql": None}, "input_invalid", "the whole"),
    ({"mode": "disclosure_controlled", "epsilon_micro": 1}, "input_invalid", "the whole"),
    ({"mode": "exact"}, "input_invalid", "mode"),
    ({"epsilon_micro": 0}, "input_invalid", "epsilon_micro"),
    ({"epsilon_micro": 10_000_001}, "input_invalid", "epsilon_micro"),
    ({"delta_exponent": 5}, "input_invalid", "delta_exponent"),
    ({"zones": []}, "input_invalid", "zones"),
    ({"zones": question_json()["zones"] * 2}, "input_invalid", "the whole"),
    ({"rows_per_vehicle": 2, "groups_per_vehicle": 3}, "query_invalid", "Line 1"),
    ({"sql": "SELECT variance(speed_mps) FROM drives", "epsilon_micro": 100}, "input_invalid", "epsilon is too small"),
    ({"canary": 1}, "input_invalid", "?"),
]


@pytest.mark.parametrize(("changes", "code", "place"), BAD)
@pytest.mark.parametrize("path", ["/v1/queries", "/v1/queries/explain"])
def test_a_bad_question_is_refused_with_its_place(
    coordinator: Coordinator, path: str, changes: dict[str, Any], code: str, place: str
) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            refused = await http.post(path, content=json.dumps(question_json(**changes)))
            assert refused.json()["code"] == code, refused.text
            assert refused.status_code == (413 if code == "too_large" else 422)
            assert place in refused.json()["what"]

    asyncio.run(test())
    assert coordinator.store.questions() == ()


def test_headquarters_does_not_ask_itself(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            own = [{**question_json()["zones"][0], "zone": "hq"}]
            refused = await http.post("/v1/queries", json=question_json(zones=own))
            assert (refused.status_code, refused.json()["code"]) == (422, "input_invalid")
            assert "zones" in refused.json()["what"]

    asyncio.run(test())


def test_a_question_does_not_come_in_as_a_job(coordinator: Coordinator) -> None:
    plan = ask(coordinator.store)
    body = json.loads(canonical.dump(coordinator.store.request(JOB)))

    async def test() -> None:
        async with calling(coordinator) as http:
            refused = await http.post("/v1/jobs", json=body)
            assert (refused.status_code, refused.json()["code"]) == (422, "input_invalid")

    asyncio.run(test())
    assert plan.spec.group_by == ("traffic",)


def counted(*plans: QueryPlan) -> int:
    """Return what part of the budget its filter holds against answers to these plans, in millionths."""
    total = accounting.zero()
    for plan in plans:
        total = accounting.add(total, curve_of(plan))
    return -(-accounting.spent_micro(total, BUDGET) * 1_000_000 // BUDGET.epsilon_micro)


@pytest.mark.parametrize("sql", [SQL, "SELECT count(*) FROM drives"], ids=["many numbers", "one number"])
def test_a_dry_run_tells_what_the_filter_will_count_on_top_of_what_it_has(coordinator: Coordinator, sql: str) -> None:
    """An answer takes of a budget what the answers before it leave it to take; one given before takes nothing."""
    store = coordinator.store
    other = "SELECT count(DISTINCT vehicle) FROM minutes"

    def costs(sql: str, **changes: Any) -> Any:
        async def test() -> Any:
            async with calling(coordinator) as http:
                return (await JobsClient(http, TOKENS["ada"]).explain(question(sql=sql, **changes))).costs[0]

        return asyncio.run(test())

    first = ask(store, question(sql=sql))
    alone = costs(sql)
    assert (alone.spent_ppm, alone.repeated) == (0, False)  # asked, but nothing has come
    take(store, CN, crossing(store, CN, 1), answer(first))
    repeated = costs(sql)
    assert (repeated.spent_ppm, repeated.share_ppm, repeated.repeated) == (counted(first), 0, True)
    second, _ = plan_of(question(sql=other))
    then = costs(other)
    assert (then.spent_ppm, then.repeated) == (counted(first), False)
    assert then.share_ppm == pytest.approx(counted(first, second) - counted(first), abs=1)
    assert not costs(sql, epsilon_micro=999_999).repeated
    elsewhere = [{"zone": CN, "dataset": {"dataset": "drives", "snapshot": "q4"}}]
    assert not costs(sql, zones=elsewhere).repeated

    again = JobId("job-00000000000000bb")
    ask(store, question(sql=sql), again)
    brought = answer(first).model_copy(update={"repeated": True, "epsilon_micro": 0})
    take(store, CN, crossing(store, CN, 2, again), brought, again)
    assert costs(other).spent_ppm == counted(first)


def test_a_dry_run_says_what_it_costs_and_asks_nobody(coordinator: Coordinator) -> None:
    sql = "SELECT count(*), sum(distance_km), avg(speed_mps), median(speed_mps), histogram(cut_ins, 5) FROM drives"

    async def test() -> None:
        async with calling(coordinator) as http:
            client = JobsClient(http, TOKENS["ada"])
            found = await client.explain(question(sql=sql))
            dear = await client.explain(question(sql=sql, epsilon_micro=4_000_000))
            exact = await client.explain(question(sql=sql, mode="disclosure_controlled"))
        assert (found.cells, found.plan.epsilon_micro) == (1, 1_000_000)
        assert [(c.zone, c.budget) for c in found.costs] == [(CN, BUDGET), (US, None)]
        assert (found.costs[0].spent_ppm, found.costs[1].share_ppm) == (0, None)
        assert found.costs[0].share_ppm == counted(found.plan) > 0
        assert [e.label for e in found.expected] == [
            "count(*)", "sum(distance_km)", "avg(speed_mps)", "quantile(speed_mps, 0.5)", "histogram(cut_ins, 5)",
        ]  # fmt: skip
        for cheap, costly, none in zip(found.expected, dear.expected, exact.expected, strict=True):
            assert (cheap.half_width_micro or 0) > (costly.half_width_micro or 0) > 0, cheap.label
            if "quantile" not in none.label:  # a histogram's bin has a width of its own
                assert none.half_width_micro == 0, none.label
        assert exact.costs[0].share_ppm == 0
        assert any("officers" in check for check in exact.checks)

    asyncio.run(test())
    assert coordinator.store.questions() == ()
    assert coordinator.store.running() == ()
