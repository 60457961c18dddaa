"""Fifty questions and trainings at once, and a border that is killed in the middle of them, again and again.

Whatever is killed when, the budget is not overspent, and tables and ledger tell the same story.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from isthmus.contracts.ledger import INTERNAL_ENTRY, PrivacyReserved, PrivacySettled
from isthmus.contracts.queries import PrivacyBudget
from isthmus.kit.clock import ManualClock
from isthmus.privacy.training import paid
from isthmus.proof import accounting
from security import asking
from security.scene import CN, NOW, Scene
from security.spend_until_killed import ROUNDS

BUDGET = PrivacyBudget(epsilon_micro=3_000_000, delta_exponent=6)
KILLED_AFTER = (7, 61, 78, None)
"""After how many lines each life of the border ends; the last one is let live."""


def live(home: Path, lines: int | None) -> int:
    """Run the border until it has said `lines` lines, then kill it; return its exit code."""
    script = Path(__file__).with_name("spend_until_killed.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    with subprocess.Popen([sys.executable, str(script), str(home)], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        for said, _ in enumerate(process.stdout, start=1):
            if said == lines:
                process.kill()
        return process.wait()


def test_the_budget_holds_through_kills(tmp_path: Path) -> None:
    home = tmp_path / "home"
    asking.set_up(home, BUDGET, open_orders=64)
    ends = []
    for lines in KILLED_AFTER:
        ends.append(live(home, lines))
        scene = Scene(home, ManualClock(NOW))
        try:
            assert told_by_ledger(scene) == told_by_tables(scene)
        finally:
            scene.close()
    assert ends.count(-9) >= 2  # a life that has nothing left to say ends before it is killed
    assert ends[-1] == 0
    scene = Scene(home, ManualClock(NOW))
    view = scene.keeper(CN).statistics.view()
    settled = [e["rounds"] for e in scene.picture(CN).events("privacy_settled") if e["question"] is None]
    scene.close()
    assert view.answered > 3
    assert view.trainings
    assert any(0 < rounds < ROUNDS for rounds in settled)
    assert view.epsilon_micro <= BUDGET.epsilon_micro


def told_by_tables(scene: Scene) -> accounting.Curve:
    with scene.border(CN).store.reading() as tx:
        row = tx.row("SELECT curve FROM privacy_use")
        rows = tx.execute("SELECT curve FROM question UNION ALL SELECT curve FROM training").fetchall()
    total = accounting.zero()
    for each in rows:
        total = accounting.add(total, tuple(json.loads(each["curve"])))
    used = tuple(json.loads(row["curve"])) if row else accounting.zero()
    assert used == total
    return total


def told_by_ledger(scene: Scene) -> accounting.Curve:
    """Add up what the internal log says, holding every step to the budget."""
    reserved: dict[str, accounting.Curve] = {}
    total = accounting.zero()
    for event in scene.picture(CN).internal:
        entry = INTERNAL_ENTRY.validate_json(json.dumps(event))
        if isinstance(entry, PrivacyReserved):
            assert entry.order not in reserved
            reserved[entry.order] = entry.curve
            total = accounting.add(total, entry.curve)
            assert accounting.spent_micro(total, BUDGET) <= BUDGET.epsilon_micro
        if isinstance(entry, PrivacySettled) and entry.rounds is not None:
            whole = reserved[entry.order]
            total = accounting.subtract(total, accounting.subtract(whole, paid(whole, entry.rounds, ROUNDS)))
        elif isinstance(entry, PrivacySettled) and entry.outcome != "spent":
            total = accounting.subtract(total, reserved[entry.order])
    return total
