"""A site's store as set-up makes it: buckets, users, and a store opened as each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.kit.objects.place import read_credentials
from isthmus.zone.buckets import BucketPlan, BucketReport, set_up
from isthmus.zone.users import User
from servers.minio import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from isthmus.kit.objects.place import Credentials
    from isthmus.kit.objects.s3 import S3Store
    from servers.minio import Minio


@dataclass(frozen=True)
class StoredSite:
    """The buckets and users of one site on `server`; credentials are files in `folder`."""

    server: Minio
    folder: Path
    data: str = "cn-shanghai"
    checkpoints: str = "cn-shanghai-checkpoints"

    def file(self, user: User) -> Path:
        return self.folder / f"{user.value}.json"

    def credentials(self, user: User) -> Credentials:
        return read_credentials(self.file(user))

    def bucket(self, user: User) -> str:
        return self.checkpoints if user is User.BORDER else self.data

    def store(self, user: User, bucket: str = "") -> S3Store:
        return self.server.store(bucket or self.bucket(user), self.credentials(user))

    def set_up(self, retention_days: int = 7) -> tuple[BucketReport, BucketReport]:
        files = {user: self.file(user) for user in (User.INGEST, User.COMPUTE)}
        return (
            set_up(BucketPlan(self.server.place(self.data), files), ROOT),
            set_up(
                BucketPlan(self.server.place(self.checkpoints), {User.BORDER: self.file(User.BORDER)}, retention_days),
                ROOT,
            ),
        )
