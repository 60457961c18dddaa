# ruff: noqa: INP001 - a script of the image, in no package
"""A health check: whether `host:port` answers.

`answers.py http host:port [path]`: it speaks HTTP; to be told that a token is missing is answer enough.
`answers.py tcp host:port`: it takes a connection. A host of `self` is this container's own first address.
"""

import http.client
import socket
import sys

WITHIN_S = 3


def main(how: str, address: str, path: str = "/v1/health") -> int:
    """Return 0 where there is an answer."""
    host, _, port = address.rpartition(":")
    if host == "self":
        host = socket.gethostbyname(socket.gethostname())
    try:
        if how == "tcp":
            socket.create_connection((host, int(port)), timeout=WITHIN_S).close()
            return 0
        connection = http.client.HTTPConnection(host, int(port), timeout=WITHIN_S)
        connection.request("GET", path)
        return 0 if connection.getresponse().status in {200, 401} else 1
    except (OSError, http.client.HTTPException):
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
