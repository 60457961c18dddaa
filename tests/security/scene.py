"""The stage of the attacks: a coordinator's border and two zones' borders, the shipped ones, driven by keeper calls.

Orders stand in both zones; there is no training: payloads are small models of the orders' schema. `Picture` is what an
attack must leave as it was.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from isthmus.border import app as border_app
from isthmus.border.settings import BorderSettings
from isthmus.cli import federation
from isthmus.contracts.approvals import APPROVAL_TYPE
from isthmus.contracts.crossings import Contributors, Kind
from isthmus.contracts.errors import Code, IsthmusError
from isthmus.contracts.identifiers import Digest, FileId, JobId, Name, PersonId, SiteId
from isthmus.contracts.inside import (
    SIDECAR_TYPE,
    CandidateHeader,
    CandidateStatus,
    FreezeSnapshot,
    InsideRole,
    KeyGrant,
    KeyRequest,
    RegisterFiles,
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
    Weighting,
)
from isthmus.contracts.raw_table import Group
from isthmus.contracts.tensors import TensorSpec
from isthmus.kit.clock import ManualClock
from isthmus.learning import algorithm, weights
from isthmus.proof import canonical
from isthmus.proof.ids import file_key_context, order_id
from isthmus.proof.sealing import SealingKey, wrap
from isthmus.proof.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isthmus.border.keeper.keeper import Keeper
    from isthmus.contracts.identifiers import OrderId
    from isthmus.contracts.wire import Wire

HQ, CN, US = SiteId("hq"), SiteId("cn-shanghai"), SiteId("us-texas")
SITES, ZONES = (HQ, CN, US), (CN, US)
BOTH = (Log.CROSSINGS, Log.INTERNAL)
NOW = 1_800_000_000
HOUR, DAY = 3_600, 86_400
DATASET = DatasetRef(dataset=Name("drives"), snapshot=Name("2026q4"))
PURPOSE = Name("forecast-training")
TENSORS = (TensorSpec(name="bias", shape=(3,)), TensorSpec(name="weight", shape=(4, 3)))
ALGORITHM = Algorithm(name=Name(algorithm.NAME), digest=algorithm.digest())
JOB = JobId("job-00000000000000aa")
ROUNDS = 2
CLIP = 10.0
BAND_UM = 10_000


def file_of(zone: SiteId) -> FileId:
    """Return the id of the one file that a zone has."""
    return FileId("file-" + Digest.of(zone.encode()).raw.hex()[:32])


def model(value: float = 0.5) -> bytes:
    """Return a model of the orders' schema with every number `value`."""
    return weights.encode({spec.name: np.full(spec.shape, value, np.float32) for spec in TENSORS})


def evaluation(slot: int = 0, ade_um: int = 512_345) -> bytes:
    """Return an evaluation; as it stands it is finer than the band."""
    figures = Figures(predictor=Predictor.FEDERATED, ade_um=ade_um, fde_um=1_230_000, miss_ppm=80_000)
    return canonical.dump(Evaluation(version=1, slot=slot, figures=(figures,)))


def order_for(zone: SiteId, **changes: Any) -> Order:
    """Return an order for updates and evaluations."""
    values: dict[str, Any] = {
        "version": 1,
        "job": JOB,
        "issuer": HQ,
        "zone": zone,
        "algorithm": ALGORITHM,
        "dataset": DATASET,
        "groups": (Group.MOTION,),
        "purpose": PURPOSE,
        "recipients": tuple(sorted(SITES)),
        "outputs": (Kind.AGGREGATE, Kind.MODEL_UPDATE),
        "training": TrainingPlan(
            rounds=ROUNDS,
            epochs=1,
            batch_size=16,
            learning_rate_micro=1000,
            seed=1,
            weighting=Weighting.WINDOWS,
            held_out_vehicles=10,
            split_salt=Name("salt"),
            adaptation_epochs=0,
            reference_epochs=0,
        ),
        "evaluation": EvaluationPlan(at_slots=(0, ROUNDS), band_um=BAND_UM, minimum_vehicles=10),
        "tensors": TENSORS,
        "clip_norm_micro": round(CLIP * 1_000_000),
        "base": None,
        "issued_at": NOW,
        "expires_at": NOW + DAY,
    }
    return Order(**{**values, **changes})


@dataclass(frozen=True)
class Picture:
    """All of a border that an attack must not change.

    Attributes:
        crossings: entries of the log of crossings, as verdict, code and envelope.
        internal: entries of the internal log.
        deliveries: what the site behind the border was handed.
        budget: orders with what they reserved and spent.
        blobs: sealed payloads on disk.
    """

    crossings: tuple[tuple[str, str | None, str], ...]
    internal: tuple[dict[str, Any], ...]
    deliveries: tuple[str, ...]
    budget: tuple[tuple[Any, ...], ...]
    blobs: frozenset[str]

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the internal entries of one kind."""
        return [entry for entry in self.internal if entry["event"] == event]


class Scene:
    """The borders of a federation in one process, all at one time."""

    def __init__(self, home: Path, clock: ManualClock | None = None) -> None:
        self.home = home
        self.clock = clock or ManualClock(NOW)
        self._running: dict[SiteId, border_app.Border] = {}

    def border(self, site: SiteId) -> border_app.Border:
        """Return a site's border; it starts when it is first asked for."""
        if site not in self._running:
            self._running[site] = border_app.build(BorderSettings.load(self.home / site), self.clock)
        return self._running[site]

    def stop(self, site: SiteId) -> None:
        """Stop a border: what it had in memory is gone."""
        self._running.pop(site).store.close()

    def forget(self, site: SiteId) -> None:
        """Drop a border that is past closing."""
        del self._running[site]

    def close(self) -> None:
        for site in tuple(self._running):
            self.stop(site)

    def keeper(self, site: SiteId) -> Keeper:
        return self.border(site).keeper

    def picture(self, site: SiteId) -> Picture:
        """Return a border as it stands."""
        keeper = self.keeper(site)
        entries = {log: [json.loads(text) for text in keeper.entries(log, 0).entries] for log in BOTH}
        with self.border(site).store.transaction() as tx:
            budget = [tuple(row) for row in tx.execute("SELECT id, state, reserved_bits, spent_bits FROM orders")]
        return Picture(
            crossings=tuple((e["verdict"], e["code"], e["envelope"]) for e in entries[Log.CROSSINGS]),
            internal=tuple(entries[Log.INTERNAL]),
            deliveries=tuple(item.model_dump_json() for item in keeper.inbound.deliveries(0).items),
            budget=tuple(sorted(budget)),
            blobs=frozenset(p.name for p in (self.home / site / "blobs").iterdir() if not p.name.startswith("free-")),
        )

    # ---- what the sites do

    def give(self, order: Order) -> CandidateStatus:
        """Have the coordinator give an order."""
        body = canonical.dump(order)
        header = CandidateHeader(order=order_id(order), kind=Kind.ORDER, recipient=order.zone, slot=0, size=len(body))
        return self.keeper(HQ).outbound.submit(InsideRole.SUBMITTER, header, body)

    def send_model(self, order: Order, slot: int, payload: bytes, **changes: Any) -> CandidateStatus:
        """Have the coordinator send a model."""
        header = CandidateHeader(
            order=order_id(order), kind=Kind.MODEL, recipient=order.zone, slot=slot, size=len(payload), **changes
        )
        return self.keeper(HQ).outbound.submit(InsideRole.SUBMITTER, header, payload)

    def release(self, order: Order, kind: Kind, slot: int, payload: bytes, **changes: Any) -> CandidateStatus:
        """Have a zone's compute hand in a candidate."""
        values = {"recipient": HQ, "contributors": Contributors(vehicles=24, windows=2345), **changes}
        header = CandidateHeader(order=order_id(order), kind=kind, slot=slot, size=len(payload), **values)
        return self.keeper(order.zone).outbound.submit(InsideRole.COMPUTE, header, payload)

    def pass_on(self, sender: SiteId, receiver: SiteId) -> int:
        """Carry what waits one way; return how many crossings that were."""
        carried = 0
        while (crossing := self.keeper(sender).next_for(receiver)) is not None:
            pieces = list(self.keeper(sender).blob(receiver, crossing.payload)[1])
            receipt = self.keeper(receiver).inbound.receive(sender, crossing.envelope, pieces)
            self.keeper(sender).receipted(receiver, receipt)
            carried += 1
        return carried

    def carry(self) -> None:
        """Carry all that waits, both ways, until nothing does."""
        while sum(self.pass_on(*way) for zone in ZONES for way in ((HQ, zone), (zone, HQ))):
            pass

    def open_link(self, zone: SiteId) -> None:
        """Compare both memories, then have all heads cosigned both ways."""
        near, far = self.keeper(zone), self.keeper(HQ)
        far.heads.opened(zone, near.opening(HQ))
        near.heads.opened(HQ, far.opening(zone))
        near.heads.answered(HQ, far.exchange(zone, near.heads.heads(HQ, BOTH)))

    def cosign(self) -> None:
        """Have every head cosigned, and each side told what the other holds of it."""
        for zone in ZONES:
            self.open_link(zone)
            self.open_link(zone)

    def ingest(self, zone: SiteId, groups: tuple[Group, ...] = (Group.IDENTITY, Group.MOTION)) -> None:
        """Register one file of sealed groups and freeze the snapshot."""
        session = SigningKey.generate()
        files = self.keeper(zone).files
        to = files.start_session(SessionRequest(key=session.verify_key)).sealing
        envelopes = []
        for group in groups:
            digest = Digest.of(f"{zone}{group}".encode())
            context = file_key_context(DATASET.dataset, file_of(zone), group, digest)
            sidecar = Sidecar(
                version=1,
                dataset=DATASET.dataset,
                file=file_of(zone),
                group=group,
                object_name=f"{file_of(zone)}.{group}",
                digest=digest,
                size=1000,
                rows=10,
                wrapped_key=canonical.to_base64(wrap(bytes(32), to, context=context)),
            )
            envelopes.append(session.sign(SIDECAR_TYPE, canonical.dump(sidecar)).decode())
        files.register(RegisterFiles(envelopes=tuple(envelopes)))
        files.freeze(FreezeSnapshot(dataset=DATASET, files=(file_of(zone),)))


def set_up(home: Path, plan: federation.FederationPlan) -> None:
    """Make a federation whose zones hold a frozen snapshot, an accepted order and the first model of one job."""
    federation.create(home, plan, ManualClock(NOW))
    scene = Scene(home)
    for zone in ZONES:
        scene.ingest(zone)
        scene.give(order_for(zone))
        scene.send_model(order_for(zone), 0, model(0.0))
    scene.carry()
    scene.cosign()
    scene.close()


@contextmanager
def unharmed(
    scene: Scene, site: SiteId, *, turned_away: Code | None = None, refused: Code | None = None
) -> Iterator[None]:
    """Hold a border to an attack's leaving no trace but the one that is named.

    Args:
        scene: the borders.
        site: whose border is attacked.
        turned_away: the code of the one note in the internal log, of something that could not become a crossing.
        refused: the code of the one refused entry in the log of crossings, with its decision.
    """
    before = scene.picture(site)
    yield
    after = scene.picture(site)
    assert after.deliveries == before.deliveries
    assert after.budget == before.budget
    assert after.blobs == before.blobs
    new = after.crossings[len(before.crossings) :]
    assert [entry[:2] for entry in new] == ([("refused", refused.value)] if refused else [])
    noted = [(e["event"], e["code"]) for e in after.internal[len(before.internal) :]]
    expected = [("peer_refused", turned_away.value)] if turned_away else []
    assert noted == expected + ([("decided", refused.value)] if refused else [])


@contextmanager
def refusal(code: Code) -> Iterator[None]:
    """Expect an error of this code."""
    with pytest.raises(IsthmusError) as raised:
        yield
    assert raised.value.code is code, raised.value


CPU = (Name("cpu"),)


def grant_of(
    scene: Scene,
    zone: SiteId,
    order: OrderId,
    groups: tuple[Group, ...] = (Group.MOTION,),
    accelerators: tuple[Name, ...] = CPU,
) -> KeyGrant:
    """Ask a zone's border for an order's keys."""
    run = SealingKey.generate().public
    asked = KeyRequest(order=order, groups=groups, accelerators=accelerators, run_key=run)
    return scene.keeper(zone).files.grant(asked)


OFFICERS = {
    CN: (PersonId("lin.officer"), PersonId("wu.officer")),
    US: (PersonId("carter.officer"), PersonId("diaz.officer")),
}


def signed(scene: Scene, person: PersonId, payload_type: str, body: Wire) -> SignedStatement:
    """Have a person sign a statement."""
    envelope = federation.officer_key(scene.home, person).sign(payload_type, canonical.dump(body))
    return SignedStatement(envelope=envelope.decode())


def approve_all(scene: Scene, zone: SiteId) -> None:
    """Have both officers of a zone approve what is held, each release for itself."""
    review = scene.keeper(zone).review
    for item in review.waiting().items:
        for person in OFFICERS[zone]:
            review.approve(signed(scene, person, APPROVAL_TYPE, item.single))


def sent_manifest(envelope: str) -> dict[str, Any]:
    """Return the manifest of an envelope as it stands in an entry."""
    manifest: dict[str, Any] = json.loads(canonical.from_base64(json.loads(envelope)["payload"]))
    return manifest


def kinds_sent(scene: Scene, site: SiteId) -> list[str]:
    """Return the kinds of what a border has signed and logged to be sent."""
    return [sent_manifest(text)["kind"] for verdict, _, text in scene.picture(site).crossings if verdict == "sent"]
