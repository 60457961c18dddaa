"""Answers on a screen: each zone's and the whole's, with bars, codes, and what is hidden."""

from __future__ import annotations

import asyncio
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from isthmus.cli import defaults, federation, main
from isthmus.cli.answers import explained, rendered, shown
from isthmus.cli.demo import questions
from isthmus.cli.demo.questions import HEADLINES, Headline
from isthmus.cli.screen import Exit
from isthmus.client.jobs import JobsClient
from isthmus.contracts.answers import Point
from isthmus.contracts.errors import Code
from isthmus.contracts.queries import CellAnswer, Mode, PrivacyBudget
from isthmus.coordinator.asking import as_job, plan_of
from isthmus.coordinator.explaining import explain
from isthmus.coordinator.plans import default_recipes, make_orders
from unit.coordinator.jobs import CN, HQ, JOB, NOW, US
from unit.coordinator.questions import answer, ask, crossing, notice, question, take
from unit.coordinator.test_api import TOKENS, calling
from unit.coordinator.test_queries import assembled, finish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isthmus.contracts.answers import QueryRequest, QueryView
    from isthmus.contracts.queries import Answer, QueryPlan


def asked(folder: Path, request: QueryRequest, china: Callable[[QueryPlan], Answer | Code]) -> QueryView:
    """Return a question that Texas answers and China does what is said."""
    folder.mkdir(exist_ok=True)
    coordinator = assembled(folder)
    plan = ask(coordinator.store, request)
    outcome = china(plan)
    if isinstance(outcome, Code):
        take(coordinator.store, CN, notice(coordinator.store, CN, 1, outcome))
    else:
        take(coordinator.store, CN, crossing(coordinator.store, CN, 1), outcome)
    take(coordinator.store, US, crossing(coordinator.store, US, 2), answer(plan))
    finish(coordinator.store)

    async def look() -> QueryView:
        async with calling(coordinator) as http:
            return await JobsClient(http, TOKENS["ada"]).query(JOB)

    return asyncio.run(look())


def printed(*parts: object) -> str:
    out = StringIO()
    console = Console(file=out, width=200, highlight=False)
    for part in parts:
        console.print(part)
    return out.getvalue()


def point(value: float, low: float, high: float) -> Point:
    return Point(value_micro=round(value * 1e6), low_micro=round(low * 1e6), high_micro=round(high * 1e6))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (point(12.3456, 11.9, 12.79), "12.35 ± 0.45"),
        (point(65, 0, 146), "65 (0 to 146)"),
        (point(12_000, 11_900, 12_100), "12,000 ± 100"),
        (point(0.004, 0.0031, 0.0049), "0.00400 ± 0.00090"),
        (point(7, 7, 7), "7"),
        (point(0, 0, 0), "0"),
    ],
)
def test_digits_end_where_the_bar_makes_them_meaningless(given: Point, said: str) -> None:
    assert shown(given) == said


def test_every_zone_and_the_whole_are_shown_with_their_cost(tmp_path: Path) -> None:
    text = printed(*rendered(asked(tmp_path, question(), answer)))
    for word in ("cn-shanghai", "us-texas", "whole", "free", "moderate", "dense", "drives", "avg(speed_mps) [m/s]"):
        assert word in text
    assert text.count("±") == 3 * 2 * 3, "three cells, two figures, two zones and the whole"
    assert "Differential privacy per vehicle" in text
    assert text.count("cost epsilon 1 (delta 1e-6)") == 2


def test_a_zone_without_an_answer_is_marked_with_its_code(tmp_path: Path) -> None:
    text = printed(*rendered(asked(tmp_path, question(), lambda _: Code.BUDGET_EXHAUSTED)))
    assert "cn-shanghai: no answer, budget_exhausted." in text
    assert "does not renew" in text
    assert "1 of 2 zones" in text


def test_a_hidden_cell_is_not_a_zero(tmp_path: Path) -> None:
    def partly(plan: QueryPlan) -> Answer:
        whole = answer(plan)
        return whole.model_copy(update={"cells": (CellAnswer(suppressed=True, values=()), *whole.cells[1:])})

    text = printed(*rendered(asked(tmp_path, question(), partly)))
    assert text.count("hidden  ") >= 2
    assert "it need not be zero" in text
    assert "1 of 2 zones" in text


def test_an_answer_given_again_says_that_it_cost_nothing(tmp_path: Path) -> None:
    again = asked(tmp_path, question(), lambda p: answer(p).model_copy(update={"repeated": True, "epsilon_micro": 0}))
    assert "cn-shanghai: asked before: the same answer, which costs nothing." in printed(*rendered(again))


def test_a_histogram_has_a_row_for_each_bin(tmp_path: Path) -> None:
    view = asked(tmp_path, question(sql="SELECT histogram(cut_ins, 3) FROM drives"), answer)
    text = printed(*rendered(view))
    assert [line for line in ("0 to 7", "7 to 14", "14 to 21") if f"histogram(cut_ins, 3): {line}" not in text] == []


def test_a_histogram_that_nobody_shows_says_so(tmp_path: Path) -> None:
    def hidden(plan: QueryPlan) -> Answer:
        return answer(plan).model_copy(update={"cells": (CellAnswer(suppressed=True, values=()),)})

    view = asked(tmp_path, question(sql="SELECT histogram(cut_ins, 3) FROM drives"), hidden)
    view = view.model_copy(update={"whole": view.zones[0].cells, "zones": (view.zones[0], view.zones[0])})
    (row,) = [line for line in printed(*rendered(view)).splitlines() if line.startswith(" histogram(cut_ins, 3)")]
    assert row.split()[-3:] == ["hidden"] * 3


def test_a_dry_run_says_what_is_gone_what_it_takes_and_where_it_does_not_fit() -> None:
    plan, columns = plan_of(question())
    orders = make_orders(as_job(question(), plan), default_recipes(), job=JOB, issuer=HQ, now=NOW)
    small = PrivacyBudget(epsilon_micro=1_500_000, delta_exponent=6)
    other, _ = plan_of(question(sql="SELECT count(*) FROM minutes"))
    paid = [order.model_copy(update={"query": other}) for order in orders[:1]]
    found = explain(plan, columns, orders, paid={CN: paid}, trained={}, budgets={CN: small, US: small})
    china, texas = [line for line in printed(*explained(found)).splitlines() if "epsilon 1 (delta 1e-6)" in line]
    assert "66.7 %" in china.split("epsilon 1.5 (delta 1e-6)")[1]
    assert china.rstrip().endswith(": more than is left")
    assert "0.0 %" in texas
    assert "more than" not in texas
    again = explain(plan, columns, orders, paid={CN: orders[:1], US: orders[1:]}, trained={}, budgets={CN: small})
    assert printed(*explained(again)).count("nothing: asked before") == 2


def test_disclosure_control_says_that_it_is_not_differential_privacy(tmp_path: Path) -> None:
    view = asked(tmp_path, question(), answer)
    plan = view.plan.model_copy(update={"mode": Mode.DISCLOSURE_CONTROLLED, "epsilon_micro": 0, "delta_exponent": 0})
    text = printed(*rendered(view.model_copy(update={"plan": plan})))
    assert "NOT differential privacy" in text
    assert "cost epsilon" not in text


def test_the_demo_reports_five_figures_of_both_zones_and_the_whole(tmp_path: Path) -> None:
    found = tuple(
        Headline(name, asked(tmp_path / str(n), defaults.question(HQ, [CN, US], sql), answer))
        for n, (name, sql) in enumerate(HEADLINES)
    )
    report = questions.as_json(found)
    assert [len(entry["cells"]) for entry in report] == [1, 4, 1, 1, 1]
    for entry in report:
        for cell in entry["cells"]:
            assert set(cell["zones"]) == {CN, US}
            assert cell["whole"]["low"] <= cell["whole"]["value"] <= cell["whole"]["high"]
    text = printed(*questions.tables(found))
    assert all(name in text for name, _ in HEADLINES)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--mode", "exact"],
        ["--epsilon", "0"],
        ["--epsilon", "11"],
        ["--mode", "disclosure-controlled", "--epsilon", "1"],
        ["--slot", "0"],
    ],
)
def test_a_wrong_option_is_a_usage_error(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    federation.create(tmp_path / "home", federation.demo_plan())
    given = ["query", "SELECT count(*) FROM drives", *arguments, "--home", str(tmp_path / "home"), "--json"]
    assert main.run(given) == Exit.USAGE
    assert "input_invalid" in capsys.readouterr().out
