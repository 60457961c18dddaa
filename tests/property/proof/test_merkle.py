"""Merkle proofs: against the definition by recursion for every size up to 70, and against forgers."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.proof import merkle

LARGEST = 70
LEAVES = [merkle.leaf_hash(b"entry %d" % i) for i in range(LARGEST)]
NODES: dict[tuple[int, int], bytes] = {}
for _i, _leaf in enumerate(LEAVES):
    for _level, _index, _hash in merkle.completed_nodes(_i, _leaf, lambda level, index: NODES[level, index]):
        assert (_level, _index) not in NODES
        NODES[_level, _index] = _hash
quick = settings(deadline=None, max_examples=200)
sizes = st.integers(1, LARGEST)


def node(level: int, index: int) -> bytes:
    return NODES[level, index]


@cache
def mth(start: int, end: int) -> bytes:
    """MTH(D[start:end]) as RFC 6962, section 2.1, defines it."""
    if end == start:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return LEAVES[start]
    k = 1
    while 2 * k < end - start:
        k *= 2
    return hashlib.sha256(b"\x01" + mth(start, start + k) + mth(start + k, end)).digest()


def path(m: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D[start:end]) as RFC 6962, section 2.1.1, defines it."""
    if end - start == 1:
        return []
    k = 1
    while 2 * k < end - start:
        k *= 2
    if m < k:
        return [*path(m, start, start + k), mth(start + k, end)]
    return [*path(m - k, start + k, end), mth(start, start + k)]


def subproof(m: int, start: int, end: int, *, whole: bool = True) -> list[bytes]:
    """SUBPROOF(m, D[start:end], whole) as RFC 6962, section 2.1.2, defines it."""
    if m == end - start:
        return [] if whole else [mth(start, end)]
    k = 1
    while 2 * k < end - start:
        k *= 2
    if m <= k:
        return [*subproof(m, start, start + k, whole=whole), mth(start + k, end)]
    return [*subproof(m - k, start + k, end, whole=False), mth(start, start + k)]


def test_roots_of_every_size_follow_the_definition() -> None:
    for size in range(LARGEST + 1):
        assert merkle.tree_root(node, size) == mth(0, size) == merkle.root(LEAVES[:size])


def test_inclusion_paths_of_every_leaf_in_every_size_follow_the_definition() -> None:
    for size in range(1, LARGEST + 1):
        for index in range(size):
            made = merkle.inclusion(node, index, size)
            assert made == path(index, 0, size)
            assert merkle.verify_inclusion(LEAVES[index], index, size, made, mth(0, size))


def test_consistency_paths_between_all_sizes_follow_the_definition() -> None:
    for second in range(1, LARGEST + 1):
        for first in range(1, second + 1):
            made = merkle.consistency(node, first, second)
            assert made == subproof(first, 0, second)
            assert merkle.verify_consistency(first, second, mth(0, first), mth(0, second), made)


def test_a_proof_reads_few_nodes() -> None:
    read: list[tuple[int, int]] = []

    def reading(level: int, index: int) -> bytes:
        read.append((level, index))
        return bytes(32)

    size = 2**40 - 1
    for make in (
        lambda: merkle.tree_root(reading, size),
        lambda: merkle.inclusion(reading, 12345, size),
        lambda: merkle.consistency(reading, 2**39 + 12345, size),
    ):
        read.clear()
        make()
        assert 0 < len(read) <= 80


def test_a_tree_starts_from_nothing() -> None:
    assert merkle.consistency(node, 0, 9) == []
    assert merkle.verify_consistency(0, 9, merkle.empty_root(), mth(0, 9), [])
    assert not merkle.verify_consistency(0, 9, mth(0, 1), mth(0, 9), [])
    assert not merkle.verify_consistency(0, 9, merkle.empty_root(), mth(0, 9), [mth(0, 9)])
    assert merkle.verify_consistency(0, 0, merkle.empty_root(), merkle.empty_root(), [])
    assert not merkle.verify_consistency(0, 0, mth(0, 3), mth(0, 3), [])


def test_a_tree_is_consistent_with_itself_alone() -> None:
    assert merkle.consistency(node, 9, 9) == []
    assert merkle.verify_consistency(9, 9, mth(0, 9), mth(0, 9), [])
    assert not merkle.verify_consistency(9, 9, mth(0, 9), mth(0, 8), [])
    assert not merkle.verify_consistency(9, 9, mth(0, 9), mth(0, 9), [mth(0, 9)])


@pytest.mark.parametrize(("start", "end"), [(1, 3), (-1, 2), (3, 2), (2, 5), (4, 9)])
def test_a_range_that_is_no_subtree_has_no_root(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="subtree"):
        merkle.range_root(node, start, end)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_there_is_no_path_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="leaf"):
        merkle.inclusion(node, index, size)
    assert not merkle.verify_inclusion(LEAVES[0], index, size, [], LEAVES[0])


@pytest.mark.parametrize(("first", "second"), [(3, 2), (-1, 2)])
def test_there_is_no_path_back(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="larger"):
        merkle.consistency(node, first, second)
    assert not merkle.verify_consistency(first, second, LEAVES[0], LEAVES[0], [])


@st.composite
def spoiled(draw: st.DrawFn, proof: list[bytes]) -> list[bytes]:
    """A proof that differs from `proof`."""
    bad = list(proof)
    if bad and draw(st.booleans()):
        place = draw(st.integers(0, len(bad) - 1))
        bad[place] = draw(
            st.sampled_from([bytes(32), bad[place][:31], bad[place] + b"\x00", b"", bad[place][::-1], *bad[:place]])
        )
    elif bad and draw(st.booleans()):
        del bad[draw(st.integers(0, len(bad) - 1))]
    else:
        bad.insert(draw(st.integers(0, len(bad))), draw(st.sampled_from([*bad, bytes(32), LEAVES[0]])))
    return bad


@quick
@given(sizes, st.data())
def test_a_spoiled_inclusion_path_does_not_hold(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    good = merkle.inclusion(node, index, size)
    bad = data.draw(spoiled(good))
    assert bad == good or not merkle.verify_inclusion(LEAVES[index], index, size, bad, mth(0, size))


@quick
@given(sizes, st.data())
def test_an_inclusion_path_shows_one_leaf_at_one_place_under_one_root(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    good = merkle.inclusion(node, index, size)
    other = data.draw(st.integers(0, LARGEST - 1).filter(lambda i: i != index))
    assert not merkle.verify_inclusion(LEAVES[other], index, size, good, mth(0, size))
    assert not merkle.verify_inclusion(LEAVES[index], index, size, good, mth(0, size % LARGEST + 1))
    assert not merkle.verify_inclusion(LEAVES[index], other, size, good, mth(0, size))


@quick
@given(sizes, st.data())
def test_a_spoiled_consistency_path_does_not_hold(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second))
    good = merkle.consistency(node, first, second)
    bad = data.draw(spoiled(good))
    assert bad == good or not merkle.verify_consistency(first, second, mth(0, first), mth(0, second), bad)


@quick
@given(sizes, st.data())
def test_a_consistency_path_joins_two_trees_alone(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second))
    good = merkle.consistency(node, first, second)
    other = data.draw(st.integers(1, LARGEST).filter(lambda n: n not in {first, second}))
    assert not merkle.verify_consistency(first, second, mth(0, other), mth(0, second), good)
    assert not merkle.verify_consistency(first, second, mth(0, first), mth(0, other), good)


@quick
@given(st.integers(2, LARGEST), st.data())
def test_a_rewritten_history_is_not_consistent(second: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, second - 1))
    rewritten = list(LEAVES[:second])
    rewritten[data.draw(st.integers(0, first - 1))] = merkle.leaf_hash(b"rewritten")
    nodes: dict[tuple[int, int], bytes] = {}
    for i, leaf in enumerate(rewritten):
        for level, index, hash_ in merkle.completed_nodes(i, leaf, lambda level, index: nodes[level, index]):
            nodes[level, index] = hash_
    forged = merkle.consistency(lambda level, index: nodes[level, index], first, second)
    assert not merkle.verify_consistency(first, second, mth(0, first), merkle.root(rewritten), forged)


@quick
@given(sizes, st.data())
def test_a_path_of_another_shape_does_not_hold_even_where_the_hashes_fit(size: int, data: st.DataObject) -> None:
    """The last steps left away, or taken from a larger tree: the roots fit, the sizes do not."""
    index = data.draw(st.integers(0, size - 1))
    whole = merkle.inclusion(node, index, size)
    steps = data.draw(st.integers(0, len(whole)))
    hash_, here, last = LEAVES[index], index, size - 1
    for sibling in whole[:steps]:
        if here & 1 or here == last:
            hash_ = merkle.node_hash(sibling, hash_)
            while here & 1 == 0:
                here, last = here >> 1, last >> 1
        else:
            hash_ = merkle.node_hash(hash_, sibling)
        here, last = here >> 1, last >> 1
    assert merkle.verify_inclusion(LEAVES[index], index, size, whole[:steps], hash_) == (steps == len(whole))


def test_a_path_of_a_larger_tree_is_none_of_a_smaller() -> None:
    assert not merkle.verify_inclusion(LEAVES[1], 0, 1, [LEAVES[0]], mth(0, 2))
    assert merkle.verify_consistency(7, 8, mth(0, 7), mth(0, 8), merkle.consistency(node, 7, 8))
    assert not merkle.verify_consistency(3, 4, mth(0, 7), mth(0, 8), merkle.consistency(node, 7, 8))


def test_a_path_of_a_smaller_tree_is_none_of_a_larger() -> None:
    assert not merkle.verify_inclusion(LEAVES[0], 0, 2, [], LEAVES[0])
    assert not merkle.verify_consistency(2, 8, mth(0, 2), mth(0, 4), merkle.consistency(node, 2, 4))
    assert not merkle.verify_consistency(3, 8, mth(0, 3), mth(0, 4), merkle.consistency(node, 3, 4))


def test_the_border_between_two_hashes_cannot_be_moved() -> None:
    left, right = LEAVES[0], LEAVES[1]
    assert merkle.verify_inclusion(left, 0, 2, [right], mth(0, 2))
    assert not merkle.verify_inclusion(left[:31], 0, 2, [left[31:] + right], mth(0, 2))
    assert not merkle.verify_inclusion(left + right[:1], 0, 2, [right[1:]], mth(0, 2))


@quick
@given(st.integers(-3, 80), st.integers(-3, 80), st.lists(st.sampled_from([*LEAVES[:4], b"", b"x"]), max_size=8))
def test_whatever_is_asked_the_answer_is_no(a: int, b: int, proof: list[bytes]) -> None:
    assert not merkle.verify_inclusion(LEAVES[5], a, b, proof, b"\x07" * 32)
    assert not merkle.verify_consistency(a, b, LEAVES[5], b"\x07" * 32, proof)
