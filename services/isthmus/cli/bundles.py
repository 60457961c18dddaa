"""Evidence bundles on disk: one file for each site, in a folder or a zip file.

Rules: `<site>.json` holds the canonical bytes of that site's `contracts.inside.Evidence`; nothing else is in a bundle.
What is read may be hostile: names are held to the form of a site's id, sizes to a limit, before anything is unpacked.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import SiteId
from isthmus.proof import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from isthmus.contracts.inside import Evidence

SUFFIX = ".json"
MOST_SITES = 16
LARGEST = 1 << 30
"""Most bytes of all files together."""


def write(target: Path, evidence: Iterable[Evidence]) -> None:
    """Write a bundle: a zip file where `target` ends with `.zip`, else a new folder.

    Raises:
        Refusal: `ALREADY_EXISTS`.
        Fault: `STORAGE_FAILED`.
    """
    contents = {f"{each.site}{SUFFIX}": canonical.dump(each) for each in evidence}
    try:
        if target.suffix == ".zip":
            with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as bundle:
                for name, content in contents.items():
                    bundle.writestr(name, content)
        else:
            target.mkdir(parents=True)
            for name, content in contents.items():
                (target / name).write_bytes(content)
    except FileExistsError:
        what = f"{target} is there already, and evidence is never overwritten."
        raise Refusal(Code.ALREADY_EXISTS, what, remedy="Choose another name.") from None
    except OSError as error:
        what = f"The bundle {target} cannot be written."
        raise Fault(Code.STORAGE_FAILED, what, why=error.strerror or "", remedy="Free space, or look at it.") from error


def read(source: Path) -> Mapping[str, bytes]:
    """Return a bundle's files by name. Whether they are any good, the verifier says.

    Raises:
        Refusal: `EVIDENCE_INVALID`: this is no bundle.
        Fault: `STORAGE_FAILED`: it cannot be read.
    """
    try:
        if source.is_dir():
            files = sorted(source.iterdir())
            _check({file.name: file.stat().st_size for file in files})
            return {file.name: file.read_bytes() for file in files}
        with zipfile.ZipFile(source) as bundle:
            members = bundle.infolist()
            if len({member.filename for member in members}) != len(members):
                raise _no_bundle("it holds two files of one name")
            _check({member.filename: member.file_size for member in members})
            return {member.filename: _unpacked(bundle, member) for member in members}
    except OSError as error:
        what = f"The bundle {source} cannot be read."
        raise Fault(Code.STORAGE_FAILED, what, why=error.strerror or "", remedy="Name a folder or zip file.") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError):
        raise _no_bundle("it is neither a folder nor a whole zip file") from None


def _check(sizes: Mapping[str, int]) -> None:
    """Hold names and stated sizes to the limits."""
    if not sizes:
        raise _no_bundle("it is empty")
    if len(sizes) > MOST_SITES:
        raise _no_bundle(f"it holds more than {MOST_SITES} files")
    if sum(sizes.values()) > LARGEST:
        raise _no_bundle(f"it holds more than {LARGEST} bytes")
    for name in sizes:
        if not name.endswith(SUFFIX) or SiteId.pattern.fullmatch(name.removesuffix(SUFFIX)) is None:
            raise _no_bundle("a file in it is not named after a site")


def _unpacked(bundle: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Unpack no more than the member's stated size: a header may lie."""
    with bundle.open(member) as file:
        content = file.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise _no_bundle("a file in it has not the size that it states")
    return content


def _no_bundle(why: str) -> Refusal:
    return Refusal(
        Code.EVIDENCE_INVALID, "This is no evidence bundle.", why=why, remedy="Export one: `isthmus ledger export`."
    )
