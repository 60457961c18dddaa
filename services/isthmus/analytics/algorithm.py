"""What the algorithm that questions' orders name is: its name, and the digest of the source and the catalogue.

An order carries a question, never code. A zone whose own source or catalogue has another digest refuses the order:
what is counted, and within which public bounds, is the same on both sides or nothing is. The libraries beneath are
fixed by the lock file, not by the digest.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from isthmus.contracts.identifiers import Digest, Name
from isthmus.proof.ids import catalogue_digest

NAME = Name("statistics")


@functools.cache
def digest() -> Digest:
    """Return the SHA-256 over the catalogue's digest and the package's own modules.

    For the catalogue, and then for each module by name: the length and bytes of its name and of its digest or source.
    This reads the installed package, and nothing else, once per process.
    """
    running = hashlib.sha256()
    modules = [item for item in resources.files("isthmus.analytics").iterdir() if item.name.endswith(".py")]
    sources = [(item.name, item.read_bytes()) for item in sorted(modules, key=lambda item: item.name)]
    for name, body in [("catalogue", catalogue_digest().encode()), *sources]:
        for part in (name.encode(), body):
            running.update(len(part).to_bytes(8, "big"))
            running.update(part)
    return Digest.from_bytes(running.digest())
