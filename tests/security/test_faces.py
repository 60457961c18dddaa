"""Both faces of a border: every route and every role inside; every pinned certificate, and no other, outside."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx2
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from isthmus.border.gate.framing import message_in, padded, unpadded, unpadded_payload
from isthmus.border.gate.inside import ROUTES
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import Digest
from isthmus.contracts.inside import Deliveries, InsideRole, LedgerEntries, Problem
from isthmus.contracts.link import FRAME, Heads, LinkProblem
from isthmus.kit.tokens import read_token
from isthmus.proof import canonical
from security.rogue import Rogue
from security.scene import CN, HQ, US, Scene, model, order_for, unharmed

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

CANARY = "LSVAX60E8K2012345"
PATHS = {"crossing": Digest.of(b"crossing"), "log": "crossings", "site": CN, "digest": Digest.of(b"digest")}
REQUESTS = [(*route.split(" "), route) for route in ROUTES]


def asked(
    scene: Scene, method: str, path: str, *, token: str | None = None, header: bytes | None = None, body: bytes = b"{}"
) -> httpx2.Response:
    """Ask the inside face of the Chinese zone's border."""

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=scene.border(CN).inside, raise_app_exceptions=False)
        value = header if header is not None else f"Bearer {token}".encode()
        headers = {} if token is None and header is None else {b"authorization": value}
        async with httpx2.AsyncClient(transport=transport, base_url="http://border") as http:
            return await http.request(method, path.format(**PATHS), headers=headers, content=body)

    return asyncio.run(ask())


def token_of(scene: Scene, role: InsideRole, site: str = CN) -> str:
    return read_token(scene.home / site / "tokens" / role)


def code_of(response: httpx2.Response) -> Code:
    return canonical.load(Problem, response.content).code


def served(routes: list[BaseRoute]) -> set[str]:
    """Return every method and path that an app answers, however it was made."""
    found = set()
    for route in routes:
        assert isinstance(route, Route), f"{route} is neither in the table nor a plain route"
        found |= {f"{method} {route.path}" for method in route.methods or {"GET"}}
    return found


# ---- inside


def test_every_route_is_in_the_table_and_every_line_of_the_table_is_served(scene: Scene) -> None:
    assert served(scene.border(CN).inside.routes) == set(ROUTES)
    assert all(ROUTES[route] <= frozenset(InsideRole) and ROUTES[route] for route in ROUTES)


def test_every_route_asks_who_it_is(scene: Scene) -> None:
    """The check is part of the route itself, so that no handler can forget it."""
    for route in scene.border(CN).inside.routes:
        assert isinstance(route, APIRoute)
        assert route.dependencies, route.path


@pytest.mark.parametrize(("method", "path", "route"), REQUESTS)
def test_a_route_is_for_its_roles_alone(scene: Scene, method: str, path: str, route: str) -> None:
    with unharmed(scene, CN):
        for header in (
            None,
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer null",
            b"Basic Og==",
            b"Bearer " + CANARY.encode(),
            b"Bearer \xe9",
        ):
            answer = asked(scene, method, path, header=header)
            assert (answer.status_code, code_of(answer)) == (401, Code.UNAUTHENTICATED), header
            assert CANARY not in answer.text
        for role in InsideRole:
            elsewhere = asked(scene, method, path, token=token_of(scene, role, US))
            assert elsewhere.status_code == 401, "the token of another site"
            answer = asked(scene, method, path, token=token_of(scene, role))
            if role in ROUTES[route]:
                assert answer.status_code not in {401, 403, 500}, answer.text
            else:
                assert (answer.status_code, code_of(answer)) == (403, Code.FORBIDDEN)


def test_who_asks_is_settled_before_what_is_asked(scene: Scene) -> None:
    """A request that makes no sense tells a stranger nothing about what would."""
    assert (
        asked(scene, "GET", "/v1/ledger/nonsense/entries", token=token_of(scene, InsideRole.AUDITOR)).status_code == 404
    )
    for path in ("/v1/deliveries?after=x", "/v1/ledger/nonsense/entries", "/v1/ledger/crossings/entries?start=x"):
        assert asked(scene, "GET", path).status_code == 401
        assert asked(scene, "GET", path, token=token_of(scene, InsideRole.INGEST)).status_code == 403


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/redoc", "/v1", "/v1/keys/", "/v2/keys", "/link/x/next"]
)
def test_nothing_else_is_there(scene: Scene, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        answer = asked(scene, method, path, token=token_of(scene, InsideRole.OFFICER))
        assert answer.status_code in {307, 404, 405}
        assert CANARY not in answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
def test_no_other_method_slips_past_the_table(scene: Scene, method: str) -> None:
    for route in ROUTES:
        assert asked(scene, method, route.split(" ")[1]).status_code == 405


def test_a_refusal_inside_names_the_place_and_never_quotes_the_value(scene: Scene) -> None:
    body = json.dumps({"order": CANARY, CANARY: 1}, separators=(",", ":")).encode()
    for method, path, route in REQUESTS:
        role = min(ROUTES[route])
        answer = asked(scene, method, path, token=token_of(scene, role), body=body)
        assert CANARY not in answer.text
    answer = asked(scene, "GET", f"/v1/crossings/{CANARY}/payload", token=token_of(scene, InsideRole.COMPUTE))
    assert (answer.status_code, CANARY in answer.text) == (404, False)
    answer = asked(scene, "GET", f"/v1/deliveries?after={CANARY}", token=token_of(scene, InsideRole.COMPUTE))
    assert (answer.status_code, CANARY in answer.text) == (422, False)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", Code.TRUNCATED),
        (b"\x00\x00\x00", Code.TRUNCATED),
        (b"\x00\x00\x00\x02{}", Code.MALFORMED),
        (b"\xff\xff\xff\xff", Code.TOO_LARGE),
        (b"\x00\x00\x00\x00payload", Code.MALFORMED),
    ],
)
def test_a_candidate_that_is_not_framed_is_refused(scene: Scene, body: bytes, code: Code) -> None:
    with unharmed(scene, CN):
        answer = asked(scene, "POST", "/v1/candidates", token=token_of(scene, InsideRole.COMPUTE), body=body)
        assert code_of(answer) is code


@pytest.mark.parametrize("after", [-1, 2**53, 2**63, 10**30])
def test_a_cursor_out_of_range_brings_an_answer(scene: Scene, after: int) -> None:
    answer = asked(scene, "GET", f"/v1/deliveries?after={after}", token=token_of(scene, InsideRole.COMPUTE))
    assert (answer.status_code, canonical.load(Deliveries, answer.content).items == ()) == (200, after > 0)
    answer = asked(
        scene, "GET", f"/v1/ledger/crossings/entries?start={after}", token=token_of(scene, InsideRole.AUDITOR)
    )
    assert (answer.status_code, canonical.load(LedgerEntries, answer.content).entries == ()) == (200, after > 0)


# ---- outside


LINK = {
    "POST /link/{site}/open",
    "POST /link/{site}/heads",
    "GET /link/{site}/next",
    "GET /link/{site}/blob/{digest}",
    "PUT /link/{site}/crossings/{crossing}",
    "POST /link/{site}/receipts",
}


def knocked(
    scene: Scene, route: str, *, rogue: Rogue, certificate: bytes | None = b"", body: bytes = b"{}", **paths: str
) -> httpx2.Response:
    """Knock at the coordinator's outside face."""
    method, path = route.split(" ")

    async def knock() -> httpx2.Response:
        async with rogue.client(scene, certificate=certificate) as http:
            return await http.request(method, path.format(**{**PATHS, **paths}), content=padded(body))

    return asyncio.run(knock())


def only_a_code(response: httpx2.Response) -> Code:
    """Hold an error to its being one code and nothing else, in the headers neither."""
    body = json.loads(unpadded(response.content, 1024))
    assert list(body) == ["code"]
    assert set(response.headers) <= {"content-length"}
    assert len(response.content) == FRAME
    return message_in(LinkProblem, response.content, 1024).code


def test_the_link_has_these_routes_and_no_others(scene: Scene) -> None:
    assert served(scene.border(HQ).outside.routes) == LINK


@pytest.mark.parametrize("route", sorted(LINK))
def test_a_stranger_hears_one_code(scene: Scene, route: str) -> None:
    rogue = Rogue(scene.home, CN)
    other = Rogue(scene.home, US)
    with unharmed(scene, HQ):
        assert only_a_code(knocked(scene, route, rogue=rogue, certificate=None)) is Code.UNAUTHENTICATED
        assert only_a_code(knocked(scene, route, rogue=rogue, certificate=b"not a certificate")) is Code.SENDER_UNKNOWN
        truncated = rogue.certificate[:-1]
        assert only_a_code(knocked(scene, route, rogue=rogue, certificate=truncated)) is Code.SENDER_UNKNOWN
        assert only_a_code(knocked(scene, route, rogue=other)) is Code.FORBIDDEN, "a path in another's name"
        assert only_a_code(knocked(scene, route, rogue=rogue, site=CANARY)) is Code.FORBIDDEN


@pytest.mark.parametrize("route", sorted(LINK - {"GET /link/{site}/next"}))
@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"\xff", CANARY.encode(), json.dumps({CANARY: CANARY}).encode(), b'{"heads":{},"seen":{"x":1}}'],
)
def test_whatever_a_peer_says_it_hears_a_code(scene: Scene, route: str, body: bytes) -> None:
    with unharmed(scene, HQ):
        response = knocked(scene, route, rogue=Rogue(scene.home, CN), body=body, crossing=CANARY, digest=CANARY)
        only_a_code(response)
        assert CANARY not in response.text


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("DELETE", "/link/x/open")]
)
def test_a_path_that_the_link_does_not_have_brings_a_code(scene: Scene, method: str, path: str) -> None:
    assert only_a_code(knocked(scene, f"{method} {path}", rogue=Rogue(scene.home, CN))) is Code.NOT_FOUND


def test_a_failure_that_nobody_foresaw_brings_a_code(scene: Scene) -> None:
    """The ledger's file is gone from under the border: the peer hears that it is not available, and no more."""
    rogue = Rogue(scene.home, CN)
    heads = canonical.dump(Heads(heads={}, seen={}))
    scene.border(HQ).store.close()
    response = knocked(scene, "POST /link/{site}/heads", rogue=rogue, body=heads)
    scene.forget(HQ)
    assert (response.status_code, only_a_code(response)) == (503, Code.LEDGER_UNAVAILABLE)


def test_a_zone_fetches_what_is_for_it_and_nothing_else(scene: Scene) -> None:
    """The sealed payload of another zone's crossing is not even ciphertext for this one."""
    scene.send_model(order_for(US), 1, model(2.0))
    waiting = scene.keeper(HQ).next_for(US)
    assert waiting is not None
    route = "GET /link/{site}/blob/{digest}"
    with unharmed(scene, HQ):
        refused = knocked(scene, route, rogue=Rogue(scene.home, CN), digest=waiting.payload)
        assert only_a_code(refused) is Code.NOT_FOUND
    fetched = knocked(scene, route, rogue=Rogue(scene.home, US), site=US, digest=waiting.payload)
    assert Digest.of(unpadded_payload(bytearray(fetched.content), waiting.size)) == waiting.payload
