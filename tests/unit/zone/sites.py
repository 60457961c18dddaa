"""One zone and its border, and the coordinator's border, in this process: the real ones, joined by hand."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import httpx2

from isthmus.analytics import algorithm as counting
from isthmus.border.gate.inside import inside_app
from isthmus.border.keeper.blobs import BlobStore
from isthmus.border.keeper.desk import Desk
from isthmus.border.keeper.guarded import GuardedKeeper
from isthmus.border.keeper.keeper import Keeper
from isthmus.border.keeper.keystore import FileKeyStore
from isthmus.border.keeper.ledger import LedgerStore
from isthmus.border.keeper.policy import Policy
from isthmus.client.border import BorderClient
from isthmus.contracts.approvals import STANDING_APPROVAL_TYPE
from isthmus.contracts.identifiers import Digest, Name, OrganisationId, PersonId, SiteId
from isthmus.contracts.inside import InsideRole, SignedStatement
from isthmus.contracts.orders import Algorithm
from isthmus.contracts.queries import PrivacyBudget
from isthmus.contracts.roster import Genesis, Person, PersonRole, Quotas, Roster, Site
from isthmus.kit.bell import Bell
from isthmus.kit.clock import ManualClock
from isthmus.learning import algorithm
from isthmus.proof import canonical
from isthmus.proof.signing import SigningKey

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.border.keeper.keystore import BorderKeys
    from isthmus.contracts.crossings import Kind

ZONE, HQ = SiteId("cn-shanghai"), SiteId("hq")
NOW = 1_800_000_000


@dataclass(frozen=True, slots=True)
class Side:
    """One border, and clients of its inside face by role."""

    site: SiteId
    keeper: Keeper
    bell: Bell
    http: httpx2.AsyncClient

    def client(self, role: InsideRole) -> BorderClient:
        return BorderClient(self.http, f"token-of-{role}")


@dataclass(frozen=True, slots=True)
class Borders:
    """Both borders, and the two officers of the zone."""

    zone: Side
    hq: Side
    clock: ManualClock
    officers: tuple[SigningKey, SigningKey]

    def carry(self) -> int:
        """Carry everything that waits, both ways, and return how many crossings that were."""
        return self._one_way(self.hq, self.zone) + self._one_way(self.zone, self.hq)

    async def approve(self, kind: Kind) -> int:
        """Have both officers sign a standing approval for what is held of a kind; return how much was held."""
        client = self.zone.client(InsideRole.OFFICER)
        items = [item for item in (await client.review()).items if item.manifest.kind is kind]
        for item in items[:1]:
            for officer in self.officers:
                envelope = officer.sign(STANDING_APPROVAL_TYPE, canonical.dump(item.standing))
                await client.approve(SignedStatement(envelope=envelope.decode()))
        return len(items)

    @staticmethod
    def _one_way(sender: Side, receiver: Side) -> int:
        carried = 0
        while (crossing := sender.keeper.next_for(receiver.site)) is not None:
            pieces = list(sender.keeper.blob(receiver.site, crossing.payload)[1])
            receipt = receiver.keeper.inbound.receive(sender.site, crossing.envelope, pieces)
            sender.keeper.receipted(receiver.site, receipt)
            carried += 1
        return carried


def make_borders(home: Path) -> Borders:
    clock = ManualClock(NOW)
    keys = {site: FileKeyStore(home / site / "keys").create() for site in (ZONE, HQ)}
    officers = (SigningKey.generate(), SigningKey.generate())
    packs = resources.files("isthmus.border") / "packs"
    rules = "\n".join((packs / f"{name}.cedar").read_text("utf-8") for name in ("house", "statistics"))
    policy = Policy(rules, (packs / "house.cedarschema").read_text("utf-8"))
    persons = tuple(
        Person(
            id=PersonId(f"officer-{number}"),
            organisation=OrganisationId(f"partner-{number}"),
            roles=(PersonRole.OFFICER,),
            key=key.verify_key,
        )
        for number, key in enumerate(officers)
    )
    roster = Roster(sites=tuple(_site(site, keys[site]) for site in (ZONE, HQ)), persons=persons)
    sides = {site: _side(site, home / site, keys[site], roster, policy, clock) for site in (ZONE, HQ)}
    return Borders(sides[ZONE], sides[HQ], clock, officers)


def _site(site: SiteId, keys: BorderKeys) -> Site:
    return Site(
        id=site,
        jurisdiction=Name(site[:2]),
        part="coordinator" if site == HQ else "zone",
        signing=keys.signing.verify_key,
        sealing=keys.sealing.public,
        certificate=Digest.of(site.encode()),
    )


def _side(site: SiteId, home: Path, keys: BorderKeys, roster: Roster, policy: Policy, clock: ManualClock) -> Side:
    genesis = Genesis(
        version=1,
        site=site,
        roster=roster,
        policy=policy.digest,
        algorithms=tuple(Algorithm(name=each.NAME, digest=each.digest()) for each in (algorithm, counting)),
        quotas=Quotas(
            open_orders_per_peer=4,
            orders_per_peer=16,
            information_bits_per_order=2**40,
            information_bits_per_peer=2**44,
        ),
        privacy=PrivacyBudget(epsilon_micro=10_000_000, delta_exponent=9),
        minimum_slot_s=5,
        accelerators=(Name("cpu"),),
        created_at=NOW,
    )
    bell = Bell()
    desk = Desk(
        site=site,
        genesis=genesis,
        keys=keys,
        store=LedgerStore(home / "ledger.db"),
        blobs=BlobStore(home / "blobs"),
        policy=policy,
        clock=clock,
        bell=bell,
    )
    keeper = Keeper(desk)
    half = GuardedKeeper(keeper, {role: f"token-of-{role}" for role in InsideRole})
    app = inside_app(half, bell, "0")
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://border")
    return Side(site, keeper, bell, http)
