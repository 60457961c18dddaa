"""Where a payload comes from and whom it may go on to: computed from the ledger, never taken from its maker.

A model holds the data of every release its job has taken in, whatever its maker says, and may go only where all of
them may. A job that starts from a known model, or sends the bytes of one, inherits what that model holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.border.keeper.desk import manifest_of
from isthmus.contracts.crossings import RELEASES, Kind, Manifest
from isthmus.contracts.errors import Code, Refusal
from isthmus.contracts.identifiers import Digest, JobId, SiteId

if TYPE_CHECKING:
    from isthmus.border.keeper.desk import Desk
    from isthmus.border.keeper.ledger import Transaction
    from isthmus.contracts.inside import CandidateHeader
    from isthmus.contracts.orders import Order


@dataclass(frozen=True, slots=True)
class Origin:
    """What the ledger says of a payload's origin, at one moment."""

    lineage: tuple[SiteId, ...]
    named: tuple[SiteId, ...]
    commitments: tuple[Digest, ...]
    now: int


class Origins:
    """Looks origins up, and keeps what each job has taken in."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def of(self, tx: Transaction, order: Order, header: CandidateHeader) -> Origin:
        """Look up where a payload comes from and whom it may go on to."""
        lineage, named = self._lineage(tx, order, header.kind, header.recipient)
        commitments = self._commitments(tx, order) if header.kind in RELEASES else ()
        return Origin(lineage, named, commitments, self._desk.now(tx))

    def with_lineage(self, tx: Transaction, manifest: Manifest) -> Manifest:
        """Return a model's manifest with the lineage it has now."""
        order = self._desk.order(tx, manifest.order)
        if order is None:
            raise Refusal(Code.ORDER_UNKNOWN, "No such order stands in this border's ledger.")
        lineage, named = self._lineage(tx, order.order, manifest.kind, manifest.recipient)
        return manifest.model_copy(update={"lineage": lineage, "recipients": named})

    def _lineage(
        self, tx: Transaction, order: Order, kind: Kind, recipient: SiteId
    ) -> tuple[tuple[SiteId, ...], tuple[SiteId, ...]]:
        """Return what zones' data a payload holds, and whom it may go on to.

        A model holds the data of every release this job has taken in, whatever its maker says, and may go only where
        all of them may.
        """
        if kind in RELEASES:
            return (self._desk.site,), order.recipients
        if kind is not Kind.MODEL:
            return (), (recipient,)
        rows = tx.execute("SELECT site, recipients FROM taint WHERE job = ?", order.job).fetchall()
        named = set(order.recipients)
        for row in rows:
            named &= set(json.loads(row["recipients"]))
        return tuple(sorted({SiteId(row["site"]) for row in rows})), tuple(sorted(SiteId(n) for n in named))

    def _commitments(self, tx: Transaction, order: Order) -> tuple[Digest, ...]:
        row = tx.row(
            "SELECT commitment FROM snapshot WHERE dataset = ? AND snapshot = ?",
            order.dataset.dataset,
            order.dataset.snapshot,
        )
        return (Digest(row["commitment"]),) if row else ()

    def inherit(self, tx: Transaction, job: JobId, model: Digest) -> None:
        """Let a model that crossed under another job before keep the lineage it had: its bytes hold the same data."""
        rows = tx.execute(
            "SELECT envelope FROM crossing INDEXED BY model_by_plaintext"
            " WHERE direction = 'out' AND kind = 'model' AND plaintext = ? AND job != ? AND envelope IS NOT NULL",
            model,
            job,
        ).fetchall()
        for earlier in (manifest_of(bytes(row["envelope"])) for row in rows):
            named = json.dumps(list(earlier.recipients))
            for site in earlier.lineage:
                tx.execute("INSERT OR IGNORE INTO taint VALUES(?, ?, ?)", job, site, named)

    def inherit_base(self, tx: Transaction, order: Order) -> None:
        """Let the job of an order inherit what the model holds that it starts from."""
        if order.base is not None:
            tx.execute(
                "INSERT OR IGNORE INTO taint SELECT ?, site, recipients FROM taint WHERE job = ?",
                order.job,
                self.job_of(tx, order.base),
            )

    def job_of(self, tx: Transaction, model: Digest) -> str | None:
        """Return the job that a model crossed under, None where it never crossed this border."""
        row = tx.row(
            "SELECT job FROM crossing INDEXED BY model_by_plaintext"
            " WHERE direction = 'out' AND kind = 'model' AND plaintext = ?",
            model,
        )
        return row["job"] if row else None
