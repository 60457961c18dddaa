"""A coordinator's border and its zones' borders in this process: the shipped ones, driven by keeper calls.

No web, no training, no coordinator: payloads are small models of the order's schema, moved by hand. It makes ledgers
with everything in them in well under a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from isthmus.border import app as border_app
from isthmus.border.settings import BorderSettings
from isthmus.cli import federation
from isthmus.contracts.approvals import APPROVAL_TYPE, REJECTION_TYPE, STANDING_APPROVAL_TYPE, Rejection
from isthmus.contracts.crossings import Contributors, Kind
from isthmus.contracts.identifiers import CrossingId, Digest, FileId, JobId, Name, OrganisationId, PersonId, SiteId
from isthmus.contracts.inside import (
    SIDECAR_TYPE,
    CandidateHeader,
    CandidateStatus,
    CloseOrder,
    FreezeSnapshot,
    InsideRole,
    KeyRequest,
    RegisterFiles,
    ReviewItem,
    SessionRequest,
    Sidecar,
    SignedStatement,
)
from isthmus.contracts.ledger import Log
from isthmus.contracts.orders import (
    Algorithm,
    DatasetRef,
    Evaluation,
    EvaluationPlan,
    Figures,
    Order,
    Predictor,
    TrainingPlan,
    TrainingPrivacy,
    Weighting,
)
from isthmus.contracts.raw_table import Group
from isthmus.contracts.roster import PersonRole, Roots
from isthmus.contracts.tensors import TensorSpec
from isthmus.kit.clock import ManualClock
from isthmus.learning import sums as sums_of_vehicles
from isthmus.learning import weights
from isthmus.proof import canonical
from isthmus.proof.ids import crossing_id, file_key_context, order_id
from isthmus.proof.sealing import SealingKey, wrap
from isthmus.proof.signing import SigningKey
from world.questions import STATISTICS, sums
from world.questions import plan as plan_of_question

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from isthmus.border.keeper.keeper import Keeper
    from isthmus.contracts.identifiers import OrderId
    from isthmus.contracts.queries import QueryPlan

HQ, CN, US = SiteId("hq"), SiteId("cn-shanghai"), SiteId("us-texas")
BOTH = (Log.CROSSINGS, Log.INTERNAL)
NOW = 1_800_000_000
DATASET = DatasetRef(dataset=Name("drives"), snapshot=Name("2026q4"))
PURPOSE = Name("forecast-training")
TENSORS = (TensorSpec(name="bias", shape=(3,)), TensorSpec(name="weight", shape=(4, 3)))
ALGORITHM = Algorithm(name=Name("motion-forecast"), digest=Digest.of(b"the source of the algorithm"))
JOB = JobId("job-00000000000000aa")
ENGINEER = PersonId("maya.engineer")
PRIVACY = TrainingPrivacy(epsilon_micro=2_000_000, delta_exponent=6, vehicle_norm_micro=1_000_000, vehicles=200)


def officers(zone: SiteId) -> tuple[PersonId, PersonId]:
    """Return a zone's two officers: one of the maker, one of the local partner."""
    return PersonId(f"maker.{zone}"), PersonId(f"partner.{zone}")


def plan(zones: tuple[SiteId, ...]) -> federation.FederationPlan:
    """Return a federation of the coordinator and `zones`, with two officers in each zone."""
    persons = [
        federation.PersonPlan(person, OrganisationId(person.replace(".", "-")), (PersonRole.OFFICER,))
        for zone in zones
        for person in officers(zone)
    ]
    return federation.FederationPlan(
        sites=(
            federation.SitePlan(HQ, Name("eu"), "coordinator"),
            *(federation.SitePlan(zone, Name(zone[:2]), "zone") for zone in zones),
        ),
        persons=(federation.PersonPlan(ENGINEER, OrganisationId("maker"), (PersonRole.ENGINEER,)), *persons),
        algorithms=(ALGORITHM, STATISTICS),
    )


def model(value: float) -> bytes:
    """Return a model of the order's schema with every number `value`."""
    return weights.encode({spec.name: np.full(spec.shape, value, np.float32) for spec in TENSORS})


def total(slot: int) -> bytes:
    """Return an exact sum over vehicles, as compute hands it in under a private training."""
    return sums_of_vehicles.encode(np.arange(sum(spec.elements for spec in TENSORS), dtype=np.int64) * 1000 + slot)


def evaluation(slot: int) -> bytes:
    """Return an exact evaluation."""
    figures = Figures(predictor=Predictor.FEDERATED, ade_um=512_345, fde_um=1_234_567, miss_ppm=87_654)
    return canonical.dump(Evaluation(version=1, slot=slot, figures=(figures,)))


@dataclass
class Pair:
    """The coordinator's border and those of `zones`, joined by hand.

    Attributes:
        home: where `federation.create` made them.
        zones: the zones; each has a frozen snapshot `DATASET` once `prepare` has run.
        clock: the time of all borders.
    """

    home: Path
    zones: tuple[SiteId, ...] = (CN,)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    borders: dict[SiteId, border_app.Border] = field(init=False)

    def __post_init__(self) -> None:
        federation.create(self.home, plan(self.zones), self.clock)
        self.borders = {
            site: border_app.build(BorderSettings.load(self.home / site), self.clock) for site in (HQ, *self.zones)
        }

    def close(self) -> None:
        """Close the ledgers."""
        for border in self.borders.values():
            border.store.close()

    def keeper(self, site: SiteId) -> Keeper:
        """Return a site's keeper."""
        return self.borders[site].keeper

    @property
    def roots(self) -> Roots:
        """What an auditor was given by another way."""
        return canonical.load(Roots, (self.home / "roots.json").read_bytes())

    def evidence(self) -> dict[str, bytes]:
        """Return the bundle as it stands: each site's file by name."""
        return {f"{site}.json": canonical.dump(self.keeper(site).evidence()) for site in self.borders}

    # ---- the link

    def open(self, zone: SiteId) -> None:
        """Open the link of a zone: both memories are compared, then all heads exchanged."""
        near, far = self.keeper(zone), self.keeper(HQ)
        far.heads.opened(zone, near.opening(HQ))
        near.heads.opened(HQ, far.opening(zone))
        self.exchange(zone)

    def exchange(self, zone: SiteId) -> None:
        """Have both logs' heads cosigned both ways."""
        near, far = self.keeper(zone), self.keeper(HQ)
        near.heads.answered(HQ, far.exchange(zone, near.heads.heads(HQ, BOTH)))

    def cosign(self) -> None:
        """Have every head cosigned, and each side told what the other holds of it."""
        for zone in self.zones:
            self.open(zone)
            self.open(zone)

    def carry(self) -> int:
        """Carry all that waits, both ways, until nothing does; return how many crossings that were."""
        carried = 0
        while moved := sum(self.pass_on(*way) for zone in self.zones for way in ((HQ, zone), (zone, HQ))):
            carried += moved
        return carried

    def pass_on(self, sender: SiteId, receiver: SiteId) -> int:
        """Carry what waits one way; return how many crossings that were."""
        carried = 0
        while (crossing := self.keeper(sender).next_for(receiver)) is not None:
            pieces = list(self.keeper(sender).blob(receiver, crossing.payload)[1])
            receipt = self.keeper(receiver).inbound.receive(sender, crossing.envelope, pieces)
            self.keeper(sender).receipted(receiver, receipt)
            carried += 1
        return carried

    # ---- a zone's side

    def prepare(self) -> None:
        """In every zone, register a file of sealed motion and freeze the snapshot."""
        for number, zone in enumerate(self.zones):
            self._ingest(zone, FileId(f"file-{number:032x}"))

    def _ingest(self, zone: SiteId, file: FileId) -> None:
        session = SigningKey.generate()
        to = self.keeper(zone).files.start_session(SessionRequest(key=session.verify_key)).sealing
        envelopes = []
        for group in (Group.DRIVES, Group.MOTION):
            digest = Digest.of(f"{file}{group}".encode())
            context = file_key_context(DATASET.dataset, file, group, digest)
            sidecar = Sidecar(
                version=1,
                dataset=DATASET.dataset,
                file=file,
                group=group,
                object_name=f"{file}.{group}",
                digest=digest,
                size=1000,
                rows=10,
                wrapped_key=canonical.to_base64(wrap(bytes(32), to, context=context)),
            )
            envelopes.append(session.sign(SIDECAR_TYPE, canonical.dump(sidecar)).decode())
        self.keeper(zone).files.register(RegisterFiles(envelopes=tuple(envelopes)))
        self.keeper(zone).files.freeze(FreezeSnapshot(dataset=DATASET, files=(file,)))

    def take_keys(self, zone: SiteId, order: OrderId) -> None:
        """Have the keys of an order released to a run."""
        run = SealingKey.generate().public
        request = KeyRequest(order=order, groups=(Group.MOTION,), accelerators=(Name("cpu"),), run_key=run)
        self.keeper(zone).files.grant(request)

    def release(
        self, zone: SiteId, order: OrderId, kind: Kind, slot: int, payload: bytes, vehicles: int = 20
    ) -> CandidateStatus:
        """Hand in a candidate that derives from data."""
        header = CandidateHeader(
            order=order,
            kind=kind,
            recipient=HQ,
            slot=slot,
            size=len(payload),
            contributors=Contributors(vehicles=vehicles, windows=2000),
        )
        return self.keeper(zone).outbound.submit(InsideRole.COMPUTE, header, payload)

    def held(self, zone: SiteId) -> tuple[ReviewItem, ...]:
        """Return what waits for officers."""
        return self.keeper(zone).review.waiting().items

    def approve(self, zone: SiteId, *, standing: bool = True, who: Iterable[PersonId] = ()) -> None:
        """Have `who` (both officers) approve everything that is held."""
        for item in self.held(zone):
            for person in who or officers(zone):
                key = federation.officer_key(self.home, person)
                body = item.standing if standing else item.single
                signed = key.sign(STANDING_APPROVAL_TYPE if standing else APPROVAL_TYPE, canonical.dump(body))
                self.keeper(zone).review.approve(SignedStatement(envelope=signed.decode()))

    def reject(self, zone: SiteId) -> None:
        """Have one officer reject the first thing that is held."""
        manifest = self.held(zone)[0].manifest
        body = Rejection(version=1, zone=zone, crossing=manifest.crossing, sealed=manifest.payload.digest)
        signed = federation.officer_key(self.home, officers(zone)[0]).sign(REJECTION_TYPE, canonical.dump(body))
        self.keeper(zone).review.reject(SignedStatement(envelope=signed.decode()))

    # ---- the coordinator's side

    def order(
        self,
        zone: SiteId,
        *,
        job: JobId = JOB,
        rounds: int = 2,
        dataset: DatasetRef = DATASET,
        recipients: tuple[SiteId, ...] | None = None,
        privacy: TrainingPrivacy | None = None,
    ) -> OrderId:
        """Give a zone an order for updates and evaluations; return its id. It has not been carried yet."""
        order = Order(
            version=1,
            job=job,
            issuer=HQ,
            zone=zone,
            algorithm=ALGORITHM,
            dataset=dataset,
            groups=(Group.MOTION,),
            purpose=PURPOSE,
            recipients=recipients or tuple(sorted((HQ, *self.zones))),
            outputs=(Kind.AGGREGATE, Kind.MODEL_UPDATE),
            training=TrainingPlan(
                rounds=rounds,
                epochs=1,
                batch_size=16,
                learning_rate_micro=1000,
                seed=1,
                weighting=Weighting.WINDOWS,
                held_out_vehicles=10,
                split_salt=Name("salt"),
                adaptation_epochs=0,
                reference_epochs=0,
                privacy=privacy,
            ),
            evaluation=EvaluationPlan(at_slots=(0, rounds), band_um=10_000, minimum_vehicles=10),
            tensors=TENSORS,
            clip_norm_micro=10_000_000,
            base=None,
            issued_at=self.clock.now(),
            expires_at=self.clock.now() + 86_400,
        )
        return self._give(order)

    def _give(self, order: Order) -> OrderId:
        """Have the coordinator give an order; return its id."""
        body, id_ = canonical.dump(order), order_id(order)
        header = CandidateHeader(order=id_, kind=Kind.ORDER, recipient=order.zone, slot=0, size=len(body))
        self.keeper(HQ).submit(InsideRole.SUBMITTER, header, body)
        return id_

    def send_model(
        self, zone: SiteId, order: OrderId, slot: int, payload: bytes, inputs: Iterable[CrossingId] = ()
    ) -> CandidateStatus:
        """Send a zone a model."""
        header = CandidateHeader(
            order=order,
            kind=Kind.MODEL,
            recipient=zone,
            slot=slot,
            size=len(payload),
            inputs=tuple(sorted(inputs)),
        )
        return self.keeper(HQ).outbound.submit(InsideRole.SUBMITTER, header, payload)

    # ---- a whole job

    def work(self, *, job: JobId = JOB, rounds: int = 2) -> dict[SiteId, OrderId]:
        """Run a whole job: orders, models, updates held and approved, evaluations, closed orders, heads cosigned."""
        orders = {zone: self.order(zone, job=job, rounds=rounds) for zone in self.zones}
        self.carry()
        for zone in self.zones:
            self.take_keys(zone, orders[zone])
        inputs: list[CrossingId] = []
        for slot in range(rounds + 1):
            self.clock.advance(7)
            for zone, order in orders.items():
                self.send_model(zone, order, slot, model(float(slot)), inputs)
            self.carry()
            inputs = [crossing_id(order, Kind.MODEL_UPDATE, HQ, slot) for order in orders.values() if slot < rounds]
            for zone, order in orders.items():
                self._answer(zone, order, slot, rounds)
            self.carry()
        for zone, order in orders.items():
            self.keeper(zone).close_order(CloseOrder(order=order))
        self.cosign()
        return orders

    def train(
        self,
        zone: SiteId,
        job: JobId,
        *,
        rounds: int = 3,
        handed_in: int | None = None,
        keys: bool = True,
        closed: bool = True,
        privacy: TrainingPrivacy = PRIVACY,
    ) -> OrderId:
        """Have a zone train under differential privacy: some of its rounds, or none where its keys stay in."""
        order = self.order(zone, job=job, rounds=rounds, privacy=privacy)
        self.carry()
        if keys:
            self.take_keys(zone, order)
        inputs: list[CrossingId] = []
        for slot in range((rounds if handed_in is None else handed_in) if keys else 0):
            self.send_model(zone, order, slot, model(float(slot)), inputs)
            self.carry()
            self.release(zone, order, Kind.MODEL_UPDATE, slot, total(slot))
            self.approve(zone)
            self.carry()
            inputs = [crossing_id(order, Kind.MODEL_UPDATE, HQ, slot)]
        if closed:
            self.keeper(zone).close_order(CloseOrder(order=order))
        self.cosign()
        return order

    def ask(
        self, zone: SiteId, job: JobId, query: QueryPlan | None = None, *, answered: bool = True, approved: bool = True
    ) -> OrderId:
        """Ask a zone a question; have it answered at its slot and closed, left to its officers, or only closed."""
        asked = query or plan_of_question()
        order = Order(
            version=1,
            job=job,
            issuer=HQ,
            zone=zone,
            algorithm=STATISTICS,
            dataset=DATASET,
            groups=(Group.DRIVES,),
            purpose=PURPOSE,
            recipients=tuple(sorted((HQ, *self.zones))),
            outputs=(Kind.AGGREGATE,),
            training=None,
            evaluation=None,
            query=asked,
            tensors=(),
            clip_norm_micro=1,
            base=None,
            issued_at=self.clock.now(),
            expires_at=self.clock.now() + 86_400,
        )
        id_ = self._give(order)
        self.carry()
        if answered:
            sums_ = canonical.dump(sums(asked))
            self.keeper(zone).submit(InsideRole.COMPUTE, self._sums_header(id_, sums_), sums_)
            self.clock.advance(asked.slot_s)
            self.keeper(zone).statistics.release_due()
            if not approved:
                return id_
            self.approve(zone)
            self.carry()
        self.keeper(zone).close_order(CloseOrder(order=id_))
        self.cosign()
        return id_

    def _sums_header(self, order: OrderId, body: bytes) -> CandidateHeader:
        return CandidateHeader(
            order=order,
            kind=Kind.AGGREGATE,
            recipient=HQ,
            slot=0,
            size=len(body),
            contributors=Contributors(vehicles=400, windows=800),
        )

    def _answer(self, zone: SiteId, order: OrderId, slot: int, rounds: int) -> None:
        if slot < rounds:
            self.release(zone, order, Kind.MODEL_UPDATE, slot, model(0.25 + slot))
        if slot in {0, rounds}:
            self.release(zone, order, Kind.AGGREGATE, slot, evaluation(slot))
        if self.held(zone):
            self.approve(zone)
