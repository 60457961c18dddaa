"""A real S3 server for tests: MinIO's binary, on loopback, in a folder of its own.

The binary is the one that ISTHMUS_MINIO names, or `minio` on the PATH. Without one these tests are skipped; where
ISTHMUS_CI is 1 they fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import pytest
import urllib3

from isthmus.kit.objects.place import Credentials, S3Place
from isthmus.kit.objects.requests import Patience
from isthmus.kit.objects.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = Credentials("root-of-the-tests", "no-secret-of-anyone")
HASTY = Patience(connect_s=1.0, read_s=5.0, attempts=5, pause_s=0.1, deadline_s=5.0)
"""For a store that is away: longer than one takes that is just starting, shorter than in earnest."""
START_S = 30.0


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it where servers are a must."""
    if os.environ.get("ISTHMUS_CI") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def binary() -> str:
    """Return the server's binary."""
    found = os.environ.get("ISTHMUS_MINIO") or shutil.which("minio")
    if found is None:
        unavailable("there is no MinIO server here: set ISTHMUS_MINIO to its binary")
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Minio:
    """One server, which keeps its data and its port when it is started again."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def place(self, bucket: str) -> S3Place:
        return S3Place(endpoint=self.endpoint, bucket=bucket, insecure=True)

    def store(
        self, bucket: str, credentials: Credentials = ROOT, *, patience: Patience = HASTY, part: int = 16 << 20
    ) -> S3Store:
        return S3Store(self.place(bucket), credentials, patience=patience, part=part)

    def start(self) -> None:
        """Start it and wait until it takes requests."""
        secrets = {"MINIO_ROOT_USER": ROOT.access_key, "MINIO_ROOT_PASSWORD": ROOT.secret_key}
        environment = {**os.environ, **secrets, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
        with (self.folder / "minio.log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), "server", str(self.folder / "data"), "--address", self.endpoint],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        with urllib3.PoolManager(retries=False, timeout=1.0) as http:
            while not self._is_ready(http):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError((self.folder / "minio.log").read_text("utf-8", "replace"))
                time.sleep(0.05)

    def _is_ready(self, http: urllib3.PoolManager) -> bool:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            return http.request("GET", f"http://{self.endpoint}/minio/health/ready").status == 200
        return False

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Minio]:
    """Run a server in `folder`."""
    binary()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    server = Minio(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
