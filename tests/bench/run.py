"""`make bench`: a round's overhead, its parts, and the raw limits, in one run; written to `bench-report.json`.

Every figure that is to be judged stands as a ratio to a limit measured beside it, since this machine may be slower or
faster than another. Nothing trains here: zones answer each model with an update that was made beforehand.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import http.server
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.recipe import schema_of, weights_of
from bench.round_trip import ZONES, Federation, summary
from isthmus.border.keeper.blobs import BlobStore
from isthmus.border.keeper.ledger import LedgerStore
from isthmus.contracts.identifiers import CrossingId
from isthmus.contracts.ledger import CrossingEntry, Log
from isthmus.learning import weights
from isthmus.learning.aggregate import federated_average
from isthmus.proof import sealing
from isthmus.proof.ids import content_context
from isthmus.proof.signing import SigningKey, verify

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = {30_000: 30, 1_000_000: 20, 10_000_000: 8}
REPEATS = 7
LIMITS_S = {1_000_000: 0.15, 10_000_000: 1.5}
"""What a round may take at most."""


def median_of(action: Callable[[], Any], repeats: int = REPEATS) -> float:
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def loopback(payload: bytes) -> float:
    """One HTTP GET of `payload` over loopback by the standard library, which does no work beyond moving the bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection(*server.server_address[:2])  # type: ignore[arg-type] # an IPv4 pair

    def fetch() -> None:
        connection.request("GET", "/")
        connection.getresponse().read()

    try:
        return median_of(fetch)
    finally:
        connection.close()
        server.shutdown()


def parts(parameters: int, folder: Path) -> dict[str, float]:
    """Seconds of each part of one crossing's way, alone, on one core."""
    model = weights_of(parameters, 1)
    encoded = weights.encode(model)
    schema = schema_of(parameters)
    crossing = CrossingId.of(b"bench")
    context, key = content_context(crossing), sealing.new_content_key()
    sealed = b"".join(sealing.seal(key, encoded, context=context))
    pieces = [sealed[i : i + (1 << 20)] for i in range(0, len(sealed), 1 << 20)]
    blobs = BlobStore(folder / f"blobs-{parameters}")

    def store() -> None:
        digest, _ = blobs.put(pieces, limit=len(sealed))
        blobs.release(digest)

    deltas = {"a": weights_of(parameters, 2), "b": weights_of(parameters, 3)}
    wrapped = sealing.SealingKey.generate()
    return {
        "raw: sha256": median_of(lambda: hashlib.sha256(encoded).digest()),
        "raw: loopback http": loopback(encoded),
        "raw: copy": median_of(lambda: np.frombuffer(encoded, np.uint8).copy()),
        "seal": median_of(lambda: b"".join(sealing.seal(key, encoded, context=context))),
        "open": median_of(lambda: sealing.open_sealed(key, pieces, context=context)),
        "check schema and finiteness": median_of(lambda: weights.decode(encoded, schema)),
        "check norm and clip": median_of(lambda: weights.clip(model, 1.0)),
        "store, synced": median_of(store),
        "average two": median_of(lambda: federated_average(model, deltas, {"a": 1, "b": 2})),  # type: ignore[dict-item]
        "wrap key": median_of(lambda: sealing.wrap(key, wrapped.public, context=context)),
    }


def small_parts(folder: Path) -> dict[str, float]:
    """Seconds of what costs the same for every size."""
    key = SigningKey.generate()
    manifest = os.urandom(1500)
    envelope = key.sign("application/bench", manifest)
    ledger = LedgerStore(folder / "ledger.db")
    entry = CrossingEntry(verdict="sent", code=None, envelope=envelope.decode(), at=1)

    def append() -> None:
        with ledger.transaction() as tx:
            tx.append(Log.CROSSINGS, entry)

    found = {
        "sign envelope": median_of(lambda: key.sign("application/bench", manifest), 50),
        "verify envelope": median_of(lambda: verify(envelope, "application/bench", key.verify_key), 50),
        "append to the ledger, synced": median_of(append, 50),
    }
    ledger.close()
    return found


async def rounds(folder: Path) -> dict[int, dict[str, float]]:
    """Rounds of a federation of six processes, for each size of model."""
    federation = Federation(folder / "home")
    federation.start()
    found = {}
    try:
        await federation.ready()
        for zone in ZONES:
            await federation.freeze(zone)
        for parameters, count in ROUNDS.items():
            before = federation.processor_s()
            times = await asyncio.wait_for(federation.rounds(parameters, count), 300)
            found[parameters] = {
                **summary(times),
                "processor_s": (federation.processor_s() - before) / count,
                "memory_mb": federation.memory_mb(),
            }
    finally:
        federation.stop()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="isthmus-bench-") as name:
        folder = Path(name)
        found = asyncio.run(rounds(folder))
        report: dict[str, Any] = {
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
            "small_parts_s": small_parts(folder),
            "models": {},
        }
        for parameters, figures in found.items():
            measured = parts(parameters, folder)
            floor = 4 * measured["raw: loopback http"]
            report["models"][parameters] = {
                "bytes": 4 * parameters,
                "round": figures,
                "parts_s": measured,
                "round_to_four_plain_transfers": figures["median_s"] / floor,
                **({"round_to_limit": figures["median_s"] / LIMITS_S[parameters]} if parameters in LIMITS_S else {}),
            }
    Path("bench-report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    for parameters, each in report["models"].items():
        limit = f", {each['round_to_limit']:.2f} of the limit" if "round_to_limit" in each else ""
        print(
            f"{parameters:>10,} parameters: {each['round']['median_s']:.3f} s a round"
            f" (best {each['round']['best_s']:.3f}), {each['round']['processor_s']:.3f} s of processor time"
            f", {each['round']['memory_mb']:.0f} MB in all"
            f" {each['round_to_four_plain_transfers']:.1f} x four plain transfers{limit}"
        )
        for part, seconds in each["parts_s"].items():
            print(f"{'':>12}{part:<30}{1000 * seconds:9.2f} ms")
    for part, seconds in report["small_parts_s"].items():
        print(f"{'':>12}{part:<30}{1000 * seconds:9.2f} ms")
    machine = report["machine"]
    print(f"Load average {machine['load']:.1f} on {machine['cores']} cores. Written: bench-report.json")


if __name__ == "__main__":
    main()
