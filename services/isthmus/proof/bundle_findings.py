"""Where the verifier writes down what it finds and how much it has looked at."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from isthmus.contracts.evidence import REPORTED, Examined, Finding, FindingCode, Severity

if TYPE_CHECKING:
    from isthmus.contracts.identifiers import CrossingId, SiteId
    from isthmus.contracts.ledger import Log

MAX_FINDINGS = 1000
_ORDER = {code: place for place, code in enumerate(FindingCode)}


class Book:
    """Findings and counts of one verification."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._counts: Counter[Examined] = Counter()

    def find(
        self,
        code: FindingCode,
        detail: str,
        *,
        site: SiteId | None = None,
        log: Log | None = None,
        index: int | None = None,
        crossing: CrossingId | None = None,
    ) -> None:
        """Write down a finding. `detail` holds our own words, checked identifiers and numbers alone."""
        severity = Severity.REPORTED if code in REPORTED else Severity.FAILED
        self._findings.append(
            Finding(code=code, severity=severity, site=site, log=log, index=index, crossing=crossing, detail=detail)
        )

    def count(self, what: Examined, number: int = 1) -> None:
        """Count something that was looked at."""
        self._counts[what] += number

    @property
    def accepted(self) -> bool:
        """True while nothing has failed."""
        return all(f.severity is Severity.REPORTED for f in self._findings)

    def clean(self, site: SiteId) -> bool:
        """Tell whether nothing of `site` has failed."""
        return all(f.severity is Severity.REPORTED for f in self._findings if f.site == site)

    def findings(self) -> tuple[tuple[Finding, ...], int]:
        """Return the findings, failed ones first, and how many were left out."""
        ordered = sorted(self._findings, key=lambda f: (f.severity is Severity.REPORTED, _ORDER[f.code]))
        return tuple(ordered[:MAX_FINDINGS]), max(0, len(ordered) - MAX_FINDINGS)

    def examined(self) -> dict[Examined, int]:
        """Return how much of each was looked at, zeros included."""
        return {what: self._counts[what] for what in Examined}
