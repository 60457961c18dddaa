"""Everything that can go wrong, by code.

    IsthmusError
    ├── Refusal   a rule said no: the request, the crossing or the file is at fault
    └── Fault     the machine said no: a disk is full, a peer is away; nothing was decided

A `Code` is stable and public: it is the only part of an error that may leave a site. What happened, why, and what to
do about it stay at home, in the answer to the local caller and in the log.
"""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Code(StrEnum):
    """The closed list of reasons. Adding one is a change of the wire format."""

    # what was received
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    UNKNOWN_KIND = "unknown_kind"
    SIGNATURE_INVALID = "signature_invalid"
    SENDER_UNKNOWN = "sender_unknown"
    WRONG_RECIPIENT = "wrong_recipient"
    ID_MISMATCH = "id_mismatch"
    REPLAYED = "replayed"
    OUT_OF_SEQUENCE = "out_of_sequence"
    CONFLICTING_PAYLOAD = "conflicting_payload"
    PAYLOAD_ALTERED = "payload_altered"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    # what was asked
    POLICY_DENIED = "policy_denied"
    POLICY_UNAVAILABLE = "policy_unavailable"
    PERMIT_MISSING = "permit_missing"
    APPROVAL_MISSING = "approval_missing"
    APPROVAL_INVALID = "approval_invalid"
    ALGORITHM_UNKNOWN = "algorithm_unknown"
    DATASET_UNKNOWN = "dataset_unknown"
    GROUP_NOT_IN_ORDER = "group_not_in_order"
    ACCELERATOR_NOT_PERMITTED = "accelerator_not_permitted"
    ORDER_UNKNOWN = "order_unknown"
    ORDER_CLOSED = "order_closed"
    ORDER_DUPLICATE = "order_duplicate"
    QUOTA_EXCEEDED = "quota_exceeded"
    BUDGET_EXHAUSTED = "budget_exhausted"
    RECIPIENT_NOT_NAMED = "recipient_not_named"
    SLOT_UNEXPECTED = "slot_unexpected"
    SLOT_TOO_SHORT = "slot_too_short"
    TOO_FEW_CONTRIBUTORS = "too_few_contributors"
    NOT_RELEASED = "not_released"
    QUERY_INVALID = "query_invalid"
    QUERY_NAME_UNKNOWN = "query_name_unknown"
    QUERY_TOO_WIDE = "query_too_wide"
    # what a payload held
    SCHEMA_MISMATCH = "schema_mismatch"
    NOT_FINITE = "not_finite"
    # who asked
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    STATE_CONFLICT = "state_conflict"
    # evidence
    LEDGER_FORKED = "ledger_forked"
    LEDGER_ROLLED_BACK = "ledger_rolled_back"
    HEAD_BEHIND = "head_behind"
    LINK_HALTED = "link_halted"
    EVIDENCE_INVALID = "evidence_invalid"
    # what was stored
    FILE_ALTERED = "file_altered"
    FILE_UNREGISTERED = "file_unregistered"
    ALREADY_EXISTS = "already_exists"
    INPUT_INVALID = "input_invalid"
    # what the machine could not do
    STORAGE_FAILED = "storage_failed"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    PEER_UNREACHABLE = "peer_unreachable"
    COMPUTE_FAILED = "compute_failed"
    CONFIGURATION = "configuration"


class IsthmusError(Exception):
    """What happened, why, what to do; and the one code of it that may cross.

    Attributes:
        code: the stable code.
        what: what happened, one sentence.
        why: the cause, where it is known.
        remedy: what the reader can do.
    """

    def __init__(self, code: Code, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: code, what, why, remedy."""
        return f"{self.code}: " + " ".join(part for part in (self.what, self.why, self.remedy) if part)


class Refusal(IsthmusError):
    """A rule said no. Trying again unchanged will not help."""


class Fault(IsthmusError):
    """The machine said no. Nothing was decided; trying again may help."""
