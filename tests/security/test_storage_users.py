"""Every user of a zone's store tries, on a real server, everything it must not do."""

from __future__ import annotations

import datetime as dt
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import urllib3
from minio import Minio as MinioClient
from minio.commonconfig import COMPLIANCE, CopySource
from minio.credentials.providers import AssumeRoleProvider, StaticProvider
from minio.deleteobjects import DeleteObject
from minio.error import MinioAdminException, S3Error
from minio.minioadmin import MinioAdmin
from minio.retention import Retention
from minio.versioningconfig import SUSPENDED, VersioningConfig

from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.kit.objects.place import Credentials, read_credentials
from isthmus.zone.buckets import BucketPlan, set_up
from isthmus.zone.users import User, policy
from servers.minio import ROOT, running
from servers.sites import StoredSite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.minio import Minio

PACKAGE = Path(__file__).parents[2] / "services/isthmus"
FILE, NOTE = "files/file-00/motion.parquet", "cn-shanghai/internal/0000000000000007/0123456789abcdef.note"
SEALED, SIGNED = b"a sealed file", b"a signed head"
DENIED = {"AccessDenied", "MethodNotAllowed"}
FAR = dt.datetime(2126, 1, 1, tzinfo=dt.UTC)
EMPTY_POLICY = '{"Version":"2012-10-17","Statement":[]}'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredSite]:
    """A site with one sealed file, put by ingest, and one checkpoint, put by the border."""
    with running(tmp_path_factory.mktemp("minio")) as server:
        site = StoredSite(server, tmp_path_factory.mktemp("site"))
        site.set_up()
        site.store(User.INGEST).put(FILE, SEALED)
        site.store(User.BORDER).put(NOTE, SIGNED)
        yield site


def sdk(server: Minio, credentials: Credentials) -> MinioClient:
    """The SDK's own client, without any of our code in between: what an attacker with the credentials would use."""
    return MinioClient(
        server.endpoint, credentials.access_key, credentials.secret_key, secure=False, region="us-east-1"
    )


def version_of(site: StoredSite, bucket: str, name: str) -> str:
    return str(sdk(site.server, ROOT).stat_object(bucket, name).version_id)


def put(client: MinioClient, bucket: str, name: str, data: bytes = b"forged") -> Any:
    return client.put_object(bucket, name, io.BytesIO(data), len(data))


def delete_many(client: MinioClient, bucket: str, name: str) -> None:
    for error in client.remove_objects(bucket, [DeleteObject(name)]):
        raise PermissionError(error.code)


Act = "Callable[[MinioClient, StoredSite], Any]"

READING: dict[str, Act] = {
    "get": lambda c, s: c.get_object(s.data, FILE),
    "stat": lambda c, s: c.stat_object(s.data, FILE),
    "get a version": lambda c, s: c.get_object(s.data, FILE, version_id=version_of(s, s.data, FILE)),
    "copy to where it may write": lambda c, s: c.copy_object(s.data, "files/copy.bin", CopySource(s.data, FILE)),
    "copy a part": lambda c, s: c._execute(
        "PUT",
        s.data,
        "files/copy.bin",
        headers={"x-amz-copy-source": f"/{s.data}/{FILE}"},
        query_params={"partNumber": "1", "uploadId": c._create_multipart_upload(s.data, "files/copy.bin", {})},
    ),
    "tags": lambda c, s: c.get_object_tags(s.data, FILE),
}
LISTING: dict[str, Act] = {
    "list": lambda c, s: list(c.list_objects(s.data)),
    "list versions": lambda c, s: list(c.list_objects(s.data, include_version=True)),
    "list uploads": lambda c, s: c._list_multipart_uploads(s.data),
}
WRITING: dict[str, Act] = {
    "put": lambda c, s: put(c, s.data, "files/forged.bin"),
    "put over": lambda c, s: put(c, s.data, FILE),
    "begin an upload": lambda c, s: c._create_multipart_upload(s.data, "files/forged.bin", {}),
    "tag": lambda c, s: c._execute("PUT", s.data, FILE, body=b"<Tagging/>", query_params={"tagging": ""}),
}
DELETING: dict[str, Act] = {
    "delete": lambda c, s: c.remove_object(s.data, FILE),
    "delete a version": lambda c, s: c.remove_object(s.data, FILE, version_id=version_of(s, s.data, FILE)),
    "delete many": lambda c, s: delete_many(c, s.data, FILE),
    "delete the bucket": lambda c, s: c.remove_bucket(s.data),
}
ELSEWHERE: dict[str, Act] = {
    "put outside the prefix": lambda c, s: put(c, s.data, "elsewhere/forged.bin"),
    "put at the top": lambda c, s: put(c, s.data, "forged.bin"),
    "put beside the prefix": lambda c, s: put(c, s.data, "files.bin"),
    "make a bucket": lambda c, _: c.make_bucket("forged-bucket"),
}
CHECKPOINTS: dict[str, Act] = {
    "get a checkpoint": lambda c, s: c.get_object(s.checkpoints, NOTE),
    "list checkpoints": lambda c, s: list(c.list_objects(s.checkpoints)),
    "put a checkpoint": lambda c, s: put(c, s.checkpoints, "forged.note"),
    "delete a checkpoint": lambda c, s: c.remove_object(s.checkpoints, NOTE),
}
UNLOCKING: dict[str, Act] = {
    "delete a checkpoint": lambda c, s: c.remove_object(s.checkpoints, NOTE),
    "delete its version": lambda c, s: c.remove_object(
        s.checkpoints, NOTE, version_id=version_of(s, s.checkpoints, NOTE)
    ),
    "delete many": lambda c, s: delete_many(c, s.checkpoints, NOTE),
    "lengthen its retention": lambda c, s: c.set_object_retention(s.checkpoints, NOTE, Retention(COMPLIANCE, FAR)),
    "hold it": lambda c, s: c.enable_object_legal_hold(s.checkpoints, NOTE),
    "take the lock off": lambda c, s: c.delete_object_lock_config(s.checkpoints),
    "delete the bucket": lambda c, s: c.remove_bucket(s.checkpoints),
}
CONFIGURING: dict[str, Act] = {
    "suspend versions": lambda c, s: c.set_bucket_versioning(s.data, VersioningConfig(SUSPENDED)),
    "open the bucket": lambda c, s: c.set_bucket_policy(s.data, EMPTY_POLICY),
    "read the bucket's policy": lambda c, s: c.get_bucket_policy(s.data),
    "drop the lifecycle": lambda c, s: c.delete_bucket_lifecycle(s.data),
}

FORBIDDEN = [
    (User.INGEST, READING | LISTING | DELETING | ELSEWHERE | CHECKPOINTS | CONFIGURING),
    (User.COMPUTE, WRITING | DELETING | ELSEWHERE | CHECKPOINTS | CONFIGURING),
    (User.BORDER, READING | LISTING | WRITING | DELETING | ELSEWHERE | UNLOCKING | CONFIGURING),
]


@pytest.mark.parametrize(
    ("user", "act"),
    [pytest.param(user, act, id=f"{user.value}: {name}") for user, acts in FORBIDDEN for name, act in acts.items()],
)
def test_what_a_user_is_not_for_is_denied(
    site: StoredSite, user: User, act: Callable[[MinioClient, StoredSite], Any]
) -> None:
    with pytest.raises((S3Error, PermissionError)) as denial:
        act(sdk(site.server, site.credentials(user)), site)
    code = denial.value.code if isinstance(denial.value, S3Error) else str(denial.value)
    assert code in DENIED
    root = sdk(site.server, ROOT)
    assert root.get_object(site.data, FILE).data == SEALED
    assert root.get_object(site.checkpoints, NOTE).data == SIGNED


def test_what_each_user_is_for_works(site: StoredSite) -> None:
    site.store(User.INGEST).put("files/file-01/motion.parquet", b"another")
    assert site.store(User.COMPUTE).get("files/file-01/motion.parquet") == b"another"
    assert FILE in site.store(User.COMPUTE).names("files/")
    assert site.store(User.BORDER).get(NOTE) == SIGNED
    assert list(site.store(User.BORDER).names("cn-shanghai/")) == [NOTE]


def test_write_once_needs_no_right_to_look(site: StoredSite) -> None:
    for data in (b"again", bytes(17 << 20)):
        with pytest.raises(Refusal) as refusal:
            site.store(User.INGEST).put(FILE, data)
        assert refusal.value.code is Code.ALREADY_EXISTS


def test_what_is_forbidden_is_told_with_its_code_and_a_remedy(site: StoredSite) -> None:
    for call in (
        lambda: site.store(User.INGEST).get(FILE),
        lambda: site.store(User.INGEST).size(FILE),
        lambda: list(site.store(User.INGEST).names()),
        lambda: site.store(User.COMPUTE).put("files/x.bin", b""),
        lambda: site.store(User.BORDER, site.data).get(FILE),
    ):
        with pytest.raises(Refusal) as refusal:
            call()
        assert refusal.value.code is Code.FORBIDDEN
        assert refusal.value.remedy


def test_compute_learns_that_an_object_is_missing(site: StoredSite) -> None:
    with pytest.raises(Refusal) as refusal:
        site.store(User.COMPUTE).get("files/none.bin")
    assert refusal.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("user", [User.INGEST, User.BORDER])
def test_who_writes_over_an_object_without_the_condition_loses_nothing_of_it(site: StoredSite, user: User) -> None:
    """The store knows no policy that demands the condition. What was there remains, as the earlier version."""
    bucket, name = site.bucket(user), {User.INGEST: "files/kept.bin", User.BORDER: "kept.note"}[user]
    site.store(user).put(name, b"kept")
    kept = version_of(site, bucket, name)
    put(sdk(site.server, site.credentials(user)), bucket, name)
    assert sdk(site.server, ROOT).get_object(bucket, name, version_id=kept).data == b"kept"
    with pytest.raises(S3Error) as denial:
        sdk(site.server, site.credentials(user)).remove_object(bucket, name, version_id=kept)
    assert denial.value.code == "AccessDenied"


def test_not_even_the_administrator_deletes_a_checkpoint_through_the_store(site: StoredSite) -> None:
    root, version = sdk(site.server, ROOT), version_of(site, site.checkpoints, NOTE)
    with pytest.raises(S3Error):
        root.remove_object(site.checkpoints, NOTE, version_id=version)
    with pytest.raises(S3Error):
        root._execute(
            "DELETE",
            site.checkpoints,
            NOTE,
            headers={"x-amz-bypass-governance-retention": "true"},
            query_params={"versionId": version},
        )
    with pytest.raises(S3Error):
        root.set_bucket_versioning(site.checkpoints, VersioningConfig(SUSPENDED))
    soon = Retention(COMPLIANCE, dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    for client in (root, sdk(site.server, site.credentials(User.BORDER))):
        with pytest.raises(S3Error, match="WORM"):
            client.set_object_retention(site.checkpoints, NOTE, soon)
    assert root.get_object(site.checkpoints, NOTE, version_id=version).data == SIGNED


@pytest.mark.parametrize("user", list(User))
def test_no_user_administers_not_even_itself(site: StoredSite, user: User) -> None:
    own = site.credentials(user)
    admin = MinioAdmin(
        endpoint=site.server.endpoint, credentials=StaticProvider(own.access_key, own.secret_key), secure=False
    )
    for act in (
        admin.user_list,
        lambda: admin.user_add("forged", "forged-secret"),
        lambda: admin.user_add(own.access_key, "changed-secret"),
        lambda: admin.policy_set("consoleAdmin", user=own.access_key),
        lambda: admin.policy_add("forged", policy=policy(User.COMPUTE, site.data)),
        lambda: admin.add_service_account(access_key="forged-account", secret_key="forged-secret"),  # noqa: S106 - of nobody
        lambda: admin.config_set("api", {"stale_uploads_expiry": "9999h"}),
    ):
        with pytest.raises(MinioAdminException) as denial:
            act()
        assert denial.value._code == "403"


@pytest.mark.parametrize("user", list(User))
def test_a_session_that_a_user_takes_out_is_as_small_as_the_user(site: StoredSite, user: User) -> None:
    own = site.credentials(user)
    session = AssumeRoleProvider(
        sts_endpoint=f"http://{site.server.endpoint}", access_key=own.access_key, secret_key=own.secret_key
    ).retrieve()
    client = MinioClient(
        site.server.endpoint,
        session.access_key,
        session.secret_key,
        session.session_token,
        secure=False,
        region="us-east-1",
    )
    for act in (DELETING | ELSEWHERE).values():
        with pytest.raises((S3Error, PermissionError)):
            act(client, site)


@pytest.mark.parametrize(("user", "method"), [(User.COMPUTE, "GET"), (User.INGEST, "PUT"), (User.BORDER, "PUT")])
def test_a_presigned_url_is_worth_nothing(site: StoredSite, user: User, method: str) -> None:
    """Whoever had a user's credentials could make one. For the administrator, who has no such policy, it works."""
    bucket = site.bucket(user)
    name = FILE if method == "GET" else "files/by-url.bin"
    with urllib3.PoolManager() as http:
        for credentials, status in ((site.credentials(user), 403), (ROOT, 200)):
            url = sdk(site.server, credentials).get_presigned_url(method, bucket, name)
            assert http.request(method, url, body=b"by url" if method == "PUT" else None).status == status


def test_no_code_of_the_package_makes_a_presigned_url() -> None:
    sources = {path: path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    assert len(sources) > 100
    made = re.compile(r"presigned_|get_presigned|presign_v4|post_presign|PostPolicy|X-Amz-Signature", re.IGNORECASE)
    assert [path.name for path, text in sources.items() if made.search(text)] == []


def test_no_request_of_the_store_carries_its_signature_in_the_url(
    site: StoredSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    real = urllib3.PoolManager.urlopen

    def watched(pool: urllib3.PoolManager, method: str, url: str, *rest: Any, **named: Any) -> Any:
        sent.append(url)
        return real(pool, method, url, *rest, **named)

    monkeypatch.setattr(urllib3.PoolManager, "urlopen", watched)
    site.set_up()
    site.store(User.INGEST).put("files/watched.bin", iter([bytes(17 << 20)]))
    compute = site.store(User.COMPUTE)
    assert (compute.size("files/watched.bin"), compute.read_range("files/watched.bin", 1, 2)) == (17 << 20, bytes(2))
    assert len(list(compute.names("files/"))) > 1
    assert len(compute.get("files/watched.bin")) == 17 << 20
    assert len(sent) > 15
    assert [url for url in sent if "signature" in url.lower() or "credential" in url.lower()] == []


class TestSetUp:
    def test_twice_leaves_the_same_state_and_the_same_credentials(self, site: StoredSite) -> None:
        before = {user: site.credentials(user) for user in User}
        mode = {user: site.file(user).stat().st_mode & 0o777 for user in User}
        reports = site.set_up()
        assert not any(report.made or new for report in reports for _, new in report.users.values())
        assert {user: site.credentials(user) for user in User} == before
        assert set(mode.values()) == {0o600}
        assert site.store(User.COMPUTE).get(FILE) == SEALED

    def test_a_user_that_was_widened_or_lost_is_as_planned_again(self, site: StoredSite) -> None:
        admin = MinioAdmin(
            endpoint=site.server.endpoint, credentials=StaticProvider(ROOT.access_key, ROOT.secret_key), secure=False
        )
        admin.policy_set("readwrite", user=site.credentials(User.INGEST).access_key)
        admin.user_remove(site.credentials(User.COMPUTE).access_key)
        assert site.store(User.INGEST).get(FILE) == SEALED
        site.set_up()
        with pytest.raises(Refusal) as refusal:
            site.store(User.INGEST).get(FILE)
        assert refusal.value.code is Code.FORBIDDEN
        assert site.store(User.COMPUTE).get(FILE) == SEALED

    def test_secrets_are_long_and_each_zones_own(self, site: StoredSite, tmp_path: Path) -> None:
        other = StoredSite(site.server, tmp_path, "us-texas", "us-texas-checkpoints")
        other.set_up()
        both = [zone.credentials(user) for zone in (site, other) for user in User]
        assert len({each.access_key for each in both}) == len({each.secret_key for each in both}) == 6
        assert all(len(each.secret_key) == 40 for each in both)
        for user in User:
            with pytest.raises(Refusal):
                site.server.store(site.bucket(user), other.credentials(user)).put("files/x.bin", b"")

    def test_a_bucket_without_a_lock_is_not_taken_for_checkpoints(self, site: StoredSite, tmp_path: Path) -> None:
        sdk(site.server, ROOT).make_bucket("no-lock")
        plan = BucketPlan(site.server.place("no-lock"), {User.BORDER: tmp_path / "border.json"}, 7)
        with pytest.raises(Fault) as fault:
            set_up(plan, ROOT)
        assert fault.value.code is Code.CONFIGURATION

    def test_no_one_but_the_administrator_sets_up(self, site: StoredSite, tmp_path: Path) -> None:
        plan = BucketPlan(site.server.place(site.data), {User.INGEST: tmp_path / "ingest.json"})
        wrong = Credentials(ROOT.access_key, "a-wrong-secret-canary")
        for credentials, code in ((site.credentials(User.INGEST), Code.FORBIDDEN), (wrong, Code.FORBIDDEN)):
            with pytest.raises(Refusal) as refusal:
                set_up(plan, credentials)
            assert refusal.value.code is code
            assert "canary" not in str(refusal.value)

    def test_two_users_with_one_name_are_refused(self, site: StoredSite) -> None:
        shared = {User.INGEST: site.file(User.INGEST), User.COMPUTE: site.file(User.INGEST)}
        with pytest.raises(Refusal) as refusal:
            set_up(BucketPlan(site.server.place(site.data), shared), ROOT)
        assert refusal.value.code is Code.INPUT_INVALID

    def test_a_store_that_is_away_is_a_fault(self, site: StoredSite, tmp_path: Path) -> None:
        away = site.server.place(site.data).model_copy(update={"endpoint": "127.0.0.1:1"})
        with pytest.raises(Fault) as fault:
            set_up(BucketPlan(away, {User.INGEST: tmp_path / "ingest.json"}), ROOT)
        assert fault.value.code is Code.STORAGE_FAILED


class TestCredentialsFile:
    @pytest.mark.parametrize("text", ['{"access_key": "user", "secret_key": "secret-one"}', "user\nsecret-one\n"])
    def test_both_spellings_are_read(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "credentials"
        path.touch(0o600)
        path.write_text(text)
        assert read_credentials(path) == Credentials("user", "secret-one")

    @pytest.mark.parametrize(
        "text",
        ["", "canary", "canary\n", "a\nb\ncanary\n", '{"access_key": "user"}', '["canary"]', '{"canary',
         "us er\ncanary", '{"access_key": "user", "secret_key": ["canary"]}', "user\ncanary\x07\n"],
    )  # fmt: skip
    def test_what_is_none_is_a_fault_that_quotes_nothing(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "credentials"
        path.touch(0o600)
        path.write_text(text)
        with pytest.raises(Fault) as fault:
            read_credentials(path)
        assert fault.value.code is Code.CONFIGURATION
        assert "canary" not in str(fault.value)

    def test_a_file_that_others_can_read_is_a_fault(self, tmp_path: Path) -> None:
        path = tmp_path / "credentials"
        path.write_text("user\nsecret-one\n")
        path.chmod(0o640)
        with pytest.raises(Fault) as fault:
            read_credentials(path)
        assert fault.value.code is Code.CONFIGURATION
