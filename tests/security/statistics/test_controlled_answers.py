"""Attacks on answers under `disclosure_controlled`, which is no differential privacy: what its checks do stop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from isthmus.contracts.queries import Answer, Condition, FigureKind, Mode
from isthmus.privacy.disclosure import Past, Withheld, control
from isthmus.privacy.regions import margins
from isthmus.privacy.suppression import FEWEST, open_interval
from unit.privacy.crowd import figure, partials, plan, question
from unit.privacy.test_disclosure import crowd, released, shown

ROWS = figure(FigureKind.ROWS)
TABLE = question(ROWS, by=["road_type", "traffic"], rows=1)


@pytest.mark.parametrize("seed", range(12))
def test_margins_of_a_suppressed_table_leave_wide_intervals(seed: int) -> None:
    """The attacker knows every margin exactly and solves for the hidden cells. Primary suppression alone (a threshold,
    as the peers have it) is solved exactly wherever a row has one hidden cell."""
    rng = np.random.default_rng(seed)
    counts = [tuple(int(n) for n in row) for row in rng.integers(3, 60, (4, 3))]
    rows = crowd(*counts)
    answer = control(plan(TABLE, mode=Mode.DISCLOSURE_CONTROLLED), partials(TABLE, rows), ())
    if isinstance(answer, Withheld):
        pytest.fail("a table of this size is shown in part")
    vehicles = [n for row in counts for n in row]
    hidden = [i for i, cell in enumerate(answer.cells) if cell.suppressed]
    small = [i for i in hidden if vehicles[i] < FEWEST]
    assert small == [i for i, n in enumerate(vehicles) if n < FEWEST]
    for cell in small:
        low, high = open_interval(cell, hidden, vehicles, margins(TABLE))
        assert high - low >= FEWEST
        alone_low, alone_high = open_interval(cell, small, vehicles, margins(TABLE))
        assert alone_high - alone_low <= high - low + 1e-6


def test_primary_suppression_alone_would_have_been_solved() -> None:
    vehicles = [20, 20, 20, 5, 20, 20, 20, 20, 20, 20, 20, 20]
    low, high = open_interval(3, [3], vehicles, margins(TABLE))
    assert (low, high) == (5.0, 5.0)
    rows = crowd((20, 20, 20), (5, 20, 20), (20, 20, 20), (20, 20, 20))
    answer = control(plan(TABLE, mode=Mode.DISCLOSURE_CONTROLLED), partials(TABLE, rows), ())
    assert shown(answer).count(False) >= 4  # two rows and two columns at least


def test_a_tracker_of_near_identical_questions_is_stopped_at_the_first_that_isolates() -> None:
    """A speed limit lowered step by step peels vehicles off one by one. ACRO's check passes every step."""
    rows = crowd((30, 30, 30))
    history: list[Past] = []
    answered = []
    for top in range(4_000, 1_030, -1):
        if top > 1_089 and top % 500:
            continue  # where no vehicle is, steps may be long
        spec = question(ROWS, where=[Condition(column="speed_mps", low=None, high=top)] if top < 4_000 else [], rows=1)
        sums = partials(spec, rows)
        outcome = control(plan(spec, mode=Mode.DISCLOSURE_CONTROLLED), sums, history)
        if isinstance(outcome, Answer):
            history.append(Past(spec, sums, outcome))
            answered.append(sums.cells[0].vehicles)
    assert len(answered) > 3
    steps = [a - b for a, b in pairwise(answered)]
    assert min(steps) >= FEWEST


def test_a_hidden_cell_is_not_the_rest_of_a_later_total() -> None:
    rows = crowd((30, 30, 4))
    by_traffic = question(ROWS, by=["traffic"], rows=1)
    past = released(by_traffic, rows)
    two = question(ROWS, where=[Condition(column="traffic", values=("free", "moderate"))], rows=1)
    every = question(ROWS, rows=1)
    first = control(plan(every, mode=Mode.DISCLOSURE_CONTROLLED), partials(every, rows), [past])
    history = [past] + ([Past(every, partials(every, rows), first)] if isinstance(first, Answer) else [])
    second = control(plan(two, mode=Mode.DISCLOSURE_CONTROLLED), partials(two, rows), history)
    assert isinstance(first, Withheld) or isinstance(second, Withheld)


@pytest.mark.parametrize(("slow", "answered"), [(9, False), (10, True)])
def test_a_total_less_all_its_parts_under_a_narrower_condition_is_stopped(slow: int, answered: bool) -> None:  # noqa: FBT001 - a test's parameter
    """Everybody, then by traffic without the slowest: no cell is small, none lies near another, and yet the few are
    the total less the parts. A check that holds single cells against each other passes it."""
    rows = crowd((40, 40, 40))  # a vehicle's speed is its own: 1,000 and its number
    every = question(ROWS, rows=1)
    limit = Condition(column="speed_mps", low=1_000 + slow, high=None)
    parts = question(ROWS, by=["traffic"], where=[limit], rows=1)
    outcome = control(plan(parts, mode=Mode.DISCLOSURE_CONTROLLED), partials(parts, rows), [released(every, rows)])
    assert isinstance(outcome, Answer) is answered
    turned = control(plan(every, mode=Mode.DISCLOSURE_CONTROLLED), partials(every, rows), [released(parts, rows)])
    assert isinstance(turned, Answer) is answered


def test_the_parts_of_a_total_that_leave_nothing_over_are_shown() -> None:
    rows = crowd((40, 40, 40))
    parts, every = question(ROWS, by=["traffic"], rows=1), question(ROWS, rows=1)
    outcome = control(plan(parts, mode=Mode.DISCLOSURE_CONTROLLED), partials(parts, rows), [released(every, rows)])
    assert isinstance(outcome, Answer)
