"""A rough line: frames between two interfaces, late, lost and slow. Runs beside the engine, with the host's network.

`line.py VETH OTHER DELAY_S LOSS BITS_PER_S`: takes what comes in at VETH and sends it out at OTHER, and back. Each
direction has its own queue. Both sockets carry the kernel's offload header, so that large frames stay whole.
"""

import contextlib
import random
import selectors
import socket
import sys
import time
from collections import deque

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
EVERYTHING = 0x0003
LARGEST = 1 << 17
LONGEST_QUEUE_S = 5.0


class Direction:
    """One way: from a socket to another."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float, loss: float, rate: float) -> None:
        self.source, self.target = source, target
        self._delay, self._loss, self._rate = delay, loss, rate
        self._free_at = 0.0
        self.waiting: deque = deque()

    def take(self, now: float) -> None:
        """Take one frame, or lose it."""
        frame = self.source.recv(LARGEST)
        if random.random() < self._loss:
            return
        self._free_at = max(now, self._free_at) + 8 * len(frame) / self._rate
        if self._free_at - now < LONGEST_QUEUE_S:
            self.waiting.append((self._free_at + self._delay, frame))

    def send(self, now: float) -> None:
        """Send what is due."""
        while self.waiting and self.waiting[0][0] <= now:
            _, frame = self.waiting.popleft()
            with contextlib.suppress(OSError):  # the interface is gone: so is the frame
                self.target.send(frame)


def opened(interface: str) -> socket.socket:
    """Return a raw socket that hears what comes in at an interface."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
    raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    raw.bind((interface, 0))
    raw.setsockopt(SOL_PACKET, 1, interface_membership(interface))
    return raw


def interface_membership(interface: str) -> bytes:
    """Return the request to hear frames for every address (PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC)."""
    index = socket.if_nametoindex(interface)
    return index.to_bytes(4, sys.byteorder) + (1).to_bytes(2, sys.byteorder) + bytes(10)


def main() -> None:
    """Carry frames until killed."""
    one, other = opened(sys.argv[1]), opened(sys.argv[2])
    delay, loss, rate = map(float, sys.argv[3:6])
    ways = (Direction(one, other, delay, loss, rate), Direction(other, one, delay, loss, rate))
    selector = selectors.DefaultSelector()
    for way in ways:
        selector.register(way.source, selectors.EVENT_READ, way)
    while True:
        due = [way.waiting[0][0] for way in ways if way.waiting]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        for key, _ in selector.select(wait):
            key.data.take(time.monotonic())
        for way in ways:
            way.send(time.monotonic())


main()
