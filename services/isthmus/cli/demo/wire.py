"""The demo's audit of what passed between its borders: `isthmus audit wire`, run on the demo's own capture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from isthmus.cli import audit, verify
from isthmus.cli.screen import table
from isthmus.contracts.wire_audit import Part

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from isthmus.cli.demo.stage import Captured
    from isthmus.contracts.identifiers import SiteId
    from isthmus.contracts.wire_audit import WireReport

ROWS = (
    ("sealed payloads, as logged", (Part.PAYLOAD,)),
    ("envelopes and receipts, as logged", (Part.SIGNED,)),
    ("control messages: heads, openings, polls", (Part.CONTROL,)),
    ("padding of payloads to whole frames", (Part.PADDING,)),
    ("HTTP", (Part.HTTP,)),
    ("TLS", (Part.TLS, Part.HANDSHAKE)),
    ("TCP and IP; what was sent again", (Part.TRANSPORT, Part.REPEATED)),
)
"""What a person is shown, and which parts of the audit each row is; dark bytes have a row of their own."""
DARK = "dark: no ledger and no rule accounts for them"
SHOWN_FINDINGS = 10


@dataclass(frozen=True, slots=True)
class WireAudit:
    """A capture, who took it, and what the audit of it says."""

    captured: Captured
    report: WireReport

    @property
    def holds(self) -> bool:
        """True where the audit is clear and the capture did not end before the last crossing."""
        return self.report.clear and not self.report.after


def audited(captured: Captured, capture: Path, evidence: Path, roots: Path) -> WireAudit:
    """Hold a capture against the evidence, with the roots alone.

    Raises:
        Refusal: it is no capture that can be read whole.
    """
    report = audit.audited(
        capture,
        evidence,
        verify.read_roots(roots),
        captured.parties,
        at_most=audit.AT_MOST,
        reconnects=audit.RECONNECTS,
    )
    return WireAudit(captured, report)


def as_json(found: WireAudit) -> dict[str, Any]:
    """Return the report's field: the audit's whole answer, and whose address is whose."""
    return {
        "captured_by": " ".join(found.captured.by.split()),
        "parties": [audit.spelled(party) for party in found.captured.parties],
        **found.report.model_dump(mode="json"),
    }


def tables(found: WireAudit) -> list[RenderableType]:
    """Return what a person is shown."""
    report = found.report
    zones = [link.zone for link in report.links]
    rows: list[tuple[object, ...]] = [
        (name, *(f"{_sum(report, parts, zone):,}" for zone in (*zones, None))) for name, parts in ROWS
    ]
    style = "green" if found.holds else "bold red"
    dark = [Text(f"{_sum(report, (Part.DARK,), zone):,}", style) for zone in (*zones, None)]
    rows += [
        (Text(DARK, style), *dark),
        ("in all", *(f"{_sum(report, tuple(Part), zone):,}" for zone in (*zones, None))),
    ]
    shown: list[RenderableType] = [
        table("What passed between the borders: every byte of a capture", ("bytes", *zones, "both links"), rows),
        (
            f"Dark: {report.dark:,} bytes; {report.at_most:,} would pass. Room, whose content no capture shows: "
            f"{report.room:,} (padding, heads, handshakes)."
        ),
        f"{found.captured.by}\n",
    ]
    if report.findings:
        shown.insert(1, audit.findings(report, SHOWN_FINDINGS))
    if report.after:
        shown.insert(1, Text(f"The capture ended early: {report.after} crossings were decided after it.", style))
    return shown


def command(found: WireAudit, capture: Path, evidence: Path, roots: Path) -> str:
    """Return the command that audits it again, over two lines."""
    parties = " ".join(f"--party {audit.spelled(party)}" for party in found.captured.parties)
    return f"isthmus audit wire {capture} --evidence {evidence} --roots {roots} \\\n       {parties}"


def _sum(report: WireReport, parts: tuple[Part, ...], zone: SiteId | None) -> int:
    """Return the bytes of some parts on one zone's link, both ways; of the whole capture where None."""
    if zone is None:
        return sum(report.parts[part] for part in parts)
    return sum(flow.parts[part] for flow in report.flows if zone in {flow.sender, flow.receiver} for part in parts)
