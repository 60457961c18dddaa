"""The inside face's routes: who may use each, and how much each may say. Both halves of the border go by this table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.inside import InsideRole

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL = frozenset(InsideRole)
SITE = frozenset({InsideRole.COMPUTE, InsideRole.SUBMITTER})
INGEST = frozenset({InsideRole.INGEST})
COMPUTE = frozenset({InsideRole.COMPUTE})
OFFICER = frozenset({InsideRole.OFFICER})
EVIDENCE = frozenset({InsideRole.AUDITOR, InsideRole.OFFICER})

DELIVERIES = "GET /v1/deliveries"
PAYLOAD = "GET /v1/crossings/{crossing}/payload"
DELIVERED = "POST /v1/crossings/{crossing}/delivered"
CANDIDATES = "POST /v1/candidates"
ENTRIES = "GET /v1/ledger/{log}/entries"

ROUTES: Mapping[str, frozenset[InsideRole]] = {
    "GET /v1/health": ALL,
    DELIVERIES: SITE,
    PAYLOAD: SITE,
    DELIVERED: SITE,
    CANDIDATES: SITE,
    "POST /v1/keys": COMPUTE,
    "POST /v1/orders/close": COMPUTE,
    "POST /v1/ingest/sessions": INGEST,
    "POST /v1/ingest/pseudonyms": INGEST,
    "POST /v1/ingest/files": INGEST,
    "POST /v1/ingest/snapshots": INGEST,
    "GET /v1/review": OFFICER,
    "POST /v1/review/approvals": OFFICER,
    "POST /v1/review/rejections": OFFICER,
    "GET /v1/ledger": EVIDENCE,
    ENTRIES: EVIDENCE,
    "GET /v1/evidence": EVIDENCE,
    "GET /v1/usage": EVIDENCE,
    "GET /v1/privacy": EVIDENCE,
}
"""Every route, and the roles that may use it. A route that is not here cannot be made."""

MAX_BODY = 1 << 20
LIMITS: Mapping[str, int] = {
    "POST /v1/ingest/pseudonyms": 2 << 20,
    "POST /v1/ingest/files": 64 << 20,
    "POST /v1/ingest/snapshots": 8 << 20,
}
"""Most bytes of a body, where it is not `MAX_BODY`."""

MAX_CANDIDATE = 512 << 20
"""Most bytes of a candidate's payload."""


def limit_of(route: str) -> int:
    """Return the most bytes that a body of `route` may have."""
    return LIMITS.get(route, MAX_BODY)
