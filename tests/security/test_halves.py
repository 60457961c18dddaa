"""What a gate that somebody else has taken over can do to its keeper: delay, drop, and look at sealed bytes. No more.

The gate here is the attacker: it calls the keeper over the socket as it likes, with frames of its own making too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.border.bridge import calls, frames
from isthmus.border.bridge.client import RemoteKeeper
from isthmus.border.bridge.server import Bridge
from isthmus.border.keeper.guarded import GuardedKeeper
from isthmus.border.routes import LIMITS, MAX_BODY, MAX_CANDIDATE, PAYLOAD, ROUTES
from isthmus.border.settings import BorderSettings
from isthmus.contracts.crossings import Kind, Receipt
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import CrossingId, Digest, SiteId
from isthmus.contracts.inside import CandidateHeader, InsideRole
from isthmus.contracts.ledger import Log
from isthmus.kit.bell import Bell
from isthmus.kit.tokens import read_token
from isthmus.proof import canonical, signing
from isthmus.proof.ids import crossing_id
from world.pair import CN, HQ, Pair, model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.border.halves import SealedCrossing
    from isthmus.contracts.link import Heads, HeadsAnswer

SECONDS = 10
CROSSING = CrossingId.of(b"some crossing")


class Scene:
    """The borders of a pair, and a taken-over gate at the zone's keeper, or at the coordinator's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pair = Pair(folder / "home")
        self.pair.prepare()
        self.pair.open(CN)
        self.open = contextlib.ExitStack()
        self.open.callback(self.pair.close)

    def path(self, site: SiteId) -> Path:
        return BorderSettings.load(self.pair.home / site).keeper

    def bridge(self, site: SiteId, **changes: Any) -> Bridge:
        border = self.pair.borders[site]
        return self.open.enter_context(Bridge(border.half, border.bell, self.path(site), **changes))

    def gate(self, site: SiteId = CN) -> RemoteKeeper:
        """Return a gate's hold on the keeper of `site`."""
        self.bridge(site)
        return self.open.enter_context(RemoteKeeper(self.path(site), Bell()))

    def raw(self, site: SiteId = CN) -> socket.socket:
        """Return a connection of a gate that makes its own frames."""
        connection = self.open.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        connection.settimeout(SECONDS)
        connection.connect(str(self.path(site)))
        frames.write(connection, frames.Head(name=frames.CALLS, words=("an attacker",)))
        assert frames.read_head(connection).name == frames.DONE
        return connection

    def token(self, site: SiteId, role: InsideRole) -> str:
        return read_token(self.pair.home / site / "tokens" / role.value)

    def sent(self, receiver: SiteId = CN) -> tuple[SealedCrossing, bytes]:
        """Return the next crossing of the other side, with its sealed bytes."""
        sender = self.pair.keeper(HQ if receiver == CN else CN)
        crossing = sender.next_for(receiver)
        assert crossing is not None
        return crossing, b"".join(sender.blob(receiver, crossing.payload)[1])

    def sizes(self, site: SiteId) -> dict[Log, int]:
        return {view.log: view.size for view in self.pair.keeper(site).ledger().logs}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with made.open:
        yield made


def refused(call: Any, *arguments: Any) -> Code:
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value.code


# ---- without a token


@pytest.mark.parametrize("token", ["", "a guess", "token-of-officer"])
def test_without_a_token_no_route_is_open_and_nothing_happens(scene: Scene, token: str) -> None:
    gate, before = scene.gate(), scene.sizes(CN)
    for route in ROUTES:
        assert refused(gate.admit, token, route) is Code.UNAUTHENTICATED
        assert refused(gate.ask, token, route, ("0", "0"), b"{}") is Code.UNAUTHENTICATED
    assert scene.sizes(CN) == before


def test_without_a_token_nothing_is_submitted_and_no_payload_is_given(scene: Scene) -> None:
    order = scene.pair.order(CN)
    scene.pair.carry()
    gate, before = scene.gate(), scene.sizes(CN)
    header = CandidateHeader(order=order, kind=Kind.MODEL_UPDATE, recipient=HQ, slot=0, size=len(model(1)))
    assert refused(gate.submit, "", header, model(1)) is Code.UNAUTHENTICATED
    assert refused(gate.payload, "", crossing_id(order, Kind.ORDER, CN, 0)) is Code.UNAUTHENTICATED
    assert scene.sizes(CN) == before


@pytest.mark.parametrize("role", list(InsideRole))
def test_a_token_that_was_seen_opens_its_roles_routes_alone(scene: Scene, role: InsideRole) -> None:
    gate, token = scene.gate(), scene.token(CN, role)
    for route, roles in ROUTES.items():
        if role in roles:
            gate.admit(token, route)
        else:
            assert refused(gate.admit, token, route) is Code.FORBIDDEN
            assert refused(gate.ask, token, route) is Code.FORBIDDEN


def test_an_auditors_token_reads_no_payload_and_submits_nothing(scene: Scene) -> None:
    order = scene.pair.order(CN)
    scene.pair.carry()
    gate, token = scene.gate(), scene.token(CN, InsideRole.AUDITOR)
    header = CandidateHeader(order=order, kind=Kind.MODEL_UPDATE, recipient=HQ, slot=0, size=len(model(1)))
    assert refused(gate.submit, token, header, model(1)) is Code.FORBIDDEN
    assert refused(gate.payload, token, crossing_id(order, Kind.ORDER, CN, 0)) is Code.FORBIDDEN


@pytest.mark.parametrize("route", ["POST /v1/unheard-of", "GET /v1/health", PAYLOAD, ""])
def test_a_route_that_the_keeper_does_not_do_is_refused(scene: Scene, route: str) -> None:
    code = refused(scene.gate().ask, scene.token(CN, InsideRole.COMPUTE), route)
    assert code in {Code.FORBIDDEN, Code.NOT_FOUND}


# ---- lying about the link


def test_a_crossing_in_another_peers_name_is_turned_away(scene: Scene) -> None:
    scene.pair.order(CN)
    crossing, sealed = scene.sent()
    gate = scene.gate()
    for name in ("us-texas", CN, "nobody"):
        code = refused(gate.receive, SiteId(name), crossing.envelope, [sealed])
        assert code in {Code.SENDER_UNKNOWN, Code.SIGNATURE_INVALID}
    assert scene.sizes(CN)[Log.CROSSINGS] == 0


def test_altered_bytes_are_turned_away_and_the_true_ones_still_taken(scene: Scene) -> None:
    scene.pair.order(CN)
    crossing, sealed = scene.sent()
    gate = scene.gate()
    altered = bytes([sealed[0] ^ 1]) + sealed[1:]
    assert refused(gate.receive, HQ, crossing.envelope, [altered]) is Code.PAYLOAD_ALTERED
    assert refused(gate.receive, HQ, crossing.envelope, [sealed[:-1]]) is Code.PAYLOAD_ALTERED
    assert scene.sizes(CN)[Log.CROSSINGS] == 0
    receipt = gate.receive(HQ, crossing.envelope, [sealed])
    assert gate.receive(HQ, crossing.envelope, [sealed]) == receipt, "one receipt, however often"
    assert scene.sizes(CN)[Log.CROSSINGS] == 1
    scene.pair.keeper(HQ).receipted(CN, receipt)


def test_a_receipt_that_the_gate_made_up_is_not_taken(scene: Scene) -> None:
    scene.pair.order(CN)
    crossing, sealed = scene.sent()
    true = scene.pair.keeper(CN).inbound.receive(HQ, crossing.envelope, [sealed])
    receipt = canonical.load(Receipt, signing.parse_envelope(true).payload)
    forged = signing.SigningKey.generate().sign(
        "application/vnd.isthmus.receipt+json", canonical.dump(receipt.model_copy(update={"verdict": "refused"}))
    )
    gate = scene.gate(HQ)
    heads = scene.pair.keeper(CN).heads.heads(HQ)
    assert refused(gate.acknowledged, CN, forged, heads) is Code.SIGNATURE_INVALID
    assert refused(gate.acknowledged, SiteId("us-texas"), true, heads) is Code.SENDER_UNKNOWN
    assert scene.pair.keeper(HQ).next_for(CN) == crossing, "it still waits for its receipt"
    assert gate.acknowledged(CN, true, heads) is not None
    assert gate.next_for(CN) is None


def test_a_peer_is_given_what_is_sealed_to_it_and_a_gate_nothing_else(scene: Scene) -> None:
    scene.pair.order(CN)
    gate = scene.gate(HQ)
    crossing = gate.next_for(CN)
    assert crossing is not None
    size, pieces = gate.blob(CN, crossing.payload)
    sealed = b"".join(pieces)
    assert len(sealed) == size == crossing.size
    assert b"motion-forecast" not in sealed, "the order itself is not readable"
    assert refused(gate.blob, SiteId("us-texas"), crossing.payload) is Code.NOT_FOUND


def test_heads_that_the_gate_makes_up_halt_nothing(scene: Scene) -> None:
    gate = scene.gate()
    heads = scene.pair.keeper(HQ).heads.heads(CN, (Log.CROSSINGS, Log.INTERNAL))
    proof = heads.heads[Log.INTERNAL]
    forged = proof.model_copy(update={"checkpoint": proof.checkpoint.replace("\n", "\n1", 1)})
    lying = heads.model_copy(update={"heads": {Log.INTERNAL: forged}})
    with pytest.raises(Refusal):
        gate.exchange(HQ, lying)
    assert scene.pair.keeper(CN).ledger().halted == {}
    assert set(gate.exchange(HQ, heads).cosigned) == {Log.CROSSINGS, Log.INTERNAL}


# ---- frames of its own making


def answered(connection: socket.socket) -> frames.Head:
    head = frames.read_head(connection)
    for size in head.sizes:
        frames.read_part(connection, size)
    return head


def works(scene: Scene) -> bool:
    """Tell whether the keeper still serves a gate that behaves."""
    with RemoteKeeper(scene.path(CN), Bell()) as gate:
        return gate.opening(HQ).site == CN


@pytest.mark.parametrize(
    ("name", "words", "sizes", "code"),
    [
        ("receive", (HQ,), (calls.SMALL + 1, 1), Code.TOO_LARGE),
        ("receive", (HQ,), (1, MAX_CANDIDATE + 1), Code.TOO_LARGE),
        ("receive", (HQ,), (1,), Code.MALFORMED),
        ("examine", (HQ,), (2**53,), Code.TOO_LARGE),
        ("ask", ("", "POST /v1/keys"), (MAX_BODY + 1,), Code.TOO_LARGE),
        ("ask", ("", "POST /v1/ingest/files"), (LIMITS["POST /v1/ingest/files"],), Code.UNAUTHENTICATED),
        ("submit", ("", "{}"), (MAX_CANDIDATE,), Code.UNAUTHENTICATED),
        ("shutdown", (), (), Code.MALFORMED),
        ("opening", (), (), Code.MALFORMED),
        ("blob", (HQ, "no digest"), (), Code.MALFORMED),
        ("heads", (HQ, "no log"), (), Code.MALFORMED),
    ],
)
def test_a_call_that_is_wrong_is_refused_before_its_parts_are_read(
    scene: Scene, name: str, words: tuple[str, ...], sizes: tuple[int, ...], code: Code
) -> None:
    scene.bridge(CN)
    connection = scene.raw()
    told = canonical.dump(frames.Head(name=name, words=words, sizes=sizes))
    connection.sendall(frames.LENGTH.pack(len(told)) + told)  # and not one byte of a part
    head = answered(connection)
    assert head.name == frames.REFUSAL
    assert head.words[0] == code
    assert works(scene)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET /v1/review HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x10" + b'{"name":"a","name'[:16],
        b"\x00\x00",
    ],
)
def test_what_is_no_frame_ends_the_connection_and_no_other(scene: Scene, garbage: bytes) -> None:
    scene.bridge(CN)
    connection = scene.raw()
    connection.sendall(garbage)
    connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):  # where some of it was not even read
        assert connection.recv(64) == b""
    assert works(scene)


def test_a_process_of_another_user_is_hung_up_on(scene: Scene) -> None:
    scene.bridge(CN, gate_user=os.getuid() + 1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(SECONDS)
        stranger.connect(str(scene.path(CN)))
        with contextlib.suppress(ConnectionError):  # it may be hung up on before it has said a word
            frames.write(stranger, frames.Head(name=frames.CALLS, words=("a stranger",)))
            assert stranger.recv(1) == b""


def test_the_socket_is_open_to_its_owner_alone_or_to_its_group_with_a_gate_of_another_user(scene: Scene) -> None:
    for user, mode in ((None, 0o600), (os.getuid() + 1, 0o660)):
        border = scene.pair.borders[CN]
        with Bridge(border.half, border.bell, scene.path(CN), user):
            assert stat.S_IMODE(scene.path(CN).stat().st_mode) == mode


# ---- coming and going


class SlowKeeper(GuardedKeeper):
    """A keeper that takes its time over heads until it is told to go on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked, self.go = threading.Event(), threading.Event()

    def exchange(self, peer: SiteId, theirs: Heads) -> HeadsAnswer:
        self.asked.set()
        assert self.go.wait(SECONDS)
        return super().exchange(peer, theirs)


def test_a_new_gate_waits_for_what_the_one_before_had_asked(scene: Scene) -> None:
    """Else an old head could be looked at after a newer one, and a restart of the gate would pass for a fork."""
    keeper = SlowKeeper(scene.pair.keeper(CN), {})
    scene.open.enter_context(Bridge(keeper, scene.pair.borders[CN].bell, scene.path(CN)))
    old = scene.open.enter_context(RemoteKeeper(scene.path(CN), Bell()))
    older = scene.pair.keeper(HQ).heads.heads(CN)
    asking = threading.Thread(target=old.exchange, args=(HQ, older))
    asking.start()
    assert keeper.asked.wait(SECONDS)
    new = scene.open.enter_context(RemoteKeeper(scene.path(CN), Bell()))
    opened = threading.Event()
    opening = threading.Thread(target=lambda: (new.opening(HQ), opened.set()))
    opening.start()
    assert not opened.wait(0.3), "the new gate was let in too early"
    keeper.go.set()
    assert opened.wait(SECONDS)
    opening.join()
    asking.join()
    assert refused(old.opening, HQ) is Code.STATE_CONFLICT, "one gate at a time"
    assert new.opening(HQ).site == CN, "the one that was displaced does not come back"


def test_a_call_fails_at_once_when_the_keeper_goes_and_works_when_it_is_back(scene: Scene) -> None:
    border = scene.pair.borders[CN]
    bell = Bell()
    gate = scene.open.enter_context(RemoteKeeper(scene.path(CN), bell))
    with pytest.raises(Fault) as away:
        gate.opening(HQ)
    assert away.value.code is Code.PEER_UNREACHABLE
    assert away.value.remedy
    for _ in range(2):
        ticket = bell.ticket()
        with Bridge(border.half, border.bell, scene.path(CN)):
            _rings(bell, ticket)
            assert gate.opening(HQ).site == CN
            ticket = bell.ticket()
            border.bell.ring()
            _rings(bell, ticket)
        with pytest.raises(Fault):
            gate.opening(HQ)


def _rings(bell: Bell, ticket: int) -> None:
    assert asyncio.run(bell.wait(ticket, SECONDS)), "the gate's bell did not ring"


def test_an_error_comes_over_whole(scene: Scene) -> None:
    keeper, gate = scene.pair.borders[CN].half, scene.gate()
    token = scene.token(CN, InsideRole.COMPUTE)
    for call in (
        lambda half: half.payload(token, CROSSING),
        lambda half: half.ask("", "GET /v1/review"),
        lambda half: half.ask(token, "POST /v1/keys", (), b'{"order":1}'),
        lambda half: half.receive(HQ, b"\xff\xfe no envelope", []),
        lambda half: half.heads(SiteId("nobody"), ()) and half.blob(HQ, Digest.of(b"unknown")),
    ):
        errors = []
        for half in (keeper, gate):
            with pytest.raises((Refusal, Fault)) as caught:
                call(half)
            errors.append(caught.value)
        near, far = errors
        assert type(far) is type(near)
        assert (far.code, far.what, far.why, far.remedy) == (near.code, near.what, near.why, near.remedy)


def test_large_bytes_come_over_as_they_are(scene: Scene) -> None:
    """A payload far larger than a socket's buffer, both ways, and one of no bytes."""
    here, there = socket.socketpair()
    with here, there:
        for size in (0, 1, 40 << 20):
            data = os.urandom(size)
            head = frames.Head(name="x", sizes=(size, 3))
            sending = threading.Thread(target=frames.write, args=(here, head, (data, b"end")))
            sending.start()
            assert frames.read_head(there) == head
            assert bytes(frames.read_part(there, size)) == data
            assert bytes(frames.read_part(there, 3)) == b"end"
            sending.join()
