"""Which approvals count. Pure: statements, roster, time in; organisations out.

An approval counts while its officer is on the roster as one, its policy is the one in force, it has not expired, and
it covers this very release. Two signatures of one organisation are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.approvals import APPROVAL_TYPE, STANDING_APPROVAL_TYPE, Approval, Bounds, StandingApproval
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.roster import PersonRole
from isthmus.proof import canonical, signing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.contracts.crossings import Kind, Manifest
    from isthmus.contracts.identifiers import Digest, OrderId, OrganisationId, PersonId, SiteId
    from isthmus.contracts.orders import Order
    from isthmus.contracts.roster import Person, Roster


@dataclass(frozen=True, slots=True)
class Given:
    """An approval that an officer has given."""

    statement: Digest
    person: PersonId
    organisation: OrganisationId
    body: StandingApproval | Approval


def standing_for(
    order: Order, order_id: OrderId, kind: Kind, policy: Digest, bits: int, releases: int
) -> StandingApproval:
    """Return the statement that officers sign to let releases of `kind` under `order` pass."""
    return StandingApproval(
        version=1,
        zone=order.zone,
        job=order.job,
        order=order_id,
        kind=kind,
        algorithm=order.algorithm,
        dataset=order.dataset,
        groups=order.groups,
        recipients=order.recipients,
        purpose=order.purpose,
        policy=policy,
        bounds=Bounds(clip_norm_micro=order.clip_norm_micro, information_bits_per_release=bits, releases=releases),
        expires_at=order.expires_at,
    )


def single_for(manifest: Manifest) -> Approval:
    """Return the statement that officers sign to let one release pass."""
    return Approval(
        version=1,
        zone=manifest.sender,
        crossing=manifest.crossing,
        sealed=manifest.payload.digest,
        recipients=manifest.recipients,
        purpose=manifest.purpose,
        policy=manifest.policy,
        expires_at=manifest.expires_at,
    )


def signer(envelope: bytes, roster: Roster) -> tuple[Person, str, bytes]:
    """Return the officer who signed an envelope, its type and its payload.

    Raises:
        Refusal: nobody on the roster did, or one who is no officer (`APPROVAL_INVALID`).
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
        Refusal: it is none.
    """
    if payload_type == STANDING_APPROVAL_TYPE:
        return canonical.load(StandingApproval, payload)
    if payload_type == APPROVAL_TYPE:
        return canonical.load(Approval, payload)
    raise Refusal(Code.APPROVAL_INVALID, "This is not an approval.")


def admissible(body: StandingApproval | Approval, site: SiteId, policy: Digest, now: int) -> None:
    """Check an approval when it is handed in.

    Raises:
        Refusal: it is for another zone, another policy, or its time is over.
    """
    if body.zone != site:
        raise Refusal(Code.APPROVAL_INVALID, f"The approval is for {body.zone}, not for {site}.")
    if body.policy != policy:
        raise Refusal(Code.APPROVAL_INVALID, "The approval was given under another policy.", remedy="Review it again.")
    if now > body.expires_at:
        raise Refusal(Code.EXPIRED, "The approval's time is over.")


def covers(body: StandingApproval | Approval, manifest: Manifest, order: Order, earlier: int, now: int) -> bool:
    """Tell whether an approval covers a release, `earlier` of whose kind have left under the order."""
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
    )


def covering(
    given: Iterable[Given], roster: Roster, manifest: Manifest, order: Order, earlier: int, now: int
) -> tuple[Given, ...]:
    """Return the approvals that cover a release, of officers who still are officers."""
    return tuple(
        g
        for g in given
        if (person := roster.person(g.person)) is not None
        and PersonRole.OFFICER in person.roles
        and person.organisation == g.organisation
        and covers(g.body, manifest, order, earlier, now)
    )
