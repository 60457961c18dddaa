"""Who is at the other end of a link: the site whose pinned certificate was shown, and no other.

uvicorn alone does not say which client certificate a connection showed. `PeerCertificateProtocol` puts it into the
request's scope; the application compares its digest with the roster, and the site with the path asked for.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, SiteId

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from isthmus.contracts.roster import Roster

EXTENSION = "isthmus.peer_certificate"


class PeerCertificateProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests carry the DER bytes of the client's certificate in `scope["extensions"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the certificate of this connection, and add it to each of its requests."""
        super().connection_made(transport)
        session = transport.get_extra_info("ssl_object")
        certificate = session.getpeercert(binary_form=True) if session else None
        app = self.app

        async def with_certificate(scope: Any, receive: Receive, send: Send) -> None:
            extensions = {**scope.get("extensions", {}), EXTENSION: certificate}
            await app({**scope, "extensions": extensions}, receive, send)

        self.app = with_certificate


def peer_of(scope: Scope | Mapping[str, Any], asked_for: str, roster: Roster) -> SiteId:
    """Return the site at the other end.

    Raises:
        Refusal: it showed no pinned certificate, or another site's than the path names.
    """
    certificate = (scope.get("extensions") or {}).get(EXTENSION)
    if not certificate:
        raise Refusal(Code.UNAUTHENTICATED, "The peer showed no certificate.")
    digest = Digest.of(certificate)
    site = next((s.id for s in roster.sites if s.certificate == digest), None)
    if site is None:
        raise Refusal(Code.SENDER_UNKNOWN, "The peer's certificate is not pinned here.")
    if site != asked_for:
        raise Refusal(Code.FORBIDDEN, f"{site} asked in the name of {asked_for}.")
    return site


def link_context(purpose: ssl.Purpose, certificate: Path, key: Path, pinned: Path) -> ssl.SSLContext:
    """Return a TLS 1.3 context that shows `certificate` and takes exactly the certificates in `pinned`.

    Each pinned certificate is its own anchor (partial chain): it is trusted as itself and vouches for no other, so
    host names play no part.
    """
    server = purpose is ssl.Purpose.CLIENT_AUTH
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if server:
        context.num_tickets = 0  # no session is resumed; what a ticket would hold cannot be told from anything else
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(pinned)
    return context
