"""Which approval covers which release. One rule: a border applies it before it seals, a verifier afterwards.

1. An approval is a statement in an envelope that an officer of the zone's roster signed.
2. It covers a release of its zone, policy, recipients and purpose, before it expires.
3. One release: its crossing, by the digest of its sealed bytes. A class (standing): its order, job and kind, within
   the bounds on norm, information and number.
4. A standing approval also names the algorithm, the dataset and the column groups: those of the order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.contracts.approvals import APPROVAL_TYPE, STANDING_APPROVAL_TYPE, Approval, StandingApproval
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.roster import PersonRole
from isthmus.proof import canonical, signing

if TYPE_CHECKING:
    from isthmus.contracts.crossings import Manifest
    from isthmus.contracts.orders import Order
    from isthmus.contracts.roster import Person, Roster


def signer(envelope: bytes, roster: Roster) -> tuple[Person, str, bytes]:
    """Return the officer who signed an envelope, its type and its payload.

    Raises:
        Refusal: nobody on the roster did, or one who is no officer (`APPROVAL_INVALID`); it is no envelope
            (`MALFORMED`); a signature does not fit (`SIGNATURE_INVALID`).
    """
    parsed = signing.parse_envelope(envelope)
    person = next((p for p in roster.persons if p.key and p.key.keyid == parsed.keyid), None)
    if person is None or person.key is None:
        raise Refusal(Code.APPROVAL_INVALID, "The signature is of nobody on this zone's roster.")
    if PersonRole.OFFICER not in person.roles:
        raise Refusal(
            Code.APPROVAL_INVALID,
            f"{person.id} is no officer of this zone.",
            remedy="Two officers from two organisations approve; whoever submits jobs does not.",
        )
    return person, parsed.payload_type, signing.verify(envelope, parsed.payload_type, person.key)


def statement(payload_type: str, payload: bytes) -> StandingApproval | Approval:
    """Parse an approval.

    Raises:
        Refusal: it is none (`APPROVAL_INVALID`), or not in its one spelling (`MALFORMED`).
    """
    if payload_type == STANDING_APPROVAL_TYPE:
        return canonical.load(StandingApproval, payload)
    if payload_type == APPROVAL_TYPE:
        return canonical.load(Approval, payload)
    raise Refusal(Code.APPROVAL_INVALID, "This is not an approval.")


def covers(body: StandingApproval | Approval, manifest: Manifest, order: Order, earlier: int, now: int) -> bool:
    """Tell whether an approval covers a release under `order`, `earlier` of whose kind have left under it.

    Args:
        body: the statement.
        manifest: what the release says of itself.
        order: the order it belongs to.
        earlier: number of releases of this kind that left under the order before.
        now: Unix seconds.
    """
    common = (
        body.zone == manifest.sender
        and body.recipients == manifest.recipients
        and body.purpose == manifest.purpose
        and body.policy == manifest.policy
        and now <= body.expires_at
    )
    if isinstance(body, Approval):
        return common and body.crossing == manifest.crossing and body.sealed == manifest.payload.digest
    return (
        common
        and body.order == manifest.order
        and body.job == manifest.job
        and body.kind == manifest.kind
        and body.algorithm == order.algorithm
        and body.dataset == order.dataset
        and body.groups == order.groups
        and order.clip_norm_micro <= body.bounds.clip_norm_micro
        and manifest.information_bits <= body.bounds.information_bits_per_release
        and earlier < body.bounds.releases
        and all(e.parameter <= body.bounds.clip_norm_micro for e in manifest.privacy if e.mechanism == "l2_clip")
    )
