"""The inside face of a border, as its own site calls it.

Bulk bytes stream in pieces of 256 KiB: one body of 40 MiB takes twice as long. A candidate is one request: four bytes
of header length (big-endian), the canonical header, the payload.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

from isthmus.client.bulk import StreamedBulk
from isthmus.client.problems import MAX_ANSWER, error_of, reaching, read
from isthmus.contracts.inside import (
    CandidateHeader,
    CandidateStatus,
    CloseOrder,
    Deliveries,
    Delivery,
    Evidence,
    FreezeSnapshot,
    KeyGrant,
    KeyRequest,
    LedgerEntries,
    LedgerView,
    PrivacyView,
    PseudonymAnswer,
    PseudonymRequest,
    RegisterFiles,
    Review,
    SessionAnswer,
    SessionRequest,
    SignedStatement,
    SnapshotAnswer,
    UsageReport,
)
from isthmus.contracts.wire import Wire
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from isthmus.client.bulk import Bulk
    from isthmus.contracts.identifiers import CrossingId
    from isthmus.contracts.ledger import Log

Model = TypeVar("Model", bound=Wire)

PIECE = 256 * 1024


async def pieces(header: bytes, payload: bytes | bytearray | memoryview) -> AsyncIterator[bytes]:
    """Yield a length-prefixed header, then the payload in pieces."""
    yield struct.pack(">I", len(header)) + header
    view = memoryview(payload)
    for start in range(0, len(view), PIECE):
        yield bytes(view[start : start + PIECE])


class BorderClient:
    """Calls the border of one's own site with the token of one role; `bulk` fetches payloads.

    Raises (every method):
        Refusal: the border said no, with its code.
        Fault: the border does not answer, or could not do it.
    """

    def __init__(self, http: httpx2.AsyncClient, token: str, bulk: Bulk | None = None) -> None:
        self._http = http
        self._bulk = bulk or StreamedBulk(http)
        self._headers = {"authorization": f"Bearer {token}"}

    async def deliveries(self, after: int, wait_s: float = 25.0) -> tuple[Delivery, ...]:
        """Return what came after ordinal `after`; wait up to `wait_s` for it."""
        query = {"after": str(after), "wait": str(wait_s)}
        return (await self._get(Deliveries, "/v1/deliveries", query, within_s=wait_s + 30)).items

    async def payload(self, crossing: CrossingId) -> bytearray:
        """Return the plaintext of an accepted inbound crossing."""
        path = f"/v1/crossings/{crossing}/payload"
        return await self._bulk.get(path, self._headers, limit=MAX_ANSWER, error_of=error_of)

    async def delivered(self, crossing: CrossingId) -> None:
        """Say that a delivery's effect is durable: the border may let its copy go."""
        await self._post(CandidateStatus, f"/v1/crossings/{crossing}/delivered", b"")

    async def submit(self, header: CandidateHeader, payload: bytes | bytearray | memoryview) -> CandidateStatus:
        """Hand the border a candidate. The same again is recognised by its crossing id."""
        head = canonical.dump(header)
        with reaching("The border"):
            response = await self._http.post(
                "/v1/candidates",
                content=pieces(head, payload),
                headers={**self._headers, "content-length": str(4 + len(head) + len(payload))},
                timeout=120,
            )
        return read(CandidateStatus, response)

    async def keys(self, request: KeyRequest) -> KeyGrant:
        """Ask for the keys of an order's files."""
        return await self._send(KeyGrant, "/v1/keys", request)

    async def close_order(self, closing: CloseOrder) -> None:
        """Say that an order is done, or that it failed."""
        await self._send(CloseOrder, "/v1/orders/close", closing)

    async def start_session(self, request: SessionRequest) -> SessionAnswer:
        """Register the signing key of a run of ingest."""
        return await self._send(SessionAnswer, "/v1/ingest/sessions", request)

    async def pseudonyms(self, request: PseudonymRequest) -> PseudonymAnswer:
        """Return the pseudonyms of vehicles."""
        return await self._send(PseudonymAnswer, "/v1/ingest/pseudonyms", request)

    async def register_files(self, request: RegisterFiles) -> None:
        """Register sealed files, all or none."""
        await self._send(RegisterFiles, "/v1/ingest/files", request)

    async def freeze(self, request: FreezeSnapshot) -> SnapshotAnswer:
        """Freeze a snapshot of registered files."""
        return await self._send(SnapshotAnswer, "/v1/ingest/snapshots", request)

    async def review(self) -> Review:
        """Return what waits for officers."""
        return await self._get(Review, "/v1/review")

    async def approve(self, statement: SignedStatement) -> CandidateStatus:
        """Hand in an officer's signed approval."""
        return await self._send(CandidateStatus, "/v1/review/approvals", statement)

    async def reject(self, statement: SignedStatement) -> CandidateStatus:
        """Hand in an officer's signed rejection."""
        return await self._send(CandidateStatus, "/v1/review/rejections", statement)

    async def ledger(self) -> LedgerView:
        """Return both logs' heads."""
        return await self._get(LedgerView, "/v1/ledger")

    async def entries(self, log: Log, start: int) -> LedgerEntries:
        """Return entries of a log from `start` on (as many as the border gives at once)."""
        return await self._get(LedgerEntries, f"/v1/ledger/{log.value}/entries", {"start": str(start)})

    async def evidence(self) -> Evidence:
        """Return this border's part of an evidence bundle."""
        return await self._get(Evidence, "/v1/evidence", within_s=120)

    async def privacy(self) -> PrivacyView:
        """Return what the vehicles' privacy budget is, and what is gone of it."""
        return await self._get(PrivacyView, "/v1/privacy")

    async def usage(self) -> UsageReport:
        """Return what crossed, by kind and direction."""
        return await self._get(UsageReport, "/v1/usage")

    async def _get(
        self, model: type[Model], path: str, query: dict[str, str] | None = None, *, within_s: float = 30
    ) -> Model:
        with reaching("The border"):
            response = await self._http.get(path, params=query, headers=self._headers, timeout=within_s)
        return read(model, response)

    async def _send(self, model: type[Model], path: str, request: Wire) -> Model:
        return await self._post(model, path, canonical.dump(request))

    async def _post(self, model: type[Model], path: str, content: bytes) -> Model:
        with reaching("The border"):
            response = await self._http.post(path, content=content, headers=self._headers, timeout=60)
        return read(model, response)
