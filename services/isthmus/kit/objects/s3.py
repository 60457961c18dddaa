"""The object store in a bucket of an S3 server.

Rules (beside those of `kit.objects.port`):
1. That an object is written once rests on the server alone, on a condition of the put (`If-None-Match: *`, RFC 9110
   section 13.1.2), also at the end of an upload in parts. Nothing is looked up first: the user of ingest may neither
   read nor list, and between looking and writing another could write.
2. What is larger than a part goes up in parts, a few at a time, so that no more than those is in memory. An upload that
   ends otherwise than well is aborted; nothing of it was ever to be seen. What a killed writer left of one, the store
   drops after a day.
3. Where an answer was lost, it is not known whether an object was stored. Then this is said, a fault, and not guessed.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import structlog

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.kit.ahead import ahead
from isthmus.kit.objects.port import check_name, check_prefix, check_range, is_name, missing, taken
from isthmus.kit.objects.requests import PATIENT, PRECONDITION_FAILED, UNREACHABLE, Failed, Requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from isthmus.kit.objects.place import Credentials, S3Place
    from isthmus.kit.objects.requests import Patience

PART = 16 << 20
"""Bytes of a part. S3 takes 5 MiB to 5 GiB, and 10,000 parts."""
PARTS_AT_ONCE = 3
ONLY_IF_ABSENT = {"If-None-Match": "*"}
OCTETS = {"Content-Type": "application/octet-stream"}
XML = {"Content-Type": "application/xml"}

log = structlog.get_logger(__name__)


class S3Store:
    """An object store in one bucket, as one user."""

    def __init__(
        self, place: S3Place, credentials: Credentials, *, patience: Patience = PATIENT, part: int = PART
    ) -> None:
        self._requests = Requests(place, credentials, patience)
        self._part = part

    def put(self, name: str, data: Iterable[bytes] | bytes) -> None:
        """Store `data` under a name that is not taken."""
        check_name(name)
        parts = _parts(data, self._part)
        first = next(parts)
        second = next(parts, None)
        try:
            if second is None:
                self._requests.ask("PUT", name, body=first, headers={**OCTETS, **ONLY_IF_ABSENT})
            else:
                self._put_in_parts(name, chain((first, second), parts))
        except Failed as failed:
            raise _not_stored(name, failed) from None

    def get(self, name: str) -> bytes:
        """Return an object whole."""
        check_name(name)
        try:
            return bytes(self._requests.ask("GET", name).data)
        except Failed as failed:
            raise _not_read(name, failed) from None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on."""
        check_range(offset, length)
        if length == 0:
            self.size(name)
            return b""
        check_name(name)
        try:
            answer = self._requests.ask("GET", name, headers={"Range": f"bytes={offset}-{offset + length - 1}"})
        except Failed as failed:
            if failed.code == "InvalidRange":
                return b""
            raise _not_read(name, failed) from None
        return bytes(answer.data)

    def size(self, name: str) -> int:
        """Return an object's size in bytes."""
        check_name(name)
        try:
            return int(self._requests.ask("HEAD", name).headers["content-length"])
        except Failed as failed:
            raise _not_read(name, failed) from None

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names that begin with `prefix`, sorted: a page of them is asked for at a time."""
        check_prefix(prefix)
        query = {"list-type": "2", "prefix": prefix}
        while True:
            try:
                page = ET.fromstring(self._requests.ask("GET", query=query).data)  # noqa: S314 - expat bounds what it expands
            except Failed as failed:
                raise failed.told("The store's objects cannot be listed.") from None
            yield from (name for key in page.iterfind("{*}Contents/{*}Key") if is_name(name := key.text or ""))
            following = page.findtext("{*}NextContinuationToken")
            if not following:
                return
            query["continuation-token"] = following

    def _put_in_parts(self, name: str, parts: Iterator[bytes]) -> None:
        answer = self._requests.ask("POST", name, headers=dict(OCTETS), query={"uploads": ""})
        upload = ET.fromstring(answer.data).findtext("{*}UploadId") or ""  # noqa: S314 - expat bounds what it expands
        try:
            body = _completion(self._sent(name, upload, parts))
            query = {"uploadId": upload}
            answer = self._requests.ask("POST", name, body=body, headers={**XML, **ONLY_IF_ABSENT}, query=query)
            _require_complete(answer.data)
        except BaseException:
            self._abort(name, upload)
            raise

    def _sent(self, name: str, upload: str, parts: Iterator[bytes]) -> list[str]:
        """Send the parts, a few at a time; return their tags in order."""

        def send(numbered: tuple[int, bytes]) -> str:
            number, part = numbered
            query = {"partNumber": str(number), "uploadId": upload}
            try:
                return str(self._requests.ask("PUT", name, body=part, query=query).headers["etag"]).strip('"')
            except Failed as failed:
                raise Failed(failed.code) from None  # a part is no object, wherever it ended up

        return list(ahead(send, enumerate(parts, start=1), PARTS_AT_ONCE))

    def _abort(self, name: str, upload: str) -> None:
        """Drop an upload's parts now, where the store answers."""
        try:
            self._requests.ask("DELETE", name, query={"uploadId": upload})
        except Failed as failed:
            if failed.code != "NoSuchUpload":
                log.warning("upload_not_aborted", code=Code.STORAGE_FAILED.value, object=name, why=failed.code)


def _parts(data: Iterable[bytes] | bytes, size: int) -> Iterator[bytes]:
    """Cut data into parts of `size` bytes, the last one shorter; one empty part for no data."""
    if isinstance(data, bytes):
        yield from (data[start : start + size] for start in range(0, max(len(data), 1), size))
        return
    held, sent = bytearray(), False
    for piece in data:
        held += piece
        while len(held) > size:
            yield bytes(held[:size])
            del held[:size]
            sent = True
    if held or not sent:
        yield bytes(held)


def _completion(tags: list[str]) -> bytes:
    root = ET.Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for number, tag in enumerate(tags, start=1):
        part = ET.SubElement(root, "Part")
        ET.SubElement(part, "PartNumber").text = str(number)
        ET.SubElement(part, "ETag").text = f'"{tag}"'
    return ET.tostring(root)


def _require_complete(answer: bytes) -> None:
    """Look for the failure that S3 may still report after it has answered 200."""
    root = ET.fromstring(answer.strip())  # noqa: S314 - expat bounds what it expands
    if root.tag.rpartition("}")[2] == "Error":
        code = root.findtext("{*}Code") or "an unknown error"
        raise Failed(code, uncertain=code != PRECONDITION_FAILED)


def _not_stored(name: str, failed: Failed) -> Refusal | Fault:
    if failed.is_open:
        said = "answer was lost" if failed.code in {UNREACHABLE, PRECONDITION_FAILED} else f"answer is {failed.code}"
        why = f"The store's {said}. The object is there whole, or not at all."
        remedy = "See whether the store runs and has room. Then do this again, under another name."
        return Fault(Code.STORAGE_FAILED, f"It is not known whether {name} was stored.", why=why, remedy=remedy)
    if failed.code == PRECONDITION_FAILED:
        return taken(name)
    return failed.told(f"The object {name} cannot be stored.")


def _not_read(name: str, failed: Failed) -> Refusal | Fault:
    if failed.code == "NoSuchKey":
        return missing(name)
    return failed.told(f"The object {name} cannot be read.")
