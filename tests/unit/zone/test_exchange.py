"""What two shards say to each other at every step, and what somebody between them or beside them can do about it."""

from __future__ import annotations

import dataclasses
import fcntl
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.keys import HpkeKey
from isthmus.learning import weights
from isthmus.learning.forecaster import initial_weights
from isthmus.learning.windows import FUTURE, INPUTS, Windows
from isthmus.proof.sealing import SealingKey
from isthmus.zone.cluster.answers import Failure, value_of
from isthmus.zone.cluster.exchange import (
    GREETING_S,
    LONGEST,
    TAG,
    Exchange,
    Line,
    Meeting,
    handed_over,
    join,
    new_key,
    taken,
)
from isthmus.zone.cluster.launch import meeting_ports
from isthmus.zone.cluster.shard import Lesson, Shard
from isthmus.zone.compute import RunLost

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

KEY = new_key()
ANY = (0,)
"""A port that the system chooses."""


class Meetings(Meeting):
    """A meeting on a port of the system's, which says which one it was."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", ANY)
        self.place = self._listener.getsockname()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection, with nothing on it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    return here, there


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection, with nothing on it."""
    here, there = tcp_pair()
    for end in (here, there):
        end.settimeout(5)
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def lines(ends: tuple[socket.socket, socket.socket]) -> tuple[Line, Line]:
    return Line(ends[0], KEY, leads=True), Line(ends[1], KEY, leads=False)


@pytest.fixture
def three() -> Iterator[tuple[Exchange, ...]]:
    """The exchanges of three shards, each with a connection to each."""
    exchanges = (Exchange(), Exchange(), Exchange())
    for first, second in ((0, 1), (0, 2), (1, 2)):
        here, there = tcp_pair()
        key = new_key()
        exchanges[first].add(second, Line(here, key, leads=True))
        exchanges[second].add(first, Line(there, key, leads=False))
    yield exchanges
    for exchange in exchanges:
        exchange.close()


def all_summed(shards: tuple[Exchange, ...], terms: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    with ThreadPoolExecutor(len(shards)) as threads:
        asked = [threads.submit(shard.summed, n, terms[n]) for n, shard in enumerate(shards)]
        return [each.result(timeout=30) for each in asked]


def test_every_shard_has_the_same_sum_to_the_last_bit(three: tuple[Exchange, ...]) -> None:
    """Added in one order, or the shards' models would drift apart."""
    generator = np.random.Generator(np.random.PCG64(1))
    for _ in range(5):
        terms = [generator.standard_normal(70_000, dtype=np.float32) for _ in three]
        expected = (terms[0] + terms[1]) + terms[2]
        assert (expected != terms[0] + (terms[1] + terms[2])).any()
        for found in all_summed(three, terms):
            np.testing.assert_array_equal(found, expected)


def test_terms_that_no_buffer_holds_pass_each_other(three: tuple[Exchange, ...]) -> None:
    """All send at once, far more than the system takes in: nobody may wait for somebody who waits to send."""
    ones = np.ones(8 << 20, np.float32)
    for found in all_summed(three, [ones, ones, ones]):
        assert (found == 3).all()


def test_a_term_of_another_model_ends_the_run(lines: tuple[Line, Line]) -> None:
    """One number would be added to every number of a gradient."""
    shard = Exchange()
    shard.add(1, lines[0])
    lines[1].send(np.ones(1, np.float32).tobytes())
    with pytest.raises(RunLost, match="another model"):
        shard.summed(0, np.ones(5, np.float32))


def test_a_term_that_is_no_numbers_ends_the_run(lines: tuple[Line, Line]) -> None:
    shard = Exchange()
    shard.add(1, lines[0])
    lines[1].send(b"21 bytes, not a float")
    with pytest.raises(RunLost, match="another model"):
        shard.summed(0, np.ones(5, np.float32))


def test_a_term_of_another_step_is_not_added_up(lines: tuple[Line, Line]) -> None:
    """It opens under the same key, comes in its turn and has as many numbers."""
    first, second = Exchange(), Exchange()
    first.add(1, lines[0])
    second.add(0, lines[1])
    ones = np.ones(5, np.float32)
    with ThreadPoolExecutor(2) as threads:
        asked = [
            threads.submit(shard.summed, number, ones, step=step)
            for number, (shard, step) in enumerate(((first, b"one"), (second, b"another")))
        ]
        for each in asked:
            with pytest.raises(RunLost):
                each.result(timeout=30)


def test_shards_whose_connections_have_large_numbers_exchange_all_the_same() -> None:
    """As in a process with a thousand open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= 1200 or hard == resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    high = [socket.socket(fileno=fcntl.fcntl(end.detach(), fcntl.F_DUPFD_CLOEXEC, 1100)) for end in tcp_pair()]
    shards = (Exchange(), Exchange())
    shards[0].add(1, Line(high[0], KEY, leads=True))
    shards[1].add(0, Line(high[1], KEY, leads=False))
    ones = np.ones(8 << 20, np.float32)
    try:
        for found in all_summed(shards, [ones, ones]):
            assert (found == 2).all()
    finally:
        for shard in shards:
            shard.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def frame_of(line: Line, end: socket.socket, text: bytes) -> bytes:
    """Return what stands on the wire when `line` sends `text`."""
    line.send(text)
    head = end.recv(4, socket.MSG_WAITALL)
    return head + end.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)


def test_gradients_cannot_be_read_on_the_way(ends: tuple[socket.socket, socket.socket]) -> None:
    term, shard = np.full(1000, 0.25, np.float32), Exchange()
    shard.add(1, Line(ends[0], KEY, leads=True))
    with ThreadPoolExecutor(1) as threads:
        summing = threads.submit(shard.summed, 0, term)
        heard = ends[1].recv(4 + term.nbytes + 16, socket.MSG_WAITALL)
        ends[1].close()
        with pytest.raises(RunLost):
            summing.result(timeout=5)
    assert len(heard) == 4 + term.nbytes + 16
    assert term[:4].tobytes() not in heard


@pytest.mark.parametrize("place", [4, 30, -1])
def test_a_changed_frame_ends_the_run(ends: tuple[socket.socket, socket.socket], place: int) -> None:
    whole = bytearray(frame_of(Line(ends[0], KEY, leads=True), ends[1], b"x" * 40))
    whole[place] ^= 1
    ends[0].sendall(whole)
    with pytest.raises(RunLost):
        Line(ends[1], KEY, leads=False).receive(within_s=5)


def test_a_repeated_frame_ends_the_run(ends: tuple[socket.socket, socket.socket]) -> None:
    whole = frame_of(Line(ends[0], KEY, leads=True), ends[1], b"once")
    ends[0].sendall(whole * 2)
    follower = Line(ends[1], KEY, leads=False)
    assert follower.receive(within_s=5) == b"once"
    with pytest.raises(RunLost):
        follower.receive(within_s=5)


def test_a_frame_that_was_left_out_ends_the_run(ends: tuple[socket.socket, socket.socket]) -> None:
    leader = Line(ends[0], KEY, leads=True)
    frame_of(leader, ends[1], b"first")
    leader.send(b"second")
    with pytest.raises(RunLost):
        Line(ends[1], KEY, leads=False).receive(within_s=5)


def test_a_frame_that_is_sent_back_ends_the_run(ends: tuple[socket.socket, socket.socket]) -> None:
    leader = Line(ends[0], KEY, leads=True)
    ends[1].sendall(frame_of(leader, ends[1], b"a question"))
    with pytest.raises(RunLost):
        leader.receive(within_s=5)


@pytest.mark.parametrize("head", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x0f"])
def test_a_length_that_no_frame_has_ends_the_run(ends: tuple[socket.socket, socket.socket], head: bytes) -> None:
    ends[0].sendall(head)
    with pytest.raises(RunLost):
        Line(ends[1], KEY, leads=False).receive(within_s=5)


def test_a_shard_that_is_gone_ends_the_run(lines: tuple[Line, Line]) -> None:
    shard = Exchange()
    shard.add(1, lines[0])
    lines[1].close()
    for _ in range(2):
        with pytest.raises(RunLost):
            shard.summed(0, np.ones(70_000, np.float32))


def test_a_shard_that_keeps_quiet_is_asked_after(lines: tuple[Line, Line]) -> None:
    """Its connection may stand though it does not work any more."""

    def stopped() -> None:
        raise RunLost("it has stopped")

    shard = Exchange()
    shard.add(1, lines[0])
    for numbers in (5, 8 << 20):  # it is waited for before it answers, and before it takes in what it is sent
        with pytest.raises(RunLost, match="it has stopped"):
            shard.summed(0, np.ones(numbers, np.float32), stopped)


def test_a_lines_key_cannot_be_read_on_the_way_and_opens_for_its_shard_and_number_alone() -> None:
    mine, another = SealingKey.generate(), SealingKey.generate()
    sealed = handed_over(KEY, mine.public, 1)
    assert KEY not in sealed
    assert taken(sealed, mine, 1) == KEY
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for what, own, number in ((sealed, another, 1), (sealed, mine, 0), (altered, mine, 1)):
        with pytest.raises(Refusal) as refusal:
            taken(what, own, number)
        assert refusal.value.code is Code.PAYLOAD_ALTERED


def test_a_shard_comes_with_the_key_that_was_sealed_to_it_and_once(tmp_path: Path) -> None:
    """All that passes through Ray is the public half of a key, and what is sealed to it."""
    shard = Shard(str(tmp_path))
    with Meetings() as meeting, ThreadPoolExecutor(1) as threads:
        gathering = threads.submit(meeting.gather, [KEY], 20.0)
        sealed = handed_over(KEY, HpkeKey.from_bytes(value_of(shard.invite(7))), 0)
        value_of(shard.join(7, meeting.place, 0, sealed, 5.0))
        (line,) = gathering.result(timeout=10)
        line.close()
        shard._exchange.close()
        with pytest.raises(Fault) as fault:
            value_of(shard.join(7, meeting.place, 0, sealed, 5.0))
    assert fault.value.code is Code.COMPUTE_FAILED


def test_a_shard_does_not_come_with_a_key_that_was_sealed_to_another(tmp_path: Path) -> None:
    shard, another = Shard(str(tmp_path)), SealingKey.generate()
    with Meetings() as meeting:
        value_of(shard.invite(7))
        with pytest.raises(Refusal) as refusal:
            value_of(shard.join(7, meeting.place, 0, handed_over(KEY, another.public, 0), 5.0))
        assert refusal.value.code is Code.PAYLOAD_ALTERED
        with pytest.raises(RunLost):
            meeting.gather([KEY], 0.05)


def test_strangers_are_hung_up_on_and_the_others_come_all_the_same() -> None:
    keys = [new_key(), new_key()]
    with Meetings() as meeting, ThreadPoolExecutor(4) as threads:
        gathering = threads.submit(meeting.gather, keys, 20.0)
        stranger = socket.create_connection(meeting.place)
        stranger.sendall(b"\0\0\0\x07")  # no such number
        assert stranger.recv(1) == b""
        forger = join(meeting.place, 1, new_key(), 5)
        with pytest.raises(RunLost):
            forger.receive(within_s=5)
        silent = socket.create_connection(meeting.place)
        second = join(meeting.place, 1, keys[1], 5)
        first = join(meeting.place, 0, keys[0], 5)
        lines = gathering.result(timeout=20)
        for number, (mine, theirs) in enumerate(zip(lines, (first, second), strict=True)):
            mine.send(str(number).encode())
            assert theirs.receive(within_s=5) == str(number).encode()
        for end in (stranger, silent, forger, *lines, first, second):
            end.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(meeting.place)


def test_a_stranger_who_deals_out_a_frame_byte_by_byte_keeps_nobody_waiting() -> None:
    """It names a key that there is, says that a frame of a gigabyte follows, and lets nobody else come."""
    with Meetings() as meeting, ThreadPoolExecutor(1) as threads:
        gathering = threads.submit(meeting.gather, [KEY], 20.0)
        for length in (LONGEST, TAG):
            stranger = socket.create_connection(meeting.place)
            stranger.sendall(b"\0\0\0\0" + length.to_bytes(4, "big"))
            stranger.settimeout(GREETING_S / 4)
            began = time.monotonic()
            while not hung_up(stranger):
                assert time.monotonic() - began < 2 * GREETING_S
            assert length == TAG or time.monotonic() - began < GREETING_S  # what is too long is not waited for
            stranger.close()
        honest = join(meeting.place, 0, KEY, 5)
        for end in (*gathering.result(timeout=10), honest):
            end.close()


def hung_up(end: socket.socket) -> bool:
    """Say one byte more, and tell whether the other side has hung up."""
    try:
        end.send(b"x")
        return end.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_strangers_who_come_one_after_the_other_are_no_reason_to_wait_longer_than_said() -> None:
    with Meetings() as meeting:
        strangers = [socket.create_connection(meeting.place) for _ in range(4)]
        began = time.monotonic()
        with pytest.raises(RunLost):
            meeting.gather([KEY], 0.5)
        assert time.monotonic() - began < 0.5 + 2 * GREETING_S
        for end in strangers:
            end.close()


def test_a_shard_that_does_not_come_is_waited_for_no_longer_than_said() -> None:
    with Meetings() as meeting, pytest.raises(RunLost):
        meeting.gather([KEY], 0.05)


def test_a_guest_that_cannot_come_is_not_waited_for_any_longer() -> None:
    def refused() -> None:
        raise RunLost("it was refused")

    began = time.monotonic()
    with Meetings() as meeting, pytest.raises(RunLost, match="it was refused"):
        meeting.gather([KEY], 60, refused)
    assert time.monotonic() - began < 30


def a_shard(folder: Path, number: int, exchange: Exchange, places: Sequence[int]) -> Shard:
    """Return a shard of three that has met the others and has one of the three windows."""
    shard = Shard(str(folder))
    shard._number, shard._total, shard._exchange = number, 3, exchange
    shard._places = np.array(places, np.int64)
    one = np.zeros(1, np.float32)
    shard._training = Windows(
        inputs=np.full((1, INPUTS), 0.5, np.float32),
        residuals=np.ones((1, FUTURE, 2), np.float32),
        velocity=np.zeros((1, 2), np.float32),
        turn_rate=one,
        vehicles=np.zeros(1, np.int32),
        vehicle_names=("v",),
        road_types=np.zeros(1, np.int8),
    )
    return shard


BASE = weights.encode(initial_weights(3))
LESSON = Lesson(epochs=2, seed=1, learning_rate=1e-3, batch_size=3, schedule="constant")
Asked = tuple[bytes, Lesson, int]


def all_followed(shards: Sequence[Shard], asked: Sequence[Asked]) -> list[object]:
    """Return what shards answer that are all asked to take part in a training, each in its own thread."""
    with ThreadPoolExecutor(len(shards)) as threads:
        answers = [threads.submit(shard.follow, *what) for shard, what in zip(shards, asked, strict=True)]
        try:
            return [each.result(timeout=60) for each in answers]
        finally:
            for shard in shards:
                shard._exchange.close()


def test_shards_at_the_same_training_take_all_steps(three: tuple[Exchange, ...], tmp_path: Path) -> None:
    shards = [a_shard(tmp_path, number, exchange, [number]) for number, exchange in enumerate(three)]
    assert all_followed(shards, [(BASE, LESSON, 1)] * 3) == [None] * 3


@pytest.mark.parametrize("base", [BASE, b"no model"], ids=["its windows", "its base"])
def test_a_shard_that_fails_before_its_first_step_keeps_nobody_waiting(
    three: tuple[Exchange, ...], tmp_path: Path, base: bytes
) -> None:
    nowhere = [1] if base != BASE else [99]
    places: list[list[int]] = [[0], nowhere, [2]]
    shards = [a_shard(tmp_path, number, exchange, places[number]) for number, exchange in enumerate(three)]
    answers = all_followed(shards, [(BASE, LESSON, 1), (base, LESSON, 1), (BASE, LESSON, 1)])
    assert all(isinstance(answer, Failure) for answer in answers)
    for answer in (answers[0], answers[2]):
        with pytest.raises(RunLost):
            value_of(answer)


@pytest.mark.parametrize(
    "other",
    [
        (weights.encode(initial_weights(4)), LESSON, 1),
        (BASE, dataclasses.replace(LESSON, learning_rate=2e-3), 1),
        (BASE, LESSON, 2),
    ],
    ids=["base", "lesson", "number"],
)
def test_a_shard_that_is_still_at_another_training_is_not_added_up(
    three: tuple[Exchange, ...], tmp_path: Path, other: Asked
) -> None:
    shards = [a_shard(tmp_path, number, exchange, [number]) for number, exchange in enumerate(three)]
    for answer in all_followed(shards, [(BASE, LESSON, 1), (BASE, LESSON, 1), other]):
        with pytest.raises(RunLost):
            value_of(answer)


def test_a_leader_that_is_not_there_is_a_lost_run() -> None:
    with Meetings() as meeting:
        place = meeting.place
    with pytest.raises(RunLost):
        join(place, 0, KEY, 5)


def test_shards_meet_in_the_block_of_ports_and_two_runs_beside_each_other() -> None:
    ports = meeting_ports(24_001)
    assert ports.start > 24_010
    assert ports.stop <= 24_020
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunLost, match="no free port"):
            Meeting("127.0.0.1", (port,))
        with Meeting("127.0.0.1", (port, 0)):
            pass
