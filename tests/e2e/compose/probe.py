"""In a container's network: what listens here, what answers elsewhere, which names are known. JSON in and out."""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WITHIN_S = 2.0
AT_ONCE = 128
LISTENING = "0A"


def listening() -> list[int]:
    """Return the TCP ports that something listens on in this network namespace, loopback left out."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        lines = Path(table).read_text("ascii").splitlines()[1:] if Path(table).exists() else []
        for line in lines:
            _, local, _, state, *_ = line.split()
            address, _, port = local.partition(":")
            loopback = address.endswith("7F") or address == "00000000000000000000000001000000"
            if state == LISTENING and not loopback:
                ports.add(int(port, 16))
    return sorted(ports)


def answers(target: list) -> bool:
    """Tell whether `host, port` takes a connection."""
    try:
        socket.create_connection((target[0], target[1]), timeout=WITHIN_S).close()
    except OSError:
        return False
    return True


def resolves(name: str) -> bool:
    """Tell whether a name is known here."""
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def main() -> None:
    """Read what to try from standard input, write what came of it."""
    asked = json.load(sys.stdin)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        targets, names = asked["targets"], asked["names"]
        answered = [target for target, yes in zip(targets, pool.map(answers, targets), strict=True) if yes]
        known = [name for name, yes in zip(names, pool.map(resolves, names), strict=True) if yes]
    json.dump({"listening": listening(), "answered": answered, "known": known}, sys.stdout)


main()
