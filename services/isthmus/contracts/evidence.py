"""What the verifier of an evidence bundle says: findings, each with a stable code, and what was examined.

A bundle holds one `contracts.inside.Evidence` a site. It is accepted only with no failed finding.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated

from pydantic import Field

from isthmus.contracts.crossings import Kind
from isthmus.contracts.identifiers import CrossingId, Digest, SiteId
from isthmus.contracts.ledger import Log
from isthmus.contracts.wire import Count, Wire


@unique
class Severity(StrEnum):
    """What a finding means for the bundle."""

    FAILED = "failed"
    REPORTED = "reported"


@unique
class FindingCode(StrEnum):
    """The closed list of findings. The reference page says what each means."""

    # what the bundle holds
    ROOTS_REPEAT_A_SITE = "roots_repeat_a_site"
    SITE_MISSING = "site_missing"
    SITE_UNKNOWN = "site_unknown"
    EVIDENCE_MALFORMED = "evidence_malformed"
    # genesis
    GENESIS_DIFFERS = "genesis_differs"
    GENESIS_REPEATED = "genesis_repeated"
    ROOT_KEY_DIFFERS = "root_key_differs"
    GENESES_DISAGREE = "geneses_disagree"
    SITE_WITHOUT_ROOT = "site_without_root"
    # logs
    ENTRY_MALFORMED = "entry_malformed"
    TIME_RUNS_BACKWARDS = "time_runs_backwards"
    CHECKPOINT_INVALID = "checkpoint_invalid"
    LOG_ALTERED = "log_altered"
    COSIGNATURE_INVALID = "cosignature_invalid"
    LOG_FORKED = "log_forked"
    LOG_ROLLED_BACK = "log_rolled_back"
    WITNESS_MISSING = "witness_missing"
    NEVER_COSIGNED = "never_cosigned"
    NOT_YET_COSIGNED = "not_yet_cosigned"
    # crossings
    SENDER_UNKNOWN = "sender_unknown"
    ENVELOPE_INVALID = "envelope_invalid"
    MISDIRECTED = "misdirected"
    ID_MISMATCH = "id_mismatch"
    CROSSING_TWICE = "crossing_twice"
    SEQUENCE_BROKEN = "sequence_broken"
    KIND_NOT_ALLOWED = "kind_not_allowed"
    EXTRACT_WITHOUT_PERMIT = "extract_without_permit"
    SIZE_MISSTATED = "size_misstated"
    POLICY_DIFFERS = "policy_differs"
    NOT_IN_SENDERS_LEDGER = "not_in_senders_ledger"
    NOT_IN_RECEIVERS_LEDGER = "not_in_receivers_ledger"
    ENVELOPES_DIFFER = "envelopes_differ"
    IN_FLIGHT = "in_flight"
    RECEIPT_INVALID = "receipt_invalid"
    RECEIPT_DIFFERS = "receipt_differs"
    RECEIPT_MISSING = "receipt_missing"
    RECEIPT_AWAITED = "receipt_awaited"
    RECEIPT_UNKNOWN = "receipt_unknown"
    # decisions
    DRAFT_MISSING = "draft_missing"
    DECISION_MISSING = "decision_missing"
    CROSSING_UNLOGGED = "crossing_unlogged"
    RELEASED_AFTER_REJECTION = "released_after_rejection"
    # orders, keys, budget
    ORDER_BODY_MISSING = "order_body_missing"
    ORDER_ID_MISMATCH = "order_id_mismatch"
    ORDER_NOT_ACCEPTED = "order_not_accepted"
    ORDER_UNKNOWN = "order_unknown"
    ORDER_DIFFERS = "order_differs"
    ORDER_OVER = "order_over"
    NOT_ASKED_FOR = "not_asked_for"
    ALGORITHM_UNKNOWN = "algorithm_unknown"
    KEYS_WITHOUT_ORDER = "keys_without_order"
    ACCELERATOR_NOT_PERMITTED = "accelerator_not_permitted"
    SLOT_TOO_SHORT = "slot_too_short"
    BUDGET_OVERSPENT = "budget_overspent"
    BUDGET_DISAGREES = "budget_disagrees"
    QUOTA_EXCEEDED = "quota_exceeded"
    PRIVACY_OVERSPENT = "privacy_overspent"
    PRIVACY_DISAGREES = "privacy_disagrees"
    # releases and models
    APPROVAL_INVALID = "approval_invalid"
    APPROVAL_BY_ENGINEER = "approval_by_engineer"
    APPROVAL_MISSING = "approval_missing"
    APPROVAL_NOT_COVERING = "approval_not_covering"
    TOO_FEW_ORGANISATIONS = "too_few_organisations"
    DATASET_NOT_FROZEN = "dataset_not_frozen"
    CHECKS_MISSING = "checks_missing"
    LINEAGE_INCOMPLETE = "lineage_incomplete"
    RECIPIENT_NOT_NAMED = "recipient_not_named"
    # what the ledgers themselves report
    LINK_HALTED = "link_halted"
    PEER_REFUSED = "peer_refused"


REPORTED = frozenset(
    {
        FindingCode.NOT_YET_COSIGNED,
        FindingCode.IN_FLIGHT,
        FindingCode.RECEIPT_AWAITED,
        FindingCode.LINK_HALTED,
        FindingCode.PEER_REFUSED,
    }
)
"""Findings that a reader should know and that do not speak against the bundle. All others fail it."""


@unique
class Examined(StrEnum):
    """What was counted while it was examined."""

    GENESES = "geneses"
    ENTRIES = "entries"
    CHECKPOINTS = "checkpoints"
    COSIGNED_HEADS = "cosigned_heads"
    WITNESSED_HEADS = "witnessed_heads"
    ENVELOPES = "envelopes"
    RECEIPTS = "receipts"
    DECISIONS = "decisions"
    ORDERS = "orders"
    KEY_RELEASES = "key_releases"
    APPROVALS = "approvals"
    RELEASES = "releases"
    QUESTIONS = "questions"
    TRAININGS = "trainings"
    MODELS = "models"


class Finding(Wire):
    """One finding. `detail` is in the verifier's own words: it never quotes a bundle's text."""

    code: FindingCode
    severity: Severity
    site: SiteId | None
    log: Log | None
    index: Count | None
    crossing: CrossingId | None
    detail: Annotated[str, Field(max_length=256)]


class LogVerdict(Wire):
    """One log of a site as recomputed from its entries; `uncosigned` newest entries no peer holds a head of yet."""

    log: Log
    size: Count
    root: Digest
    uncosigned: Count


class SiteVerdict(Wire):
    """One site: its logs, and whether no finding of this site failed."""

    site: SiteId
    logs: tuple[LogVerdict, ...]
    verified: bool


class KindTotal(Wire):
    """What crossed of one kind, each crossing once, as its sender logged it; `refused` of them by their receiver."""

    kind: Kind
    count: Count
    refused: Count
    sealed_bytes: Count
    information_bits: Count


class Report(Wire):
    """The verifier's answer.

    Attributes:
        accepted: no finding failed.
        findings: in order of code; the first thousand.
        findings_left_out: how many more there are.
        examined: how much of each was looked at.
        sites: each site that roots and bundle both name.
        crossings: totals by kind.
        information_bound_bits: payload bits of all releases of zones: an upper bound of what they can say.
            Totals stop at 2^53.
        not_claimed: what acceptance does not mean.
    """

    accepted: bool
    findings: tuple[Finding, ...]
    findings_left_out: Count
    examined: dict[Examined, Count]
    sites: tuple[SiteVerdict, ...]
    crossings: tuple[KindTotal, ...]
    information_bound_bits: Count
    not_claimed: tuple[str, ...]
