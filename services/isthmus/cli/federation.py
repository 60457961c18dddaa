"""Set-up: make the sites of a federation, each with its own home, keys, tokens, policy and genesis.

Everything secret is made here, goes into files that only their owner reads, and never leaves the site it is made for:
the sites know each other by public keys and certificates alone. Nothing that exists is overwritten. A home appears
whole or not at all: it is made beside its place, as `<home>.new-<random>`, and moved there last.

On disk: `<home>/<site>/{settings.toml, genesis.json, policy, tokens, keys, store, blobs, ledger.db}`,
`<home>/people/<person>/` for the keys and tokens of persons, `<home>/roots.json` for the auditor.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import socket
import tempfile
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from isthmus.analytics import algorithm as statistics
from isthmus.border.keeper.keystore import FileKeyStore
from isthmus.border.keeper.policy import Policy
from isthmus.contracts.answers import SLOT_S
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest, Name, OrganisationId, PersonId, SiteId
from isthmus.contracts.inside import InsideRole
from isthmus.contracts.orders import Algorithm
from isthmus.contracts.queries import PrivacyBudget
from isthmus.contracts.roster import Genesis, Person, PersonRole, Quotas, Roots, RootSite, Roster, Site
from isthmus.kit.clock import SystemClock
from isthmus.kit.tokens import make_token, read_secret, write_secret
from isthmus.learning import algorithm
from isthmus.proof import canonical
from isthmus.proof.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from isthmus.border.keeper.keystore import BorderKeys
    from isthmus.kit.clock import Clock

CERTIFICATE_DAYS = 365
SEED = 32

DEMO_QUOTAS = Quotas(
    open_orders_per_peer=16,
    orders_per_peer=4096,
    information_bits_per_order=8 * (64 << 30),
    information_bits_per_peer=8 * (256 << 30),
)

DEMO_PRIVACY = PrivacyBudget(epsilon_micro=16_000_000, delta_exponent=6)
"""What all answers about one zone's vehicles may cost together, for ever."""

PERMITTED = (Name("cpu"),)
"""Classes of chips to which a zone's genesis lets keys go, unless the officers agree on others."""


@dataclass(frozen=True, slots=True)
class SitePlan:
    """A site to be made. A zone's genesis permits `accelerators`, the classes of chips that its orders may run on."""

    id: SiteId
    jurisdiction: Name
    part: Literal["zone", "coordinator"]
    accelerators: tuple[Name, ...] = PERMITTED


@dataclass(frozen=True, slots=True)
class PersonPlan:
    """A person to be made: an officer gets a key, an engineer a token of the jobs API.

    An officer stands on the roster of one `zone` alone; anyone else stands on all.
    """

    id: PersonId
    organisation: OrganisationId
    roles: tuple[PersonRole, ...]
    zone: SiteId | None = None


@dataclass(frozen=True, slots=True)
class FederationPlan:
    """Who is in the federation. The first site is the coordinator's, which the zones dial."""

    sites: tuple[SitePlan, ...]
    persons: tuple[PersonPlan, ...]
    quotas: Quotas = DEMO_QUOTAS
    privacy: PrivacyBudget = DEMO_PRIVACY
    minimum_slot_s: int = SLOT_S
    algorithms: tuple[Algorithm, ...] = ()


def demo_plan() -> FederationPlan:
    """Return the demo's federation: a coordinator, two zones, and in each zone officers of two organisations."""
    officer, engineer, auditor = (PersonRole.OFFICER,), (PersonRole.ENGINEER,), (PersonRole.AUDITOR,)
    china, texas = SiteId("cn-shanghai"), SiteId("us-texas")
    return FederationPlan(
        sites=(
            SitePlan(SiteId("hq"), Name("eu"), "coordinator"),
            SitePlan(china, Name("cn"), "zone"),
            SitePlan(texas, Name("us"), "zone"),
        ),
        persons=(
            PersonPlan(PersonId("maya.engineer"), OrganisationId("maker"), engineer),
            PersonPlan(PersonId("lin.officer"), OrganisationId("maker-china"), officer, china),
            PersonPlan(PersonId("wu.officer"), OrganisationId("shanghai-partner"), officer, china),
            PersonPlan(PersonId("carter.officer"), OrganisationId("maker-us"), officer, texas),
            PersonPlan(PersonId("diaz.officer"), OrganisationId("texas-partner"), officer, texas),
            PersonPlan(PersonId("okafor.auditor"), OrganisationId("auditors"), auditor),
        ),
        algorithms=(
            Algorithm(name=algorithm.NAME, digest=algorithm.digest()),
            Algorithm(name=statistics.NAME, digest=statistics.digest()),
        ),
    )


def permitting(plan: FederationPlan, said: Iterable[tuple[SiteId, Name]]) -> FederationPlan:
    """Return `plan` with the classes of chips that are said of zones; a zone of which nothing is said keeps its own.

    Raises:
        Refusal: `NOT_FOUND`: a site is no zone of the plan.
    """
    wanted: dict[SiteId, set[Name]] = {}
    for site, accelerator in said:
        wanted.setdefault(site, set()).add(accelerator)
    zones = [site.id for site in plan.sites if site.part == "zone"]
    if strange := sorted(wanted.keys() - set(zones)):
        raise Refusal(Code.NOT_FOUND, f"{strange[0]} is no zone.", remedy=f"Use one of: {', '.join(zones)}.")
    sites = (
        replace(site, accelerators=tuple(sorted(wanted[site.id]))) if site.id in wanted else site for site in plan.sites
    )
    return replace(plan, sites=tuple(sites))


def create(home: Path, plan: FederationPlan, clock: Clock | None = None) -> None:
    """Make every site of `plan` under `home`, which is not there yet or is empty.

    Raises:
        Refusal: `ALREADY_EXISTS`: something is there already.
        Fault: `STORAGE_FAILED`: the folder cannot be made. Nothing is left of it.
    """
    try:
        place = home.resolve()
        _check_vacant(place, home)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f"{place.name}.new-", dir=place.parent))
        try:
            _make_federation(making, plan, (clock or SystemClock()).now())
            making.rename(place)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
    except OSError as error:
        raise Fault(
            Code.STORAGE_FAILED,
            f"The federation cannot be made in {home}.",
            why=f"{error.strerror}." if error.strerror else "",
            remedy="Choose a home in a folder where you may write and with room left, and run this again.",
        ) from error


def _check_vacant(place: Path, home: Path) -> None:
    if not place.exists() or not any(place.iterdir()):
        return
    whole = (place / "roots.json").exists()
    raise Refusal(
        Code.ALREADY_EXISTS,
        f"A federation stands in {home} already." if whole else f"{home} is not empty.",
        remedy="Choose another home with ISTHMUS_HOME, or remove this one yourself.",
    )


def _make_federation(home: Path, plan: FederationPlan, now: int) -> None:
    for site in plan.sites:
        (home / site.id).mkdir(mode=0o700)
    made = {site.id: _make_keys(home / site.id, site, now) for site in plan.sites}
    sites = tuple(_public(site, *made[site.id]) for site in plan.sites)
    persons = tuple((person.zone, _make_person(home, person)) for person in plan.persons)
    rosters = {
        site.id: Roster(sites=sites, persons=tuple(p for zone, p in persons if zone in {None, site.id}))
        for site in plan.sites
    }
    ports = _free_ports(2 + len(plan.sites))
    geneses = {site.id: _make_site(home / site.id, site, plan, rosters[site.id], ports, now) for site in plan.sites}
    _write_people(home, plan)
    roots = Roots(
        version=1,
        sites=tuple(
            RootSite(id=site.id, signing=site.signing, genesis=canonical.digest(geneses[site.id])) for site in sites
        ),
    )
    (home / "roots.json").write_bytes(canonical.dump(roots))


def officer_key(home: Path, person: PersonId) -> SigningKey:
    """Read an officer's signing key."""
    seeds = read_secret(home / "people" / person / "signing.seeds")
    return SigningKey.from_seeds(seeds[:SEED], seeds[SEED:])


def _make_keys(directory: Path, site: SitePlan, now: int) -> tuple[BorderKeys, bytes]:
    """Make a border's keys and its link certificate; return the keys and the certificate's PEM."""
    keys = FileKeyStore(directory / "keys").create()
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site.id)])
    start = dt.datetime.fromtimestamp(now, dt.UTC) - dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    write_secret(
        directory / "keys" / "link.key",
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    write_secret(directory / "keys" / "link.pem", pem)
    return keys, pem


def _public(site: SitePlan, keys: BorderKeys, pem: bytes) -> Site:
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    return Site(
        id=site.id,
        jurisdiction=site.jurisdiction,
        part=site.part,
        signing=keys.signing.verify_key,
        sealing=keys.sealing.public,
        certificate=Digest.of(der),
    )


def _make_person(home: Path, person: PersonPlan) -> Person:
    key = None
    if PersonRole.OFFICER in person.roles:
        signing = SigningKey.generate()
        write_secret(home / "people" / person.id / "signing.seeds", b"".join(signing.to_seeds()))
        key = signing.verify_key
    return Person(id=person.id, organisation=person.organisation, roles=person.roles, key=key)


def _make_site(
    directory: Path, site: SitePlan, plan: FederationPlan, roster: Roster, ports: list[int], now: int
) -> Genesis:
    """Write one site's policy, tokens, pinned certificates, settings and genesis."""
    policy = directory / "policy"
    policy.mkdir(parents=True)
    for pack in files("isthmus.border.packs").iterdir():
        if pack.name.endswith((".cedar", ".cedarschema")):
            (policy / pack.name).write_bytes(pack.read_bytes())
    for role in InsideRole:
        make_token(directory / "tokens" / role.value)
    hub = plan.sites[0]
    others = [s for s in plan.sites if s.id != site.id] if site.id == hub.id else [hub]
    pinned = b"".join((directory.parent / s.id / "keys" / "link.pem").read_bytes() for s in others)
    write_secret(directory / "keys" / "pinned.pem", pinned)
    (directory / "settings.toml").write_text(_settings(site, plan, ports), "utf-8")
    genesis = Genesis(
        version=1,
        site=site.id,
        roster=roster,
        policy=Policy.load(policy).digest,
        algorithms=plan.algorithms,
        quotas=plan.quotas,
        privacy=plan.privacy if site.part == "zone" else None,
        minimum_slot_s=plan.minimum_slot_s,
        accelerators=tuple(sorted(site.accelerators)) if site.part == "zone" else (),
        created_at=now,
    )
    (directory / "genesis.json").write_bytes(canonical.dump(genesis))
    return genesis


def _settings(site: SitePlan, plan: FederationPlan, ports: list[int]) -> str:
    """Return a site's settings. Ports: the link's, the jobs API's, then an inside face for each site."""
    link, api, *inside = ports
    own = inside[[s.id for s in plan.sites].index(site.id)]
    lines = [f'site = "{site.id}"', "", "[border]", f'inside = "127.0.0.1:{own}"']
    if site.part == "coordinator":
        officers = ", ".join(f'"{p.id}"' for p in plan.persons if PersonRole.OFFICER in p.roles)
        lines += [
            f'outside = "127.0.0.1:{link}"',
            "",
            "[coordinator]",
            f'border_url = "http://127.0.0.1:{own}"',
            f"listen_port = {api}",
            f"officers = [{officers}]",
            *dry_run_lines(plan),
        ]
    else:
        hub = plan.sites[0].id
        lines += [
            f'dials = {{ site = "{hub}", url = "https://127.0.0.1:{link}" }}',
            "",
            "[zone]",
            f'border_url = "http://127.0.0.1:{own}"',
        ]
    return "\n".join(lines) + "\n"


def dry_run_lines(plan: FederationPlan) -> Iterator[str]:
    """Yield what a coordinator's settings say of what the zones' geneses fix: dry runs go by it."""
    zones = [site for site in plan.sites if site.part == "zone"]
    for zone in zones:
        yield from ("", f"[coordinator.budgets.{zone.id}]")
        yield f"epsilon_micro = {plan.privacy.epsilon_micro}"
        yield f"delta_exponent = {plan.privacy.delta_exponent}"
    yield from ("", "[coordinator.minimum_slots]")
    yield from (f"{zone.id} = {plan.minimum_slot_s}" for zone in zones)


def _write_people(home: Path, plan: FederationPlan) -> None:
    """Give everyone but officers a token of the jobs API; the coordinator keeps its hash."""
    hub = home / plan.sites[0].id
    entries = []
    for person in plan.persons:
        if PersonRole.OFFICER in person.roles:
            continue
        token = make_token(home / "people" / person.id / "token")
        role = "engineer" if PersonRole.ENGINEER in person.roles else "viewer"
        digest = hashlib.sha256(token.encode()).hexdigest()
        entries.append(f'["{person.id}"]\nsha256 = "{digest}"\nrole = "{role}"\n')
    write_secret(hub / "tokens" / "people.toml", "\n".join(entries).encode())


def _free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
