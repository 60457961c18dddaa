"""Which approvals count. Pure: statements, roster, time in; organisations out.

An approval counts while its officer is on the roster as one, its policy is the one in force, it has not expired, and
it covers this very release (`proof.approvals`). Two signatures of one organisation are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.contracts.approvals import Approval, Bounds, StandingApproval
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.roster import PersonRole
from isthmus.proof.approvals import covers, signer, statement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isthmus.contracts.crossings import Kind, Manifest
    from isthmus.contracts.identifiers import Digest, OrderId, OrganisationId, PersonId, SiteId
    from isthmus.contracts.orders import Order
    from isthmus.contracts.roster import Roster

__all__ = ["Given", "admissible", "covering", "covers", "signer", "single_for", "standing_for", "statement"]


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


def covering(
    given: Iterable[Given], roster: Roster, manifest: Manifest, order: Order, earlier: int, now: int
) -> tuple[Given, ...]:
    """Return the approvals that cover a release: of one statement, the one that most organisations have signed.

    Officers agree only where they sign the same words, so signatures under two statements are not added up.
    """
    valid = [
        g
        for g in given
        if (person := roster.person(g.person)) is not None
        and PersonRole.OFFICER in person.roles
        and person.organisation == g.organisation
        and covers(g.body, manifest, order, earlier, now)
    ]
    by_statement = [tuple(g for g in valid if g.statement == s) for s in sorted({g.statement for g in valid})]
    return max(by_statement, key=lambda signed: len({g.organisation for g in signed}), default=())
