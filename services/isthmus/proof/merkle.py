"""Merkle tree of a ledger: hashes, roots and proofs (RFC 6962, section 2.1; RFC 9162, section 2.1).

The functions are pure. A store keeps every complete node once, as (level, index): level 0 holds the leaf hashes, and
node (l, i) covers leaves i * 2^l up to (i + 1) * 2^l. Proofs are made by reading O(log n) such nodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

NodeReader: TypeAlias = Callable[[int, int], bytes]
"""Returns the hash of the complete node at (level, index)."""

HASH_SIZE = 32


def leaf_hash(data: bytes) -> bytes:
    """Return SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def empty_root() -> bytes:
    """Return the root of the tree without leaves: the SHA-256 of nothing."""
    return hashlib.sha256(b"").digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over all `leaf_hashes` in one pass, without a store."""
    peaks: list[bytes] = []
    for index, leaf in enumerate(leaf_hashes):
        peaks.append(leaf)
        for _ in range(_trailing_ones(index)):
            right = peaks.pop()
            peaks.append(node_hash(peaks.pop(), right))
    return _join(peaks)


def completed_nodes(size_before: int, leaf: bytes, node: NodeReader) -> list[tuple[int, int, bytes]]:
    """Return the nodes (level, index, hash) that one more leaf completes, its own first.

    `node` is asked for nodes completed earlier alone: within a batch, store each leaf's nodes before the next leaf.
    """
    level, index, hash_ = 0, size_before, leaf
    nodes = [(level, index, hash_)]
    while index & 1:
        hash_ = node_hash(node(level, index - 1), hash_)
        level, index = level + 1, index >> 1
        nodes.append((level, index, hash_))
    return nodes


def range_root(node: NodeReader, start: int, end: int) -> bytes:
    """Return the root over leaves `start` up to `end`, a range that RFC 6962's splits produce.

    Raises:
        ValueError: `start` is not a multiple of the power of two that covers the range, or the range is negative.
    """
    if not 0 <= start <= end or start % _cover(end - start):
        raise ValueError("not a subtree")
    peaks = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(node(level, start >> level))
        start += 1 << level
    return _join(peaks)


def tree_root(node: NodeReader, size: int) -> bytes:
    """Return the root of the tree as it was with its first `size` leaves."""
    return range_root(node, 0, size)


def inclusion(node: NodeReader, index: int, size: int) -> list[bytes]:
    """Return the path that shows leaf `index` in the tree of `size` leaves (RFC 9162, section 2.1.3.1).

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_root(node, middle, end))
            end = middle
        else:
            path.append(range_root(node, start, middle))
            start = middle
    return path[::-1]


def consistency(node: NodeReader, first: int, second: int) -> list[bytes]:
    """Return the path that shows the tree of `first` leaves as the start of that of `second` (RFC 9162, 2.1.4.1).

    It is empty when `first` is 0 or equals `second`.

    Raises:
        ValueError: `first` is negative or beyond `second`.
    """
    if not 0 <= first <= second:
        raise ValueError("the first tree must not be larger than the second")
    if first == 0:
        return []
    path, start, end = [], 0, second
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(range_root(node, middle, end))
            end = middle
        else:
            path.append(range_root(node, start, middle))
            start = middle
    # A first tree that is itself a subtree here needs no hash: the verifier has its root.
    own = [] if start == 0 else [range_root(node, start, end)]
    return own + path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root_hash: bytes) -> bool:
    """Tell whether `path` shows the leaf hash `leaf` at `index` under `root_hash` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(leaf, root_hash, *path):
        return False
    here, last, hash_ = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if here & 1 or here == last:
            hash_ = node_hash(sibling, hash_)
            here, last = _climb(here, last)
        else:
            hash_ = node_hash(hash_, sibling)
        here, last = here >> 1, last >> 1
    return last == 0 and hash_ == root_hash


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]) -> bool:
    """Tell whether `path` shows the first tree as the start of the second (RFC 9162, section 2.1.4.2).

    From 0 leaves, and from a tree to itself, the path is empty and the roots alone are compared.
    """
    if not 0 <= first <= second or not _are_hashes(first_root, second_root, *path):
        return False
    if first == second:
        return not path and first_root == second_root and (first > 0 or first_root == empty_root())
    if first == 0:
        return not path and first_root == empty_root()
    hashes = [first_root, *path] if first & (first - 1) == 0 else list(path)
    if not hashes:
        return False
    shift = _trailing_ones(first - 1)
    here, last = (first - 1) >> shift, (second - 1) >> shift
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            here, last = _climb(here, last)
        else:
            new = node_hash(new, sibling)
        here, last = here >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def _climb(here: int, last: int) -> tuple[int, int]:
    """Pass the levels at which the last node of an incomplete tree has no sibling."""
    while here & 1 == 0 and here:
        here, last = here >> 1, last >> 1
    return here, last


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_SIZE for value in values)


def _join(peaks: list[bytes]) -> bytes:
    """Join complete subtrees, from the largest to the smallest, into one root."""
    if not peaks:
        return empty_root()
    joined = peaks[-1]
    for peak in reversed(peaks[:-1]):
        joined = node_hash(peak, joined)
    return joined


def _split(width: int) -> int:
    """Return the largest power of two below `width` (RFC 6962's k)."""
    return 1 << ((width - 1).bit_length() - 1)


def _cover(width: int) -> int:
    """Return the smallest power of two that is at least `width`."""
    return 1 << (width - 1).bit_length() if width > 1 else 1


def _trailing_ones(number: int) -> int:
    return (number ^ (number + 1)).bit_length() - 1
