"""Identifiers and contexts that are derived, so that both sides of a border derive the same.

A crossing's id fixes what it is before it exists: one order, one kind, one recipient, one slot, hence one effect.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from isthmus.contracts.identifiers import CrossingId, Digest, FileId, Name, OrderId, SiteId
from isthmus.contracts.tables import TABLES
from isthmus.proof import canonical

if TYPE_CHECKING:
    from isthmus.contracts.crossings import Kind
    from isthmus.contracts.ledger import Log
    from isthmus.contracts.orders import Order
    from isthmus.contracts.queries import QuerySpec
    from isthmus.contracts.raw_table import Group


def order_id(order: Order) -> OrderId:
    """Return the id of `order`: the digest of its canonical bytes."""
    return OrderId.of(canonical.dump(order))


def crossing_id(order: OrderId, kind: Kind, recipient: SiteId, slot: int) -> CrossingId:
    """Return the id of the crossing of `kind` to `recipient` at `slot` of `order`."""
    return CrossingId.of(canonical.encode(["isthmus/crossing/v1", order, kind.value, recipient, slot]))


@functools.cache
def catalogue_digest() -> Digest:
    """Return the digest of the public catalogue of tables (`contracts.tables`) that is installed here."""
    tables = [dataclasses.asdict(table) for table in TABLES.values()]
    return Digest.of(canonical.encode(tables))


def question_digest(spec: QuerySpec) -> Digest:
    """Return the digest of a question: the same question has the same one."""
    return canonical.digest(spec)


def question_about(order: Order) -> Digest:
    """Return what names an order's question together with the frozen snapshot that it is asked of.

    Raises:
        ValueError: the order asks no question.
    """
    if order.query is None:
        raise ValueError("the order asks no question")
    asked = (question_digest(order.query.spec), order.dataset.dataset, order.dataset.snapshot)
    return Digest.of(canonical.encode([str(part) for part in asked]))


def log_name(site: SiteId, log: Log) -> str:
    """Return a log's origin, which is also the key name under which its site signs and cosigns."""
    return f"isthmus/{site}/{log.value}"


def content_context(crossing: CrossingId) -> bytes:
    """Return what a crossing's sealed payload and wrapped content key are bound to."""
    return b"content|" + crossing.encode()


def file_aad(dataset: Name, file: FileId, group: Group) -> bytes:
    """Return the AAD prefix of a stored file: it opens as this file of this dataset and group, or not at all."""
    return f"{dataset}|{file}|{group.value}".encode()


def file_key_context(dataset: Name, file: FileId, group: Group, digest: Digest) -> bytes:
    """Return what a wrapped file key is bound to: the file's place and its bytes."""
    return b"file-key|" + file_aad(dataset, file, group) + b"|" + digest.encode()
