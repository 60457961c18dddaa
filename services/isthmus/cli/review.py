"""`review`: what waits for a zone's officers, and their signed yes or no. It happens inside the zone.

The border is asked with the officers' token; a statement is signed here with the officer's own key, which is read from
their file and goes nowhere. What is signed is shown first, and held against the release that it is about.
"""

# typer reads the annotations of verbs when it runs, so they stay evaluated in this module.
# ruff: noqa: PLC0415 - a verb loads what it needs when it runs: `isthmus verify` needs none of it

import asyncio
import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.answers import epsilon
from isthmus.cli.homes import DEFAULT_HOME, Home, SiteHome
from isthmus.cli.options import HomeFolder, Json, Site
from isthmus.cli.screen import Screen, short, table
from isthmus.contracts.approvals import (
    APPROVAL_TYPE,
    REJECTION_TYPE,
    STANDING_APPROVAL_TYPE,
    Approval,
    Rejection,
    StandingApproval,
)
from isthmus.contracts.crossings import PrivacyEvent
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import PersonId, SiteId
from isthmus.contracts.inside import CandidateStatus, InsideRole, Review, ReviewItem, SignedStatement
from isthmus.contracts.orders import TrainingPrivacy
from isthmus.contracts.roster import PersonRole
from isthmus.proof import canonical

if TYPE_CHECKING:
    from rich.console import RenderableType

    from isthmus.proof.signing import SigningKey

app = typer.Typer(help="What waits for officers, and their answers.")

FEWEST_DIGITS = 6

Release = Annotated[
    str, typer.Argument(metavar="RELEASE", help="The held release: its crossing's id, or the id's first digits.")
]
Officer = Annotated[PersonId, typer.Option("--as", parser=PersonId, metavar="PERSON", help="The officer who signs.")]


@app.command("list")
def list_(*, site: Site, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """List what a border holds for its officers."""
    review = asyncio.run(held(Home.open(home).site(site)))
    rows = [
        (short(i.manifest.crossing), i.manifest.kind, i.manifest.slot, i.manifest.job, ", ".join(i.manifest.recipients),
         ", ".join(i.needs), ", ".join(i.signed_by))
        for i in review.items
    ]  # fmt: skip
    columns = ("release", "kind", "slot", "job", "for", "needs", "signed by")
    Screen(machine=json).result(review, table(f"Held at {site}", columns, rows))


@app.command("show")
def show(release: Release, *, site: Site, home: HomeFolder = DEFAULT_HOME, json: Json = False) -> None:
    """Show one held release: what it is, what was checked, what a signature would let pass."""
    review = asyncio.run(held(Home.open(home).site(site)))
    item = find(review.items, release)
    m, standing = item.manifest, item.standing
    rows = [
        ("crossing", m.crossing),
        ("kind", f"{m.kind}, slot {m.slot} of {m.job}"),
        ("for", f"{m.recipient}; may go on to {', '.join(m.recipients)}"),
        ("purpose", m.purpose),
        ("sealed", f"{m.payload.digest}, {m.payload.size} bytes"),
        ("can say at most", f"{m.information_bits} bits"),
        ("behind it", f"about {m.contributors.vehicles} vehicles" if m.contributors else "not stated"),
        ("checked", ", ".join(m.checks)),
        ("protected by", ", ".join(protection(p) for p in m.privacy) or "nothing"),
        *([("costs a vehicle", _cost_of(item.training))] if item.training else []),
        ("needs", ", ".join(item.needs)),
        ("signed by", ", ".join(item.signed_by) or "nobody"),
        ("--once lets pass", "this release alone, until " + _date(item.single.expires_at)),
        ("--standing lets pass", _class_of(standing)),
    ]
    Screen(machine=json).result(item, table(f"Held at {site}", ("what", "value"), rows), *_told(item))


@app.command("approve")
def approve(
    release: Release,
    *,
    site: Site,
    person: Officer,
    standing: Annotated[
        bool, typer.Option("--standing/--once", help="Sign for all such releases of the job, or for this one.")
    ] = False,
    home: HomeFolder = DEFAULT_HOME,
    json: Json = False,
) -> None:
    """Sign a held release, as an officer. It goes when officers of two organisations have signed."""
    opened = Home.open(home)
    screen = Screen(machine=json)
    key = _key(opened, site, person)

    async def sign() -> CandidateStatus:
        from isthmus.cli.connections import border_of

        async with border_of(opened.site(site), InsideRole.OFFICER) as border:
            item = find((await border.review()).items, release)
            screen.note(_class_of(item.standing) if standing else f"release {item.manifest.crossing} alone")
            return await border.approve(approval(key, item, standing=standing))

    _show_status(screen, person, "approved", asyncio.run(sign()))


@app.command("reject")
def reject(
    release: Release, *, site: Site, person: Officer, home: HomeFolder = DEFAULT_HOME, json: Json = False
) -> None:
    """Refuse a held release, as an officer. One is enough."""
    opened = Home.open(home)
    key = _key(opened, site, person)

    async def sign() -> CandidateStatus:
        from isthmus.cli.connections import border_of

        async with border_of(opened.site(site), InsideRole.OFFICER) as border:
            item = find((await border.review()).items, release)
            return await border.reject(rejection(key, item))

    _show_status(Screen(machine=json), person, "rejected", asyncio.run(sign()))


async def held(site: SiteHome) -> Review:
    """Return what a border holds."""
    from isthmus.cli.connections import border_of

    async with border_of(site, InsideRole.OFFICER) as border:
        return await border.review()


def find(items: Sequence[ReviewItem], release: str) -> ReviewItem:
    """Return the held release whose crossing's id begins with `release`.

    Raises:
        Refusal: `NOT_FOUND`: none does, or several do.
    """
    digits = release.removeprefix("sha256:")
    found = [i for i in items if i.manifest.crossing.removeprefix("sha256:").startswith(digits)]
    if len(found) == 1 and len(digits) >= FEWEST_DIGITS:
        return found[0]
    why = f"{len(found)} of {len(items)} begin so; at least {FEWEST_DIGITS} digits are needed."
    raise Refusal(Code.NOT_FOUND, "No one held release is meant.", why=why, remedy="See `isthmus review list`.")


def approval(key: "SigningKey", item: ReviewItem, *, standing: bool) -> SignedStatement:
    """Sign the approval of a held release, or of its class.

    Raises:
        Refusal: `APPROVAL_INVALID`: the statement says more than the release that it came with.
    """
    body = item.standing if standing else item.single
    if not _is_about(body, item):
        raise Refusal(
            Code.APPROVAL_INVALID,
            "The statement to sign is not about the release that it came with.",
            remedy="Sign nothing, and look into the border.",
        )
    payload_type = STANDING_APPROVAL_TYPE if standing else APPROVAL_TYPE
    return SignedStatement(envelope=key.sign(payload_type, canonical.dump(body)).decode())


def rejection(key: "SigningKey", item: ReviewItem) -> SignedStatement:
    """Sign the rejection of a held release."""
    manifest = item.manifest
    body = Rejection(version=1, zone=manifest.sender, crossing=manifest.crossing, sealed=manifest.payload.digest)
    return SignedStatement(envelope=key.sign(REJECTION_TYPE, canonical.dump(body)).decode())


def protection(event: PrivacyEvent) -> str:
    """Say what was done to a release, in units that people read."""
    match event.mechanism:
        case "l2_clip":
            return f"L2 norm clipped to {event.parameter / 1e6} by the {event.enforced_by}"
        case "band":
            return f"figures banded to {event.parameter / 1e4:g} cm by the {event.enforced_by}"
        case "contribution_bound":
            return f"at most {event.parameter} rows of one vehicle count, held by the {event.enforced_by}"
        case "vehicle_clip":
            return (
                f"what one vehicle changes in a round clipped to {event.parameter / 1e6:g}, by the {event.enforced_by}"
            )
        case "differential_privacy":
            return f"differentially private at epsilon {event.parameter / 1e6:g}, by the {event.enforced_by}"
        case "disclosure_control":
            return f"no cell under {event.parameter} vehicles (not differential privacy), by the {event.enforced_by}"


def _cost_of(privacy: TrainingPrivacy) -> str:
    return f"at most {epsilon(privacy.epsilon_micro, privacy.delta_exponent)}, all updates of this training together"


def _is_about(body: StandingApproval | Approval, item: ReviewItem) -> bool:
    manifest = item.manifest
    common = (body.zone, body.recipients, body.purpose, body.policy)
    if common != (manifest.sender, manifest.recipients, manifest.purpose, manifest.policy):
        return False
    if isinstance(body, Approval):
        return (body.crossing, body.sealed) == (manifest.crossing, manifest.payload.digest)
    return (body.job, body.order, body.kind) == (manifest.job, manifest.order, manifest.kind)


def _key(home: Home, site: SiteId, person: PersonId) -> "SigningKey":
    """Read the key of an officer of `site`.

    Raises:
        Refusal: `FORBIDDEN`: they are no officer there.
    """
    from isthmus.cli.federation import officer_key

    officers = [known.id for known in home.site(site).roster().persons if PersonRole.OFFICER in known.roles]
    if person not in officers:
        raise Refusal(
            Code.FORBIDDEN,
            f"{person} is not an officer of {site}.",
            remedy=f"Its officers are: {', '.join(officers)}." if officers else f"{site} has no officers.",
        )
    return officer_key(home.path, person)


def _show_status(screen: Screen, person: PersonId, did: str, status: CandidateStatus) -> None:
    needs = f"It still needs {', '.join(status.needs)}." if status.needs else ""
    screen.result(status, f"{person} {did} {short(status.crossing)}: it is {status.state} now. {needs}".rstrip())


def _told(item: ReviewItem) -> "list[RenderableType]":
    """Return, of the answer to a question, every number that would cross: officers see it as headquarters would."""
    if item.query is None or item.answer is None:
        return []
    from isthmus.analytics.sql_render import render
    from isthmus.contracts.queries import primitives

    spec = item.query.spec
    columns = [f"{p.kind} of {p.measure}" if p.measure else str(p.kind) for p in primitives(spec)]
    rows = [
        (
            *group,
            *(
                "hidden" if cell.suppressed else ", ".join(map(str, told))
                for told in cell.values or [()] * len(columns)
            ),
        )
        for group, cell in zip(spec.cells(), item.answer.cells, strict=True)
    ]
    again = "It was released before." if item.answer.repeated else "It was not released before."
    return [
        f"Asked: {render(spec)}\n",
        table("Would cross", (*spec.group_by, *columns), rows),
        f"Whole steps of each measure; sums are about the middle of its bounds. {again}",
        *([_elsewhere(item)] if item.elsewhere else []),
    ]


def _elsewhere(item: ReviewItem) -> str:
    count = "1 answer" if item.elsewhere == 1 else f"{item.elsewhere} answers"
    return (
        f"Not compared with {count} about other snapshots of {item.standing.dataset.dataset}: where snapshots share"
        " vehicles, the difference of two answers may single some out."
    )


def _class_of(body: StandingApproval) -> str:
    bounds = body.bounds
    return (
        f"up to {bounds.releases} releases of kind {body.kind} under order {short(body.order)} of {body.job}: "
        f"{body.algorithm.name} on {body.dataset.dataset}/{body.dataset.snapshot} ({', '.join(body.groups)}), "
        f"for {body.purpose}, to {', '.join(body.recipients)}; each at most {bounds.information_bits_per_release} bits "
        f"and clipped at {bounds.clip_norm_micro / 1e6:g}; until {_date(body.expires_at)}"
    )


def _date(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
