"""What two shards say to each other at every step, and what somebody between them or beside them can do about it."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from isthmus.zone.cluster.exchange import (
    GREETING_S,
    LONGEST,
    TAG,
    Line,
    Meeting,
    answer_all,
    asked,
    join,
    new_key,
    over,
    term_of,
)
from isthmus.zone.cluster.launch import meeting_ports
from isthmus.zone.compute import RunLost

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = new_key()
ANY = (0,)
"""A port that the system chooses."""


class Meetings(Meeting):
    """A meeting on a port of the system's, which says which one it was."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", ANY)
        self.place = self._listener.getsockname()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection, with nothing on it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    for end in (here, there):
        end.settimeout(5)
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def lines(ends: tuple[socket.socket, socket.socket]) -> tuple[Line, Line]:
    return Line(ends[0], KEY, leads=True), Line(ends[1], KEY, leads=False)


def still_there() -> None:
    """Nothing has ended meanwhile."""


def test_every_question_is_answered_until_the_training_is_over(lines: tuple[Line, Line]) -> None:
    leader, follower = lines
    weights = np.arange(70_000, dtype=np.float32)
    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(answer_all, follower, lambda flat, epoch, step: flat * epoch + np.float32(step))
        for epoch, step in ((0, 0), (0, 1), (1, 0), (2, 3)):
            asked(leader, weights, epoch, step)
            np.testing.assert_array_equal(term_of(leader, still_there), weights * epoch + np.float32(step))
        over(leader)
        assert following.result(timeout=5) is None


def test_a_second_training_goes_on_where_the_first_ended(lines: tuple[Line, Line]) -> None:
    leader, follower = lines
    with ThreadPoolExecutor(1) as threads:
        for training in range(3):
            following = threads.submit(answer_all, follower, lambda flat, _epoch, _step: flat)
            asked(leader, np.full(5, training, np.float32), 0, 0)
            assert term_of(leader, still_there).tolist() == [training] * 5
            over(leader)
            following.result(timeout=5)


def frame_of(line: Line, end: socket.socket, text: bytes) -> bytes:
    """Return what stands on the wire when `line` sends `text`."""
    line.send(text)
    head = end.recv(4, socket.MSG_WAITALL)
    return head + end.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)


def test_weights_cannot_be_read_on_the_way(ends: tuple[socket.socket, socket.socket]) -> None:
    weights = np.full(1000, 0.25, np.float32)
    asked(Line(ends[0], KEY, leads=True), weights, 0, 0)
    heard = ends[1].recv(4 + 8 + weights.nbytes + 16, socket.MSG_WAITALL)
    assert weights[:4].tobytes() not in heard


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
    leader, follower = lines
    follower.close()
    with pytest.raises(RunLost):
        term_of(leader, still_there)


def test_a_shard_that_keeps_quiet_is_asked_after(lines: tuple[Line, Line]) -> None:
    """Its connection may stand though it does not work any more."""

    def stopped() -> None:
        raise RunLost("it has stopped")

    with pytest.raises(RunLost, match="it has stopped"):
        term_of(lines[0], stopped)


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
