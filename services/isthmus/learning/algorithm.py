"""What the algorithm that orders name is: its name, and the digest of the source that runs.

An order carries no code, only this name and digest; a zone whose own source has another digest refuses the order. The
digest covers the modules of this package, not the libraries beneath, which the lock file fixes.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from isthmus.contracts.identifiers import Digest, Name

NAME = Name("motion-forecast-fedavg")


@functools.cache
def digest() -> Digest:
    """Return the SHA-256 over the package's own modules: for each, by name, the length and bytes of name and source.

    This reads the installed package, and nothing else, once per process.
    """
    running = hashlib.sha256()
    modules = (item for item in resources.files("isthmus.learning").iterdir() if item.name.endswith(".py"))
    for module in sorted(modules, key=lambda item: item.name):
        for part in (module.name.encode(), module.read_bytes()):
            running.update(len(part).to_bytes(8, "big"))
            running.update(part)
    return Digest.from_bytes(running.digest())
