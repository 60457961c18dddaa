"""What the demo found: collected into one value, written as `demo-report.json`, shown as tables."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from isthmus.cli.demo import questions, wire
from isthmus.cli.screen import short, table
from isthmus.contracts.crossings import RELEASES
from isthmus.contracts.ledger import Log
from isthmus.contracts.orders import Predictor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import RenderableType

    from isthmus.cli.demo.questions import Headline
    from isthmus.cli.demo.wire import WireAudit
    from isthmus.contracts.evidence import Report as Verification
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.inside import UsageReport
    from isthmus.contracts.jobs import JobEvent, JobResults
    from isthmus.zone.results import ZoneResults

PREDICTORS = (
    Predictor.CONSTANT_VELOCITY,
    Predictor.CONSTANT_TURN_RATE,
    Predictor.LOCAL_ONLY,
    Predictor.FEDERATED,
    Predictor.ADAPTED,
)
MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that must fail: what was tried, at which border, the code that stopped it, and the one that should.

    Without a code it was let through; with another one than expected, something else stopped it.
    """

    attempt: str
    border: str
    code: str
    expected: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the demo found out."""

    zones: Mapping[SiteId, ZoneResults]
    events: tuple[JobEvent, ...]
    results: JobResults
    headlines: tuple[Headline, ...]
    usage: UsageReport
    attempts: tuple[Attempt, ...]
    verification: Verification
    wire: WireAudit
    seconds: float

    @property
    def round_seconds_median(self) -> float:
        """Median time of a round; the first, which waits for officers, left out."""
        times = [e.round_us for e in self.events if e.event == "round_done" and e.round_us and e.slot]
        return statistics.median(times) / MICRO if times else 0.0

    def ade(self, zone: SiteId) -> dict[str, float]:
        """Return the exact average displacement errors in one zone, in metres."""
        found = {f.predictor: f.ade_um / MICRO for f in self.zones[zone].figures}
        return {p.value: found[p] for p in PREDICTORS if p in found}

    def holds(self) -> bool:
        """Tell whether all that must fail did, the ledgers were accepted, and the capture shows nothing beside them."""
        refused = all(a.code == a.expected for a in self.attempts)
        return self.verification.accepted and self.wire.holds and refused


def write(findings: Findings, path: Path) -> None:
    """Write the report as JSON."""
    path.write_text(json.dumps(as_json(findings), indent=2) + "\n", "utf-8")


def as_json(findings: Findings) -> dict[str, Any]:
    """Return the report's fields."""
    return {
        "seconds": round(findings.seconds, 1),
        "zones": {
            zone: {
                "vehicles": results.vehicles + results.held_out_vehicles,
                "raw_bytes": results.raw_bytes,
                "ade": {name: round(value, 4) for name, value in findings.ade(zone).items()},
            }
            for zone, results in sorted(findings.zones.items())
        },
        "rounds": sum(e.event == "round_done" for e in findings.events),
        "round_seconds_median": findings.round_seconds_median,
        "questions": questions.as_json(findings.headlines),
        "crossings": {
            kind: {"count": count, "bytes": size} for kind, (count, size) in sorted(_by_kind(findings.usage).items())
        },
        "refused": [{"attempt": a.attempt, "border": a.border, "code": a.code} for a in findings.attempts],
        "ledgers": {
            site.site: {
                "size": next(v.size for v in site.logs if v.log is Log.CROSSINGS),
                "root": next(v.root for v in site.logs if v.log is Log.CROSSINGS),
                "verified": site.verified,
            }
            for site in findings.verification.sites
        },
        "information_bound_bits": findings.verification.information_bound_bits,
        "wire": wire.as_json(findings.wire),
    }


def tables(findings: Findings) -> list[RenderableType]:
    """Return what a person is shown."""
    crossed = {(e.zone, f.predictor) for e in findings.results.evaluations for f in e.evaluation.figures}
    errors = [
        (zone, *(_cell(findings, zone, predictor, crossed=(zone, predictor) in crossed) for predictor in PREDICTORS))
        for zone in sorted(findings.zones)
    ]
    raw = sum(z.raw_bytes for z in findings.zones.values())
    usage = [
        (u.kind, "into" if u.direction == "in" else "out of", u.count, f"{u.sealed_bytes:,}")
        for u in findings.usage.usage
    ]
    out = sum(u.sealed_bytes for u in findings.usage.usage if u.direction == "in" and u.kind in RELEASES)
    refused = [(a.attempt, a.border, _code(a)) for a in findings.attempts]
    ledgers = [
        (s.site, v.log, v.size, short(v.root), Text("yes", "green") if s.verified else Text("NO", "bold red"))
        for s in findings.verification.sites
        for v in s.logs
    ]
    bits = findings.verification.information_bound_bits
    columns = ("zone", "constant velocity", "constant turn rate", "local only", "federated", "adapted")
    return [
        table("Error on held-out vehicles: average displacement over 3 s, in metres", columns, errors),
        "* crossed, banded to 2 cm. All else in this table stayed in its zone and is shown as its operator sees it.",
        "  Local only has passed over the zone's own data as often as the adapted model has.\n",
        *questions.tables(findings.headlines),
        table("What crossed headquarters' border", ("kind", "direction", "crossings", "sealed bytes"), usage),
        f"{raw:,} bytes of raw drives stayed in the zones; releases of {out:,} sealed bytes left them.",
        f"What they could say at most: {bits:,} bits: their payload. Updates carry no noise, so no less is claimed.\n",
        table("What must fail, tried by a rogue on a throwaway copy", ("attempt", "refused by", "code"), refused),
        table("Ledgers, checked against roots and against each other", _LEDGER_COLUMNS, ledgers),
        *wire.tables(findings.wire),
    ]


_LEDGER_COLUMNS = ("site", "log", "entries", "root", "verified")


def _cell(findings: Findings, zone: SiteId, predictor: Predictor, *, crossed: bool) -> str:
    value = findings.ade(zone).get(predictor.value)
    return "-" if value is None else f"{value:.3f}{' *' if crossed else ''}"


def _code(attempt: Attempt) -> Text:
    if attempt.code == attempt.expected:
        return Text(attempt.code, "green")
    return Text(f"{attempt.code or 'LET THROUGH'} (expected {attempt.expected})", "bold red")


def _by_kind(usage: UsageReport) -> dict[str, tuple[int, int]]:
    totals: dict[str, tuple[int, int]] = {}
    for each in usage.usage:
        count, size = totals.get(each.kind.value, (0, 0))
        totals[each.kind.value] = (count + each.count, size + each.sealed_bytes)
    return totals
