"""Two histories: a border restored from an old copy, a peer that shows two heads, cosignatures and receipts forged.

Whoever notices stops that link and keeps the evidence; a border that learns that it was restored writes nothing more.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from isthmus.border.gate.framing import message_in, padded
from isthmus.border.keeper.desk import manifest_of
from isthmus.contracts.crossings import RECEIPT_TYPE, HeadProof, Kind, Receipt
from isthmus.contracts.errors import Code
from isthmus.contracts.identifiers import CrossingId, Digest
from isthmus.contracts.ledger import CrossingEntry, Log
from isthmus.contracts.link import Heads, HeadsAnswer, LinkProblem, Opening
from isthmus.proof import canonical, checkpoint, merkle
from isthmus.proof.canonical import to_base64
from isthmus.proof.ids import log_name, order_id
from security.rogue import Rogue, RogueHub
from security.scene import BOTH, CN, DAY, HQ, NOW, US, Scene, approve_all, grant_of, model, order_for, refusal, unharmed

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.contracts.identifiers import SiteId

ORDER = order_for(CN)


def restore(scene: Scene, site: SiteId, copy: Path) -> None:
    """Put yesterday's copy of a site's home in the place of today's."""
    scene.stop(site)
    shutil.rmtree(scene.home / site)
    shutil.copytree(copy, scene.home / site)


def yesterday(scene: Scene, site: SiteId, to: Path) -> Path:
    """Copy a site's home while its border stands still."""
    scene.border(site)
    scene.stop(site)
    shutil.copytree(scene.home / site, to)
    return to


def a_day_of_work(scene: Scene, zone: SiteId) -> None:
    """Have a release of the zone taken in, and all heads cosigned."""
    scene.release(order_for(zone), Kind.MODEL_UPDATE, 0, model())
    approve_all(scene, zone)
    scene.carry()
    scene.clock.advance(DAY // 2)
    scene.cosign()


# ---- rollback


@pytest.mark.parametrize("site", [CN, HQ])
def test_a_border_restored_from_yesterdays_copy_stops_and_writes_nothing(
    scene: Scene, tmp_path: Path, site: SiteId
) -> None:
    copy = yesterday(scene, site, tmp_path / "yesterday")
    a_day_of_work(scene, CN)
    restore(scene, site, copy)
    peer = HQ if site == CN else CN
    with unharmed(scene, site), refusal(Code.LEDGER_ROLLED_BACK):
        scene.keeper(site).heads.opened(peer, scene.keeper(peer).opening(site))
    for _ in range(2):
        with unharmed(scene, site):
            with refusal(Code.LINK_HALTED):
                scene.keeper(site).opening(peer)
            with refusal(Code.LINK_HALTED):
                scene.keeper(site).next_for(peer)
            with refusal(Code.LEDGER_ROLLED_BACK):
                scene.send_model(ORDER, 2, model()) if site == HQ else scene.release(
                    ORDER, Kind.MODEL_UPDATE, 1, model()
                )
            if site == CN:
                with refusal(Code.LEDGER_ROLLED_BACK):
                    grant_of(scene, CN, order_id(ORDER))
        scene.stop(site)
    assert scene.keeper(site).ledger().halted == {peer: Code.LEDGER_ROLLED_BACK}


def test_a_coordinator_that_was_restored_serves_no_other_zone_either(scene: Scene, tmp_path: Path) -> None:
    copy = yesterday(scene, HQ, tmp_path / "yesterday")
    a_day_of_work(scene, CN)
    restore(scene, HQ, copy)
    with refusal(Code.LEDGER_ROLLED_BACK):
        scene.keeper(HQ).heads.opened(CN, scene.keeper(CN).opening(HQ))
    with unharmed(scene, HQ), refusal(Code.LINK_HALTED):
        scene.keeper(HQ).heads.opened(US, scene.keeper(US).opening(HQ))


def test_a_restored_border_that_hides_it_is_found_out_by_its_peer(scene: Scene, tmp_path: Path) -> None:
    """It does not open the link as it should, and just goes on: its next head is a fork."""
    copy = yesterday(scene, CN, tmp_path / "yesterday")
    a_day_of_work(scene, CN)
    restore(scene, CN, copy)
    scene.release(ORDER, Kind.MODEL_UPDATE, 1, model(0.125))
    behind = scene.keeper(CN).heads.heads(HQ, BOTH)
    before = scene.picture(HQ)
    with refusal(Code.LEDGER_FORKED):
        scene.keeper(HQ).exchange(CN, behind)
    halted_with_evidence(scene, before)


def test_a_lie_about_what_was_read_stops_the_liars_link_alone(scene: Scene) -> None:
    """A zone that claims to have read a crossing that was never sent cannot stop the coordinator for the others."""
    lie = Opening(version=1, site=CN, peer=HQ, cosigned={}, cursor=999, at=NOW)
    with unharmed(scene, HQ), refusal(Code.OUT_OF_SEQUENCE):
        scene.keeper(HQ).heads.opened(CN, lie)
    with refusal(Code.LINK_HALTED):
        scene.keeper(HQ).opening(CN)
    scene.open_link(US)
    assert scene.send_model(order_for(US), 1, model()).state == "logged"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"site": US}, Code.WRONG_RECIPIENT),
        ({"peer": US}, Code.WRONG_RECIPIENT),
        ({"cosigned": {Log.CROSSINGS: "nothing"}}, Code.EVIDENCE_INVALID),
    ],
)
def test_an_opening_that_is_not_between_these_two_stops_nothing(
    scene: Scene, changes: dict[str, Any], code: Code
) -> None:
    opening = scene.keeper(CN).opening(HQ).model_copy(update=changes)
    with unharmed(scene, HQ), refusal(code):
        scene.keeper(HQ).heads.opened(CN, opening)
    scene.open_link(CN)


def test_a_head_that_was_never_signed_does_not_pass_for_a_later_one(scene: Scene) -> None:
    """A peer that wants to stop this border needs a head with this border's own signature."""
    rogue = Rogue(scene.home, CN)
    name = log_name(HQ, Log.CROSSINGS)
    later = checkpoint.Head(name, 10_000, Digest.of(b"later"))
    forged = checkpoint.sign_checkpoint(later, name, rogue.keys.signing)
    opening = Opening(version=1, site=CN, peer=HQ, cosigned={Log.CROSSINGS: forged}, cursor=0, at=NOW)
    with unharmed(scene, HQ), refusal(Code.SIGNATURE_INVALID):
        scene.keeper(HQ).heads.opened(CN, opening)
    scene.open_link(CN)


# ---- forks


def halted_with_evidence(scene: Scene, before: Any) -> None:
    """The coordinator has stopped the Chinese link, keeps both heads, and goes on with the other zone."""
    after = scene.picture(HQ)
    assert (after.crossings, after.deliveries, after.budget) == (before.crossings, before.deliveries, before.budget)
    key = Rogue(scene.home, CN).keys.signing.verify_key
    for halted in after.events("link_halted"):
        assert (halted["peer"], halted["code"]) == (CN, "ledger_forked")
        first, second = halted["evidence"].split("\n\nisthmus/")
        name = first.partition("\n")[0]
        notes = (f"{first}\n", f"isthmus/{second}")
        heads = {checkpoint.verify_checkpoint(note, name, name, key) for note in notes}
        assert len(heads) == 2, "two heads of one log, both signed by the peer"
    assert after.events("link_halted")
    for _ in range(2):
        with refusal(Code.LINK_HALTED):
            scene.keeper(HQ).opening(CN)
        with refusal(Code.LINK_HALTED):
            scene.keeper(HQ).next_for(CN)
        scene.stop(HQ)
    scene.open_link(US)


def forked_head(scene: Scene, log: Log, extra: int = 1) -> HeadProof:
    """A head of the zone's log, signed by the zone, that grows from the last one only by its own word."""
    rogue = Rogue(scene.home, CN)
    seen = scene.keeper(HQ).heads.heads(CN, (log,)).seen[log]
    name = log_name(CN, log)
    head = checkpoint.Head(name, seen + extra, Digest.of(b"another history"))
    return HeadProof(checkpoint=checkpoint.sign_checkpoint(head, name, rogue.keys.signing), base=seen, consistency=())


@pytest.mark.parametrize("log", BOTH)
@pytest.mark.parametrize("extra", [-1, 0, 1, 7])
def test_a_peer_that_shows_two_heads_is_cut_off(scene: Scene, log: Log, extra: int) -> None:
    scene.cosign()
    before = scene.picture(HQ)
    with refusal(Code.LEDGER_FORKED):
        scene.keeper(HQ).exchange(CN, Heads(heads={log: forked_head(scene, log, extra)}, seen={}))
    halted_with_evidence(scene, before)


def test_a_fork_that_comes_with_a_crossing_gets_no_receipt(scene: Scene) -> None:
    """Over the link: the answer is a code, and after it there is no answer but that the link is halted."""
    rogue = Rogue(scene.home, CN)
    heads = Heads(heads={Log.CROSSINGS: forked_head(scene, Log.CROSSINGS)}, seen={})

    async def post(path: str, body: bytes) -> Code:
        async with rogue.client(scene) as http:
            return message_in(LinkProblem, (await http.post(path, content=padded(body))).content, 1024).code

    assert asyncio.run(post(f"/link/{CN}/heads", canonical.dump(heads))) is Code.LEDGER_FORKED
    right = rogue.crossing(ORDER, Kind.MODEL_UPDATE, sequence=scene.keeper(HQ).inbound.cursor(CN) + 1)
    with unharmed(scene, HQ):
        assert rogue.put(scene, right).code is Code.LINK_HALTED
        assert asyncio.run(post(f"/link/{CN}/open", canonical.dump(scene.keeper(CN).opening(HQ)))) is Code.LINK_HALTED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p, _: p.model_copy(update={"base": p.base + 1}), Code.HEAD_BEHIND),
        (lambda p, _: p.model_copy(update={"checkpoint": "nothing"}), Code.EVIDENCE_INVALID),
        (lambda p, _: p.model_copy(update={"checkpoint": p.checkpoint.replace("cn-", "us-")}), Code.EVIDENCE_INVALID),
        (lambda p, r: p.model_copy(update={"checkpoint": signed_by(r, p)}), Code.SIGNATURE_INVALID),
    ],
)
def test_a_head_that_is_not_the_peers_halts_nothing(scene: Scene, change: Any, code: Code) -> None:
    """Nobody but the peer itself can have its link halted."""
    scene.release(ORDER, Kind.MODEL_UPDATE, 0, model())
    proof = scene.keeper(CN).heads.heads(HQ, (Log.INTERNAL,)).heads[Log.INTERNAL]
    changed = change(proof, Rogue(scene.home, US))
    with unharmed(scene, HQ), refusal(code):
        scene.keeper(HQ).exchange(CN, Heads(heads={Log.INTERNAL: changed}, seen={}))
    scene.open_link(CN)


def signed_by(rogue: Rogue, proof: HeadProof) -> str:
    origin, size, root = proof.checkpoint.split("\n")[:3]
    head = checkpoint.Head(origin, int(size), Digest.from_bytes(canonical.from_base64(root)))
    return checkpoint.sign_checkpoint(head, origin, rogue.keys.signing)


# ---- cosignatures


def note_of(scene: Scene) -> str:
    """The last head of the zone's log of crossings, signed by the zone."""
    return scene.keeper(CN).heads.heads(HQ).heads[Log.CROSSINGS].checkpoint


def cosigned(scene: Scene, **changes: Any) -> str:
    """A head with the coordinator's cosignature; what is changed was changed before, and signed by the zone's key."""
    origin, size, root = note_of(scene).split("\n")[:3]
    fields = {"origin": origin, "size": int(size), "root": Digest.from_bytes(canonical.from_base64(root)), **changes}
    head = checkpoint.Head(**fields)
    note = checkpoint.sign_checkpoint(head, head.origin, Rogue(scene.home, CN).keys.signing)
    return checkpoint.cosign(note, log_name(HQ, Log.CROSSINGS), Rogue(scene.home, HQ).keys.signing, NOW)


COSIGNATURES: dict[str, tuple[Any, Code]] = {
    "of another root": (lambda s: cosigned(s, root=Digest.of(b"x")), Code.EVIDENCE_INVALID),
    "of a later head": (lambda s: cosigned(s, size=10_000), Code.EVIDENCE_INVALID),
    "of the other log": (lambda s: cosigned(s, origin=log_name(CN, Log.INTERNAL)), Code.EVIDENCE_INVALID),
    "of another site's log": (lambda s: cosigned(s, origin=log_name(US, Log.CROSSINGS)), Code.EVIDENCE_INVALID),
    "moved to another root": (lambda s: moved(cosigned(s)), Code.SIGNATURE_INVALID),
    "missing": (note_of, Code.SIGNATURE_INVALID),
    "cut off": (lambda s: cosigned(s)[:-9], Code.EVIDENCE_INVALID),
    "nothing": (lambda _: "", Code.EVIDENCE_INVALID),
}


def moved(note: str) -> str:
    """Put another root under the signatures of a note."""
    origin, size, root, rest = note.split("\n", 3)
    return "\n".join((origin, size, to_base64(Digest.of(root.encode()).raw), rest))


@pytest.mark.parametrize("attack", COSIGNATURES)
def test_a_tampered_cosignature_is_not_kept_as_evidence(scene: Scene, attack: str) -> None:
    make, code = COSIGNATURES[attack]
    scene.cosign()
    kept = scene.keeper(CN).ledger().logs
    hub = RogueHub(None, heads=canonical.dump(HeadsAnswer(cosigned={Log.CROSSINGS: make(scene)}, heads={})))
    with unharmed(scene, CN):
        assert asyncio.run(hub.serve(scene, CN)).code is code
    assert scene.keeper(CN).ledger().logs == kept


# ---- receipts


def sent_update(scene: Scene) -> bytes:
    """Have the zone's border send an update; return its envelope."""
    scene.release(ORDER, Kind.MODEL_UPDATE, 0, model())
    scene.pass_on(CN, HQ)  # the notice that it is held
    approve_all(scene, CN)
    crossing = scene.keeper(CN).next_for(HQ)
    assert crossing is not None
    return crossing.envelope


def forged_receipt(scene: Scene, sent: bytes, /, signer: SiteId = HQ, **changes: Any) -> bytes:
    """A receipt of a log of one entry, right but for `changes`."""
    keys = Rogue(scene.home, signer).keys
    entry = CrossingEntry(verdict="accepted", code=None, envelope=sent.decode(), at=NOW)
    root = Digest.from_bytes(merkle.leaf_hash(canonical.dump(entry)))
    name = log_name(HQ, Log.CROSSINGS)
    values: dict[str, Any] = {
        "version": 1,
        "crossing": manifest_of(sent).crossing,
        "envelope": Digest.of(sent),
        "by": HQ,
        "verdict": "accepted",
        "code": None,
        "at": NOW,
        "index": 0,
        "inclusion": (),
        "checkpoint": checkpoint.sign_checkpoint(checkpoint.Head(name, 1, root), name, keys.signing),
        **changes,
    }
    return keys.signing.sign(RECEIPT_TYPE, canonical.dump(Receipt(**values)))


FORGERIES: dict[str, tuple[dict[str, Any], Code]] = {
    "signed by another site": ({"signer": US}, Code.SIGNATURE_INVALID),
    "signed by the sender itself": ({"signer": CN}, Code.SIGNATURE_INVALID),
    "of another border": ({"by": US}, Code.EVIDENCE_INVALID),
    "for another envelope": ({"envelope": Digest.of(b"other")}, Code.EVIDENCE_INVALID),
    "for a crossing that does not exist": ({"crossing": CrossingId.of(b"other")}, Code.NOT_FOUND),
    "with another time than its entry": ({"at": NOW + 1}, Code.EVIDENCE_INVALID),
    "a refusal over an acceptance": ({"verdict": "refused", "code": Code.MALFORMED}, Code.EVIDENCE_INVALID),
    "at another place of the log": ({"index": 1}, Code.EVIDENCE_INVALID),
    "with steps too many": ({"inclusion": (to_base64(bytes(32)),)}, Code.EVIDENCE_INVALID),
    "with a step of the wrong length": ({"inclusion": ("QUJD",)}, Code.EVIDENCE_INVALID),
    "without a checkpoint": ({"checkpoint": ""}, Code.EVIDENCE_INVALID),
}


@pytest.mark.parametrize("attack", FORGERIES)
def test_a_forged_receipt_ends_nothing(scene: Scene, attack: str) -> None:
    changes, code = FORGERIES[attack]
    envelope = sent_update(scene)
    with unharmed(scene, CN), refusal(code):
        scene.keeper(CN).receipted(HQ, forged_receipt(scene, envelope, **changes))
    waiting = scene.keeper(CN).next_for(HQ)
    assert waiting is not None
    assert waiting.envelope == envelope, "it is still to be sent"
    scene.carry()
    assert scene.keeper(CN).next_for(HQ) is None


def test_a_receipt_counts_once_and_cannot_be_taken_back(scene: Scene) -> None:
    envelope = sent_update(scene)
    scene.keeper(CN).receipted(HQ, forged_receipt(scene, envelope))
    entry = CrossingEntry(verdict="refused", code=Code.MALFORMED, envelope=envelope.decode(), at=NOW)
    name = log_name(HQ, Log.CROSSINGS)
    head = checkpoint.Head(name, 1, Digest.from_bytes(merkle.leaf_hash(canonical.dump(entry))))
    note = checkpoint.sign_checkpoint(head, name, Rogue(scene.home, HQ).keys.signing)
    second = forged_receipt(scene, envelope, verdict="refused", code=Code.MALFORMED, checkpoint=note)
    with unharmed(scene, CN):
        scene.keeper(CN).receipted(HQ, second)


def test_a_receipt_for_what_came_in_is_none(scene: Scene) -> None:
    verdict, _, envelope = scene.picture(CN).crossings[0]
    assert verdict == "accepted"
    with unharmed(scene, CN), refusal(Code.EVIDENCE_INVALID):
        scene.keeper(CN).receipted(HQ, forged_receipt(scene, envelope.encode()))
