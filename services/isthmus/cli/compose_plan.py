"""What each container of the Compose demo is given: volumes, whose they are, and what is in them.

Rules:
1. A volume holds what one service needs and nothing of another's: a secret that two services share is copied to both.
2. Every file belongs to the one user that reads it. Nothing here is a secret: what is copied is named, not read.
3. A service listens at a name that stands for it in one network alone, so it answers in that network alone.

Source: `deploy/compose.yaml` mounts these volumes; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TYPE_CHECKING

from isthmus.cli.federation import dry_run_lines
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.roster import PersonRole

if TYPE_CHECKING:
    from isthmus.cli.federation import FederationPlan, PersonPlan, SitePlan
    from isthmus.contracts.identifiers import SiteId

INSIDE_PORT, LINK_PORT, API_PORT, STORE_PORT, RAY_PORT = 8440, 8443, 8600, 9000, 24_000
NOTES, OUT = "notes", "out"
SEALING_KEYS = ("signing.seeds", "sealing.key", "pseudonym.key")
LINK_KEYS = ("link.key", "link.pem", "pinned.pem")
SOCKET = "socket/keeper.sock"


@unique
class Owner(IntEnum):
    """The user ids of the images (`deploy/Dockerfile`)."""

    GATE = 10001
    KEEPER = 10002
    COORDINATOR = 10003
    ZONE = 10004
    RAY = 10005
    STORE = 10006
    OFFICER = 10007
    HEADQUARTERS = 10008


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume.

    Attributes:
        name: its name in the compose file.
        owner: whose it is.
        copies: what is copied into it: (path in the made home, path in the volume); a folder with all that is in it.
        texts: what is written into it: (path in the volume, text).
        folders: empty folders, each with its owner: to write into, or to mount another volume at.
    """

    name: str
    owner: Owner
    copies: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    folders: tuple[tuple[str, Owner], ...] = ()


def inside_address(site: SiteId) -> str:
    """Return where a border's inside face listens, in its site's network."""
    return f"border.{site}:{INSIDE_PORT}"


def link_address(site: SiteId) -> str:
    """Return where the coordinator's border listens, in the crossing network."""
    return f"link.{site}:{LINK_PORT}"


def store_address(site: SiteId) -> str:
    """Return where a zone's store listens, in its zone's network."""
    return f"store.{site}:{STORE_PORT}"


def volumes(plan: FederationPlan) -> tuple[Volume, ...]:
    """Return every volume of a federation whose first site is the coordinator's."""
    hub = plan.sites[0]
    made: list[Volume] = [
        *_border(hub, plan),
        _coordinator(hub, plan),
        _headquarters(hub, plan),
        Volume(NOTES, Owner.HEADQUARTERS),
        Volume(OUT, Owner.HEADQUARTERS),
    ]
    for zone in plan.sites[1:]:
        made += [
            *_border(zone, plan),
            *_store(zone),
            _ray(zone),
            _zone(zone),
            *(Volume(f"{zone.id}-{what}", Owner.ZONE) for what in ("catalogue", "results")),
            _operator(zone),
            _officers(zone, plan),
            Volume(
                f"{zone.id}-handover",
                Owner.OFFICER,
                folders=(("evidence", Owner.OFFICER), ("figures", Owner.ZONE)),
            ),
        ]
    return tuple(made)


def _border(site: SitePlan, plan: FederationPlan) -> tuple[Volume, ...]:
    """Return a border's volumes: the keeper has the keys, the ledger and the tokens, the gate the link's key alone."""
    hub = plan.sites[0].id
    lines = [
        f'site = "{site.id}"',
        "",
        "[border]",
        f'inside = "{inside_address(site.id)}"',
        f'keeper = "{SOCKET}"',
        f"gate_user = {Owner.GATE}",
    ]
    if site.id == hub:
        lines.append(f'outside = "{link_address(hub)}"')
    else:
        lines.append(f'dials = {{ site = "{hub}", url = "https://{link_address(hub)}" }}')
    settings = ("settings.toml", _text(lines))
    kept = ["genesis.json", "policy", *(f"keys/{key}" for key in SEALING_KEYS), *map(_token, InsideRole)]
    shown = ["genesis.json", *(f"keys/{key}" for key in LINK_KEYS)]
    archive: tuple[tuple[str, str], ...] = ()
    if site.part == "zone":
        shown.append("s3/border.json")
        archive = (("settings.toml", _text([*lines, *_archive_lines(site)])),)
    return (
        Volume(f"{site.id}-keeper", Owner.KEEPER, _of(site, kept), (settings,), (("socket", Owner.KEEPER),)),
        Volume(f"{site.id}-gate", Owner.GATE, _of(site, shown), archive or (settings,), (("socket", Owner.GATE),)),
        Volume(f"{site.id}-socket", Owner.KEEPER),
    )


def _store(zone: SitePlan) -> tuple[Volume, ...]:
    """Return a store's volumes: its objects, its administrator's password, and what makes its buckets and users."""
    lines = [f'site = "{zone.id}"', *_s3_lines(zone), *_archive_lines(zone)]
    credentials = [f"s3/{user}.json" for user in ("root", "ingest", "compute", "border")]
    return (
        Volume(f"{zone.id}-store", Owner.STORE, folders=(("objects", Owner.STORE),)),
        Volume(f"{zone.id}-store-root", Owner.STORE, _of(zone, ["s3/root.user", "s3/root.password"])),
        Volume(f"{zone.id}-buckets", Owner.STORE, _of(zone, credentials), (("settings.toml", _text(lines)),)),
    )


def _ray(zone: SitePlan) -> Volume:
    """Return what the cluster's nodes read: their token, and the credentials of compute."""
    lines = [f'site = "{zone.id}"', *_zone_lines(zone)]
    secrets = [f"s3/{InsideRole.COMPUTE.value}.json", "tokens/ray"]
    return Volume(f"{zone.id}-ray", Owner.RAY, _of(zone, secrets), (("settings.toml", _text(lines)),))


def _coordinator(hub: SitePlan, plan: FederationPlan) -> Volume:
    officers = ", ".join(f'"{person.id}"' for person in _officers_of(plan))
    lines = [
        f'site = "{hub.id}"',
        "",
        "[coordinator]",
        f'border_url = "http://{inside_address(hub.id)}"',
        'listen_host = "0.0.0.0"',
        f"listen_port = {API_PORT}",
        f"officers = [{officers}]",
        *dry_run_lines(plan),
    ]
    copies = _of(hub, [_token(InsideRole.SUBMITTER), "tokens/people.toml"])
    return Volume(f"{hub.id}-coordinator", Owner.COORDINATOR, copies, (("settings.toml", _text(lines)),))


def _headquarters(hub: SitePlan, plan: FederationPlan) -> Volume:
    """Return the home of the people at headquarters: the engineer, and the auditor, who has the roots."""
    lines = [
        f'site = "{hub.id}"',
        "",
        "[border]",
        f'inside = "{inside_address(hub.id)}"',
        "",
        "[coordinator]",
        f'border_url = "http://{inside_address(hub.id)}"',
        f'listen_host = "coordinator.{hub.id}"',
        f"listen_port = {API_PORT}",
    ]
    tokens = [f"people/{person.id}" for person in plan.persons if PersonRole.OFFICER not in person.roles]
    own = [f"{hub.id}/{file}" for file in ("genesis.json", _token(InsideRole.AUDITOR))]
    copies = tuple((file, file) for file in (*own, *tokens, "roots.json"))
    return Volume("headquarters", Owner.HEADQUARTERS, copies, ((f"{hub.id}/settings.toml", _text(lines)),))


def _zone(zone: SitePlan) -> Volume:
    lines = [f'site = "{zone.id}"', *_zone_lines(zone)]
    secrets = [_token(InsideRole.COMPUTE), "s3/compute.json", "tokens/ray"]
    folders = (("catalogue", Owner.ZONE), ("results", Owner.ZONE))
    return Volume(f"{zone.id}-zone", Owner.ZONE, _of(zone, secrets), (("settings.toml", _text(lines)),), folders)


def _operator(zone: SitePlan) -> Volume:
    """Return the home of a zone's operator, who ingests."""
    lines = [f'site = "{zone.id}"', "", "[border]", f'inside = "{inside_address(zone.id)}"', *_zone_lines(zone)]
    secrets = (_token(InsideRole.INGEST), "s3/ingest.json")
    return Volume(
        f"{zone.id}-operator",
        Owner.ZONE,
        tuple((f"{zone.id}/{file}", f"{zone.id}/{file}") for file in secrets),
        ((f"{zone.id}/settings.toml", _text(lines)),),
        tuple((f"{zone.id}/{folder}", Owner.ZONE) for folder in ("catalogue", "results")),
    )


def _officers(zone: SitePlan, plan: FederationPlan) -> Volume:
    """Return the home of a zone's officers: their keys, and the tokens to review and to export evidence."""
    lines = [f'site = "{zone.id}"', "", "[border]", f'inside = "{inside_address(zone.id)}"']
    own = [f"{zone.id}/{file}" for file in ("genesis.json", _token(InsideRole.OFFICER), _token(InsideRole.AUDITOR))]
    keys = [f"people/{person.id}" for person in _officers_of(plan) if person.zone in {None, zone.id}]
    copies = tuple((file, file) for file in (*own, *keys))
    return Volume(f"{zone.id}-officers", Owner.OFFICER, copies, ((f"{zone.id}/settings.toml", _text(lines)),))


def _zone_lines(zone: SitePlan) -> list[str]:
    return [
        "",
        "[zone]",
        f'border_url = "http://{inside_address(zone.id)}"',
        'catalogue = "catalogue/catalogue.db"',
        *_s3_lines(zone),
        "",
        "[zone.ray]",
        f'head = "ray.{zone.id}"',
        f"ports = {RAY_PORT}",
    ]


def _s3_lines(zone: SitePlan) -> list[str]:
    """Return where the sealed files are. They are ciphertext, and the zone's network is its own: plain HTTP."""
    return ["", "[zone.s3]", f'endpoint = "{store_address(zone.id)}"', f'bucket = "{zone.id}"', "insecure = true"]


def _archive_lines(zone: SitePlan) -> list[str]:
    place = [f'endpoint = "{store_address(zone.id)}"', f'bucket = "{zone.id}-checkpoints"', "insecure = true"]
    return ["", "[border.archive]", *place]


def _of(site: SitePlan, files: list[str]) -> tuple[tuple[str, str], ...]:
    """Return the copies of a site's own files, each to the same place in the volume."""
    return tuple((f"{site.id}/{file}", file) for file in files)


def _officers_of(plan: FederationPlan) -> list[PersonPlan]:
    return [person for person in plan.persons if PersonRole.OFFICER in person.roles]


def _token(role: InsideRole) -> str:
    return f"tokens/{role.value}"


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
