"""What a payload must be before it is sealed, and again when it has been opened: bytes and an order in.

Every check is against the order that the ledger holds. Exact figures go in; what comes out is clipped, banded or noised
and may cross. All is pure but the noise of a private training's update: it is drawn anew each time.
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.border.keeper import questions
from isthmus.contracts.bands import VEHICLE_BAND, WINDOW_BAND, band_contributors, band_evaluation
from isthmus.contracts.crossings import Check, Contributors, Kind, Notice, PrivacyEvent
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.orders import GRAIN, Evaluation, Order, TrainingPlan, TrainingPrivacy
from isthmus.contracts.queries import Mode
from isthmus.contracts.tensors import MAX_ELEMENTS
from isthmus.learning import sums, weights
from isthmus.privacy import noise
from isthmus.privacy.training import noise_of
from isthmus.proof import canonical

Buffer = bytes | bytearray | memoryview

SMALL_LIMIT = 64 * 1024
"""Most bytes of a payload that is not a model."""

MICRO = 1_000_000
EVALUATION_RESERVE_BITS = 8 * 4096
"""What an order reserves for one evaluation: more than its canonical bytes can take."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A payload that passed, as it may cross.

    Attributes:
        data: the bytes to seal.
        checks: what was checked of them.
        privacy: the protections that were applied to them, here.
        contributors: banded, where there are any to be told.
    """

    data: Buffer
    checks: tuple[Check, ...] = ()
    privacy: tuple[PrivacyEvent, ...] = ()
    contributors: Contributors | None = None


def payload_limit(kind: Kind, order: Order | None) -> int:
    """Return the most bytes that a payload of `kind` may have."""
    if kind in {Kind.MODEL, Kind.MODEL_UPDATE}:
        return model_size(order) if order else SMALL_LIMIT
    if kind is Kind.AGGREGATE and order and order.query:
        return questions.answer_limit(order.query)
    return SMALL_LIMIT


def largest_payload() -> int:
    """Return the most bytes of any payload."""
    return 4 * MAX_ELEMENTS + SMALL_LIMIT


def model_size(order: Order) -> int:
    """Return the exact size of a model of the order's schema, in bytes."""
    return len(weights.header_bytes(order.tensors)) + 4 * sum(spec.elements for spec in order.tensors)


def reserved_bits(order: Order) -> int:
    """Return the payload bits that an order's releases can take at most."""
    updates = order.training.rounds * 8 * model_size(order) if order.training else 0
    aggregates = len(order.evaluation.at_slots) * EVALUATION_RESERVE_BITS if order.evaluation else 0
    answers = 8 * questions.answer_limit(order.query) if order.query else 0
    return updates + aggregates + answers


def cost(order: Order, kind: Kind) -> int:
    """Return what one release of `kind` costs, the same for every one: the charge says nothing of its content."""
    if kind is Kind.MODEL_UPDATE:
        return 8 * model_size(order)
    return 8 * questions.answer_limit(order.query) if order.query else EVALUATION_RESERVE_BITS


def is_private(order: Order, kind: Kind) -> bool:
    """Tell whether `kind` under `order` is an update that the border noises."""
    return kind is Kind.MODEL_UPDATE and order.training is not None and order.training.privacy is not None


def mode_of(order: Order, kind: Kind) -> str:
    """Return what protects vehicles in a crossing: a question's mode, `dp` for a private training, else nothing.

    A private training's order and updates are under `dp`; its evaluations are not protected.
    """
    if order.query is not None:
        return order.query.mode.value
    private = is_private(order, Kind.MODEL_UPDATE) and kind in {Kind.ORDER, Kind.MODEL_UPDATE}
    return Mode.DP.value if private else ""


def minimum_vehicles(order: Order, kind: Kind) -> int:
    """Return how many vehicles must stand behind a release."""
    if is_private(order, kind):
        return 0
    if order.query is not None:
        return 0 if order.query.mode is Mode.DP else VEHICLE_BAND
    return order.evaluation.minimum_vehicles if kind is Kind.AGGREGATE and order.evaluation else VEHICLE_BAND


def to_release(order: Order, kind: Kind, slot: int, data: Buffer, exact: Contributors | None) -> Checked:
    """Check a candidate that derives from data, and clip, band or noise it.

    Raises:
        Refusal: it is not what the order asked for.
    """
    if is_private(order, kind) and order.training and order.training.privacy:
        return _noised(order, order.training, order.training.privacy, data)
    if exact is None:
        raise Refusal(Code.TOO_FEW_CONTRIBUTORS, "A release says how many vehicles stand behind it.")
    if kind is Kind.MODEL_UPDATE:
        update = weights.decode(memoryview(data), order.tensors)
        bound = order.clip_norm_micro / MICRO
        clipped, norm = weights.clip(update, bound)
        return Checked(
            data if norm <= bound else weights.encode(clipped),
            tuple(sorted((Check.SCHEMA, Check.FINITE, Check.CLIPPED, Check.CONTRIBUTORS))),
            (PrivacyEvent(mechanism="l2_clip", parameter=order.clip_norm_micro, enforced_by="border"),),
            band_contributors(exact),
        )
    if kind is Kind.AGGREGATE and order.evaluation:
        evaluation = _evaluation(data, slot)
        return Checked(
            canonical.dump(band_evaluation(evaluation, order.evaluation.band_um)),
            tuple(sorted((Check.SCHEMA, Check.BANDED, Check.CONTRIBUTORS))),
            (PrivacyEvent(mechanism="band", parameter=order.evaluation.band_um, enforced_by="border"),),
            band_contributors(exact),
        )
    raise Refusal(Code.PERMIT_MISSING, f"No {kind} leaves without an authority's permit.")


def _noised(order: Order, plan: TrainingPlan, privacy: TrainingPrivacy, data: Buffer) -> Checked:
    """Make the update of a private training of its vehicles' exact sum: noise, division, clipping.

    No number of contributors: even a banded one would be a release that nobody paid for.
    """
    exact: list[int] = sums.decode(data, order.tensors).tolist()
    noised = noise.add(exact, "discrete_gaussian", noise_of(plan).deviation_micro)
    norm = privacy.vehicle_norm_micro / MICRO
    update, _ = weights.clip(
        sums.released(noised, order.tensors, norm, GRAIN, privacy.vehicles), order.clip_norm_micro / MICRO
    )
    return Checked(
        weights.encode(update),
        tuple(sorted((Check.SCHEMA, Check.FINITE, Check.CLIPPED, Check.NOISED))),
        (
            PrivacyEvent(mechanism="vehicle_clip", parameter=privacy.vehicle_norm_micro, enforced_by="zone"),
            PrivacyEvent(mechanism="differential_privacy", parameter=privacy.epsilon_micro, enforced_by="border"),
            PrivacyEvent(mechanism="l2_clip", parameter=order.clip_norm_micro, enforced_by="border"),
        ),
    )


def to_send(order: Order, kind: Kind, data: Buffer) -> Checked:
    """Check an order or a model before it is sent.

    Raises:
        Refusal: it is not what it should be.
    """
    if kind is Kind.ORDER:
        return Checked(canonical.dump(order), (Check.SCHEMA,))
    weights.decode(memoryview(data), order.tensors)
    return Checked(data, (Check.FINITE, Check.SCHEMA))


def opened(order: Order, kind: Kind, slot: int, data: Buffer) -> Checked:
    """Check a payload that came in, as if nobody had checked it before.

    Raises:
        Refusal: it is not what it should be.
    """
    if kind is Kind.MODEL:
        weights.decode(memoryview(data), order.tensors)
        return Checked(data, (Check.FINITE, Check.SCHEMA))
    if kind is Kind.MODEL_UPDATE:
        update = weights.decode(memoryview(data), order.tensors)
        if weights.l2_norm(update) > order.clip_norm_micro / MICRO:
            raise Refusal(Code.SCHEMA_MISMATCH, "An update is larger than the norm that its order allows.")
        return Checked(data, tuple(sorted((Check.SCHEMA, Check.FINITE, Check.CLIPPED))))
    if kind is Kind.AGGREGATE and order.evaluation:
        evaluation = _evaluation(data, slot)
        if evaluation != band_evaluation(evaluation, order.evaluation.band_um):
            raise Refusal(Code.SCHEMA_MISMATCH, "An evaluation is finer than the band that its order allows.")
        return Checked(data, tuple(sorted((Check.SCHEMA, Check.BANDED))))
    if kind is Kind.AGGREGATE and order.query:
        return Checked(data, questions.require_answer(order.query, data))
    if kind is Kind.NOTICE:
        canonical.load(Notice, bytes(data))
        return Checked(data, (Check.SCHEMA,))
    raise Refusal(Code.UNKNOWN_KIND, f"A {kind} cannot come in here.")


def is_banded(contributors: Contributors | None) -> bool:
    """Tell whether the numbers of a manifest's contributors are as coarse as they must be."""
    return contributors is None or (
        contributors.vehicles % VEHICLE_BAND == 0
        and contributors.windows % WINDOW_BAND == 0
        and contributors.vehicles > 0
        and contributors.windows > 0
    )


def _evaluation(data: Buffer, slot: int) -> Evaluation:
    evaluation = canonical.load(Evaluation, bytes(data), limit=SMALL_LIMIT)
    if evaluation.slot != slot:
        raise Refusal(Code.SLOT_UNEXPECTED, "An evaluation speaks of another slot than its crossing.")
    predictors = [figures.predictor for figures in evaluation.figures]
    if len(set(predictors)) != len(predictors):
        raise Refusal(Code.SCHEMA_MISMATCH, "An evaluation names a predictor twice.")
    return evaluation
