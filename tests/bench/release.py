"""A border's part of an answer: from exact sums that are due to a signed crossing in the ledger; `bench-release.json`.

    python tests/bench/release.py [repeats]

One transaction parses the sums, draws the noise, settles the budget, drafts, decides by policy, seals, signs, logs, and
is synced. The question has as many numbers as a hundred cells of four figures, over all cells that the catalogue has;
every one is another question to the border, so that none is a repeat. The figure to judge is the ratio to the limit.
The processor's time is given beside the clock's, and the parts alone, since a machine that does other things blurs the
clock.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from isthmus.border.keeper import questions
from isthmus.border.keeper.ledger import LedgerStore
from isthmus.contracts.ledger import CrossingEntry, Log
from isthmus.contracts.queries import Figure, FigureKind, PrivacyBudget, primitives
from isthmus.kit.clock import ManualClock
from isthmus.privacy import release
from isthmus.privacy.mechanism import curve_of
from isthmus.proof import canonical
from isthmus.proof.signing import SigningKey
from security import asking
from security.scene import CN, NOW, Scene
from unit.privacy.crowd import fleet, partials

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.contracts.queries import QueryPlan

REPEATS = 20
VEHICLES = 400
LIMIT_S = 0.05
"""What a border may take for an answer, at most."""
NUMBERS = 400
"""A hundred cells of four figures."""
PLENTY = PrivacyBudget(epsilon_micro=1_000_000_000, delta_exponent=6)
QUESTION = asking.spec(
    Figure(kind=FigureKind.VEHICLES, measure=None),
    Figure(kind=FigureKind.SUM, measure="distance_km"),
    Figure(kind=FigureKind.MEAN, measure="speed_mps"),
    Figure(kind=FigureKind.HISTOGRAM, measure="headway_s", bins=13),
    group_by=("road_class", "road_type", "traffic"),
)
SUMS = partials(QUESTION, fleet("us", VEHICLES))


def plan(number: int) -> QueryPlan:
    """Return the plan of the `number`th question: its epsilon is its own."""
    return asking.plan(QUESTION, epsilon_micro=1_000_000 - number)


def timed(action: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that an action takes, by the clock and of processor time."""
    began, busy = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began, time.process_time() - busy


def summary(times: list[tuple[float, float]]) -> dict[str, float]:
    """Return medians, and the worst by the clock."""
    clock, processor = zip(*times, strict=True)
    return {
        "clock_s": statistics.median(clock),
        "best_clock_s": min(clock),
        "worst_clock_s": max(clock),
        "processor_s": statistics.median(processor),
    }


def transactions(folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Measure a border that accepts a question, takes its sums, and lets the answer out, one after the other."""
    home = folder / "home"
    asking.set_up(home, PLENTY)
    scene = Scene(home, ManualClock(NOW))
    found: dict[str, list[tuple[float, float]]] = {"accept the order": [], "take the sums": [], "let out": []}
    try:
        for number in range(repeats + 1):  # the first one loads what is loaded once
            order = asking.asking(number, plan(number))
            scene.give(order)
            steps = {
                "accept the order": scene.carry,  # with its way to the zone, and its receipt's back
                "take the sums": lambda order=order: asking.hand_in(scene, order, SUMS),
                "let out": scene.keeper(CN).statistics.release_due,
            }
            for name, action in steps.items():
                if name == "let out":
                    scene.clock.advance(asking.SLOT_S)
                took = timed(action)
                if number:
                    found[name].append(took)
            scene.carry()
            if asking.answer_of(scene, order) is None:
                raise SystemExit("a question that was asked has no answer")
    finally:
        scene.close()
    return {name: summary(times) for name, times in found.items()}


def parts(folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Measure what the transaction is made of, each alone."""
    sums = canonical.dump(SUMS)
    answer = release.release(plan(0), SUMS)
    key, ledger = SigningKey.generate(), LedgerStore(folder / "ledger.db")
    envelope = key.sign("application/bench", b"m" * 2_000)
    entry = CrossingEntry(verdict="sent", code=None, envelope=envelope.decode(), at=NOW)

    def append() -> None:
        with ledger.transaction() as tx:
            tx.append(Log.CROSSINGS, entry)

    numbers = iter(range(1_000_000, 2_000_000))
    actions: dict[str, Callable[[], Any]] = {
        "plan noise and cost": lambda: curve_of(plan(-next(numbers))),
        "parse the sums": lambda: questions.read_partials(plan(0), sums),
        "noise": lambda: release.release(plan(0), SUMS),
        "check the answer": lambda: questions.require_answer(plan(0), canonical.dump(answer)),
        "sign": lambda: key.sign("application/bench", b"m" * 2_000),
        "append to the ledger, synced": append,
    }
    found = {name: summary([timed(action) for _ in range(repeats + 1)][1:]) for name, action in actions.items()}
    ledger.close()
    return found


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS
    numbers = QUESTION.domain_size() * sum(p.width for p in primitives(QUESTION))
    if numbers < NUMBERS:
        raise SystemExit(f"the question has {numbers} numbers of {NUMBERS}")
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name:
        found = transactions(Path(name), repeats)
        measured = parts(Path(name), repeats)
    ratio = {kind: found["let out"][f"{kind}_s"] / LIMIT_S for kind in ("clock", "processor")}
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    report = {
        "machine": machine,
        "cells": QUESTION.domain_size(),
        "numbers": numbers,
        "limit_s": LIMIT_S,
        "to_limit": ratio,
        "transactions": found,
        "parts": measured,
    }
    Path("bench-release.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    for name, each in {**found, **measured}.items():
        indent = "" if name in found else "  of it, alone: "
        print(f"{indent + name:<46}{1000 * each['clock_s']:8.2f} ms, {1000 * each['processor_s']:8.2f} ms of processor")
    print(
        f"An answer of {numbers} numbers in {report['cells']} cells: {ratio['clock']:.2f} of the limit of"
        f" {1000 * LIMIT_S:.0f} ms ({ratio['processor']:.2f} by the processor). Load {machine['load']:.1f} on"
        f" {machine['cores']} cores. Written: bench-release.json"
    )


if __name__ == "__main__":
    main()
