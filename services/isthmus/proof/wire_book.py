"""Where the audit of a capture writes down bytes and findings. Every byte is written once, in one part."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from isthmus.contracts.wire_audit import Act, Flow, LinkCount, Part, WireFinding, WireFindingCode

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import SiteId

MAX_FINDINGS = 1000
_ORDER = {code: place for place, code in enumerate(WireFindingCode)}

Way = tuple["SiteId | None", "SiteId | None"]
"""From whom to whom."""


class Book:
    """Bytes by flow and part, findings, counts by zone, and how many crossings lie before and after the capture."""

    def __init__(self) -> None:
        self._flows: defaultdict[Way, Counter[Part]] = defaultdict(Counter)
        self._findings: list[WireFinding] = []
        self.acts: defaultdict[SiteId, Counter[Act]] = defaultdict(Counter)
        self.connections: Counter[SiteId] = Counter()
        self.reconnects: Counter[SiteId] = Counter()
        self.before = self.after = 0

    def add(self, way: Way, part: Part, size: int) -> None:
        """Write bytes down. A part never shrinks: what is negative would hide what is dark."""
        if size < 0:
            raise ValueError("bytes are not taken back")
        self._flows[way][part] += size

    def find(
        self, code: WireFindingCode, detail: str, *, at_us: int = 0, site: SiteId | None = None, dark: int = 0
    ) -> None:
        """Write a finding down. `detail` holds our own words, checked identifiers and numbers alone."""
        self._findings.append(WireFinding(code=code, site=site, at_us=at_us, dark=dark, detail=detail))

    def parts(self) -> dict[Part, int]:
        """Return all bytes by part."""
        return {part: sum(flow[part] for flow in self._flows.values()) for part in Part}

    def flows(self) -> tuple[Flow, ...]:
        """Return the flows, in order of their parties, the unknown ones last."""
        ordered = sorted(self._flows.items(), key=lambda item: tuple((s is None, s or "") for s in item[0]))
        return tuple(
            Flow(sender=way[0], receiver=way[1], total=flow.total(), parts={part: flow[part] for part in Part})
            for way, flow in ordered
        )

    def links(self) -> tuple[LinkCount, ...]:
        """Return what happened on each zone's link."""
        return tuple(
            LinkCount(
                zone=zone,
                connections=self.connections[zone],
                reconnects=self.reconnects[zone],
                acts={act: self.acts[zone][act] for act in Act},
            )
            for zone in sorted(self.connections)
        )

    def findings(self) -> tuple[tuple[WireFinding, ...], int]:
        """Return the findings by code and time, and how many were left out."""
        ordered = sorted(self._findings, key=lambda f: (_ORDER[f.code], f.at_us))
        return tuple(ordered[:MAX_FINDINGS]), max(0, len(ordered) - MAX_FINDINGS)
