"""How far off the five headline figures are under `dp` at epsilon 1, by fleet; written to `bench-headline.json`.

    python tests/bench/headline.py [answers]

Fleets of 2,000 vehicles a zone, two drives each, with the road mix and the rates of the calibration table. Of each of
three fleets a zone, each question is answered so many times. The figure to judge is the median relative error; the one
figure with cells is given for each of them too.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from isthmus.privacy.figures import figures
from isthmus.privacy.release import release
from unit.privacy.crowd import HEADLINE, exact_answer, fleet, partials, plan

VEHICLES, SEEDS, ANSWERS = 2_000, (5, 11, 12), 500
LIMIT = 0.03
"""What the median relative error may be at most."""
ZONES = ("cn", "us")


def errors(name: str, zone: str, answers: int = ANSWERS) -> dict[str, list[float]]:
    """Return the relative errors of a figure's cells that were told, by cell."""
    spec = HEADLINE[name]
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        sums = partials(spec, fleet(zone, VEHICLES, seed=seed))
        truth = figures(spec, [exact_answer(sums)])
        for _ in range(answers):
            for told, real in zip(figures(spec, [release(plan(spec), sums)]), truth, strict=True):
                if told.figures:
                    exact = real.figures[0].estimates[0].value
                    error = abs(told.figures[0].estimates[0].value - exact) / exact
                    found.setdefault(" ".join(told.cell), []).append(error)
    return found


def main() -> None:
    answers = int(sys.argv[1]) if len(sys.argv) > 1 else ANSWERS
    report: dict[str, dict[str, dict[str, float]]] = {}
    for name in HEADLINE:
        for zone in ZONES:
            by_cell = errors(name, zone, answers)
            medians = {cell: statistics.median(found) for cell, found in by_cell.items() if cell}
            whole = statistics.median(error for found in by_cell.values() for error in found)
            report.setdefault(name, {})[zone] = {"all": whole, **medians}
            cells = ", ".join(f"{cell} {100 * error:.2f} %" for cell, error in medians.items())
            print(f"{name:<28}{zone}{100 * whole:7.2f} %  {cells}", flush=True)
    most = max(found["all"] for zones in report.values() for found in zones.values())
    print(f"{100 * most:.2f} % at most; the limit is {100 * LIMIT:g} %.")
    Path("bench-headline.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
