from __future__ import annotations

import asyncio
import json
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route
from structlog.testing import capture_logs

from isthmus.client.border import BorderClient
from isthmus.client.jobs import JobsClient
from isthmus.contracts.errors import Code, Fault, Refusal
from isthmus.contracts.identifiers import Digest, PersonId, SiteId
from isthmus.contracts.jobs import ApiRole, JobState
from isthmus.coordinator.app import Coordinator, assemble
from isthmus.coordinator.people import ANYONE, ROUTES, Credential, people_file, read_people, token_hash
from isthmus.coordinator.progress import Begun, Ended, Stopped
from isthmus.coordinator.settings import CoordinatorSettings
from isthmus.coordinator.store import Step
from isthmus.kit import web
from isthmus.kit.bell import Bell
from isthmus.kit.clock import ManualClock
from isthmus.kit.tokens import write_secret
from unit.coordinator.jobs import JOB, NOW, US, create, job_request, raw_json, record, request_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

TOKENS = {"ada": "engineer-token", "vera": "viewer-token"}
PEOPLE = {
    PersonId("ada"): Credential(sha256=token_hash(TOKENS["ada"]), role=ApiRole.ENGINEER),
    PersonId("vera"): Credential(sha256=token_hash(TOKENS["vera"]), role=ApiRole.VIEWER),
}
DOCUMENTATION = {"/openapi.json"}


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    write_secret(tmp_path / "people.toml", people_file(PEOPLE))
    settings = CoordinatorSettings(
        site=SiteId("hq"), border_url="http://border", people=tmp_path / "people.toml", data=tmp_path / "data"
    )
    unused = BorderClient(httpx2.AsyncClient(base_url="http://border"), "unused")
    return assemble(settings, unused, ManualClock(NOW))


@asynccontextmanager
async def calling(coordinator: Coordinator, person: str | None = "ada") -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"authorization": f"Bearer {TOKENS[person]}"} if person else {}
    transport = httpx2.ASGITransport(app=coordinator.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://hq", headers=headers) as http:
        yield http


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_a_job_is_recorded_shown_and_listed(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            jobs = JobsClient(http, TOKENS["ada"])
            view = await jobs.submit(job_request())
            assert (view.state, view.submitted_by, view.rounds) == (JobState.RUNNING, "ada", 2)
            assert [(zone.zone, zone.waiting) for zone in view.zones] == [("cn-shanghai", "order"), (US, "order")]
            assert await jobs.job(view.id) == view
            assert await jobs.jobs() == (view,)
            assert [event.event for event in await jobs.events(view.id)] == ["submitted"]
            assert (await jobs.results(view.id)).models == ()

    run(test)
    assert len(coordinator.store.orders(coordinator.store.running()[0])) == 2


def test_the_same_key_and_body_is_the_same_job(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            headers = {"idempotency-key": "a-1"}
            first = await http.post("/v1/jobs", json=request_json(), headers=headers)
            again = await http.post("/v1/jobs", json=request_json(), headers=headers)
            other = await http.post("/v1/jobs", json=request_json(rounds=3), headers=headers)
            assert (first.status_code, again.json()) == (201, first.json())
            assert (other.status_code, other.json()["code"]) == (409, "conflicting_payload")
            without = await http.post("/v1/jobs", json=request_json())
            assert without.json()["id"] != first.json()["id"]

    run(test)


def test_every_route_is_in_the_table(coordinator: Coordinator) -> None:
    served = {
        (method, route.path)
        for route in coordinator.app.routes
        if isinstance(route, Route) and route.path not in DOCUMENTATION
        for method in route.methods or ()
    }
    assert {entry for entry in served if entry[0] != "HEAD"} == set(ROUTES)


def test_a_route_outside_the_table_is_forbidden_to_everyone(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isthmus.coordinator.people.ROUTES", {})

    async def test() -> None:
        async with calling(coordinator) as http:
            assert (await http.get("/v1/jobs")).json()["code"] == "forbidden"

    run(test)


def test_only_engineers_submit_and_nobody_unnamed_sees_anything(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator, "vera") as http:
            assert (await http.get("/v1/jobs")).status_code == 200
            refused = await http.post("/v1/jobs", json=request_json())
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        async with calling(coordinator, None) as http:
            for (method, path), roles in ROUTES.items():
                for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer "}):
                    answer = await http.request(method, path.replace("{job_id}", JOB), headers=header)
                    expected = 200 if roles is ANYONE else 401
                    assert answer.status_code == expected, (method, path)

    run(test)
    assert coordinator.store.jobs() == ()


def test_an_officer_is_never_an_engineer(tmp_path: Path) -> None:
    path = tmp_path / "people.toml"
    write_secret(path, people_file(PEOPLE))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_people(path, frozenset({PersonId("vera")})) == PEOPLE
    with pytest.raises(Fault, match="officer"):
        read_people(path, frozenset({PersonId("ada")}))


@pytest.mark.parametrize("text", ["x", '["ada"]\nsha256 = "00"\nrole = "engineer"', '["ada"]\nrole = "root"', "a = 1"])
def test_a_tokens_file_that_cannot_be_understood_stops_the_start(tmp_path: Path, text: str) -> None:
    write_secret(tmp_path / "people.toml", text.encode())
    with pytest.raises(Fault) as fault:
        read_people(tmp_path / "people.toml")
    assert fault.value.code is Code.CONFIGURATION


def test_a_tokens_file_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "people.toml"
    write_secret(path, people_file(PEOPLE))
    path.chmod(0o644)
    with pytest.raises(Fault, match="others"):
        read_people(path)


def bad(**changes: Any) -> str:
    return json.dumps({**request_json(), **changes})


BAD = [
    ("", "the whole"),
    ("{", "the whole"),
    ("[" * 60_000, "the whole"),
    ('{"name": "a", "name": "b"}', "the whole"),
    (bad(clip_norm_micro=1.5), "clip_norm_micro"),
    (bad(clip_norm_micro=1.0), "clip_norm_micro"),
    (bad(canary_LSVAA=1.5), "`?`"),
    (bad(canary_LSVAA=1), "`?`"),
    (bad(name="CANARY LSVAA"), "name"),
    (bad(training={**request_json()["training"], "rounds": "canary"}), "training.rounds"),
    (bad(training={**request_json()["training"], "canary": 1}), "training.?"),
    (bad(training=None), "the whole"),
    (bad(zones=request_json()["zones"] * 2), "the whole"),
    (bad(zones=[{**request_json()["zones"][0], "zone": "hq"}]), "zones"),
    (bad(evaluation={"at_slots": [3], "band_um": 10_000, "minimum_vehicles": 10}), "evaluation"),
    (json.dumps({**raw_json(), "evaluation": request_json()["evaluation"]}), "evaluation"),
]


@pytest.mark.parametrize(("text", "place"), BAD)
def test_bad_input_is_named_by_its_place_and_never_repeated(coordinator: Coordinator, text: str, place: str) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            answer = await http.post("/v1/jobs", content=text.encode())
            assert (answer.status_code, answer.json()["code"]) == (422, "input_invalid"), answer.text
            assert place in answer.json()["what"]
            assert "canary" not in answer.text.lower()

    run(test)
    assert coordinator.store.jobs() == ()


def test_an_unknown_algorithm_a_foreign_model_and_a_flood_are_refused(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            unknown = await http.post("/v1/jobs", content=bad(algorithm="other"))
            assert unknown.json()["code"] == "algorithm_unknown"
            foreign = await http.post("/v1/jobs", content=bad(base=str(Digest.of(b"none"))))
            assert (foreign.status_code, foreign.json()["code"]) == (404, "not_found")
            large = await http.post("/v1/jobs", content=b" " * 70_000)
            assert (large.status_code, large.json()["code"]) == (413, "too_large")

    run(test)


@pytest.mark.parametrize("path", ["/v1/jobs/x", "/v1/jobs/job-0000000000000000", "/v1/models/x", "/v1/nothing"])
def test_what_is_not_there_is_not_found(coordinator: Coordinator, path: str) -> None:
    async def test() -> None:
        async with calling(coordinator) as http:
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    run(test)


def test_a_long_poll_is_woken_by_the_event(coordinator: Coordinator) -> None:
    """The wait is far longer than this test may take: only the event can end it."""

    async def test() -> None:
        create(coordinator.store)
        async with calling(coordinator) as http:
            jobs = JobsClient(http, TOKENS["ada"])
            poll = asyncio.create_task(jobs.events(JOB, 1, wait_s=25))
            await asyncio.to_thread(coordinator.store.record, JOB, Step((Begun(),), model=record(b"m", 0)))
            (event,) = await asyncio.wait_for(poll, 10)
            assert (event.event, event.slot, event.ordinal) == ("round_started", 0, 2)

    run(test)


def test_long_polls_end_when_the_service_stops(coordinator: Coordinator) -> None:
    async def test() -> None:
        create(coordinator.store)
        async with calling(coordinator) as http:
            poll = asyncio.create_task(JobsClient(http, TOKENS["ada"]).events(JOB, 1, wait_s=25))
            await asyncio.sleep(0)
            coordinator.bell.close()
            assert await asyncio.wait_for(poll, 10) == ()

    run(test)


def test_watching_ends_with_the_job(coordinator: Coordinator) -> None:
    async def test() -> None:
        create(coordinator.store)
        facts = (Stopped(US, Code.PERMIT_MISSING), Ended(JobState.FAILED))
        await asyncio.to_thread(coordinator.store.record, JOB, Step(facts))
        async with calling(coordinator) as http:
            jobs = JobsClient(http, TOKENS["ada"])
            told = [(event.event, event.site, event.code) async for event in jobs.watch(JOB)]
            assert told[-2:] == [("refused", US, Code.PERMIT_MISSING), ("failed", None, Code.PERMIT_MISSING)]
            assert [event async for event in jobs.watch(JOB, after=99)] == []

    run(test)


class Away:
    """A coordinator that is away for its first `silent_s` seconds, and every second poll after. Pausing passes time."""

    def __init__(self, coordinator: Coordinator, silent_s: float) -> None:
        self._coordinator = coordinator
        self._silent_s = silent_s
        self.time = 0.0
        self.pauses: list[float] = []
        self.polls: list[str] = []

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.polls.append(request.url.params.get("after", ""))
        if self.time < self._silent_s or len(self.polls) % 2:
            raise httpx2.ConnectError("refused")
        async with httpx2.ASGITransport(app=self._coordinator.app) as inner:
            answer = await inner.handle_async_request(request)
            return httpx2.Response(answer.status_code, content=await answer.aread())

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds

    def client(self, http: httpx2.AsyncClient, token: str = TOKENS["ada"]) -> JobsClient:
        return JobsClient(http, token, pause=self.pause, now=lambda: self.time)

    def calling(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self.handle), base_url="http://hq")


def test_watching_goes_on_when_the_coordinator_has_been_away(coordinator: Coordinator) -> None:
    away = Away(coordinator, silent_s=50)

    async def test() -> None:
        create(coordinator.store)
        told = []
        async with away.calling() as http:
            async for event in away.client(http).watch(JOB):
                told.append((event.ordinal, event.event))
                if event.event == "submitted":
                    ends = Step((Stopped(US, Code.PERMIT_MISSING), Ended(JobState.FAILED)))
                    await asyncio.to_thread(coordinator.store.record, JOB, ends)
        assert told == [(1, "submitted"), (2, "refused"), (3, "failed")]

    run(test)
    assert away.pauses[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert away.pauses[-1] == 0.2, "an answer makes it patient anew"
    assert away.polls[-2:] == ["1", "1"], "it asks for what came after the last event"


def test_watching_ends_when_the_coordinator_stays_away(coordinator: Coordinator) -> None:
    away = Away(coordinator, silent_s=float("inf"))

    async def test() -> None:
        async with away.calling() as http:
            with pytest.raises(Fault) as fault:
                await anext(away.client(http).watch(JOB))
            assert fault.value.code is Code.PEER_UNREACHABLE

    run(test)
    assert away.time == pytest.approx(60)
    assert max(away.pauses) == 5


def test_watching_takes_a_refusal_for_an_answer(coordinator: Coordinator) -> None:
    away = Away(coordinator, silent_s=0)

    async def test() -> None:
        async with away.calling() as http:
            with pytest.raises(Refusal) as refused:
                await anext(away.client(http, "wrong").watch(JOB))
            assert refused.value.code is Code.UNAUTHENTICATED

    run(test)
    assert away.pauses == [0.2]


def test_a_model_is_served_with_its_lineage_and_refused_when_altered(coordinator: Coordinator, tmp_path: Path) -> None:
    payload = b"weights"
    create(coordinator.store)
    coordinator.registry.put(payload, Digest.of(payload))
    coordinator.store.record(JOB, Step((Begun(),), model=record(payload, 0, lineage=(US,))))

    async def test() -> None:
        async with calling(coordinator) as http:
            jobs = JobsClient(http, TOKENS["ada"])
            (model,) = await jobs.models()
            assert (model.digest, model.lineage) == (Digest.of(payload), (US,))
            assert await jobs.model(model.digest) == model
            assert await jobs.model_content(model.digest) == payload
            (path,) = (tmp_path / "data" / "models").glob("*.safetensors")
            path.write_bytes(b"weighty")
            with pytest.raises(Refusal) as refused:
                await jobs.model_content(model.digest)
            assert refused.value.code is Code.FILE_ALTERED

    run(test)


def test_the_description_covers_every_route_its_request_and_its_errors(coordinator: Coordinator) -> None:
    described = coordinator.app.openapi()
    schemas = described["components"]["schemas"]
    for route in coordinator.app.routes:
        if isinstance(route, APIRoute):
            operation = described["paths"][route.path][next(iter(route.methods)).lower()]
            assert operation["summary"]
            assert operation["tags"]
            assert ("security" in operation) == (route.path != "/v1/health")
            if route.path != "/v1/health":
                (scheme,) = operation["security"]
                (name,) = scheme
                described_as = described["components"]["securitySchemes"][name]
                assert (described_as["type"], described_as["scheme"]) == ("http", "bearer")
                assert operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].endswith(
                    "Problem"
                )
    assert set(schemas["JobRequest"]["properties"]) >= {"name", "zones", "training", "recipients"}
    text = json.dumps(described)
    for used in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert used in schemas


def test_the_description_is_served_and_no_page_that_loads_scripts(coordinator: Coordinator) -> None:
    async def test() -> None:
        async with calling(coordinator, None) as http:
            assert (await http.get("/openapi.json")).json()["info"]["title"] == "Isthmus jobs"
            for path in ("/docs", "/redoc"):
                assert (await http.get(path)).status_code == 404

    run(test)


def test_only_a_probe_of_health_is_not_logged_when_it_is_refused() -> None:
    bell = Bell()
    app = web.make_app(title="t", version="1", description="d", bell=bell)

    async def refuse() -> None:
        raise Refusal(Code.UNAUTHENTICATED, "No token.")

    for path in ("/v1/health", "/v1/jobs"):
        app.add_api_route(path, refuse)

    async def test() -> None:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://hq") as http:
            for headers in ({}, {"authorization": "Bearer guessed"}):
                for path in ("/v1/health", "/v1/jobs"):
                    assert (await http.get(path, headers=headers)).status_code == 401

    with capture_logs() as logged:
        run(test)
    assert [line["path"] for line in logged] == ["/v1/jobs", "/v1/health", "/v1/jobs"]


def test_settings_are_read_from_the_sites_folder(tmp_path: Path) -> None:
    folder = tmp_path / "hq"
    folder.mkdir()
    path = folder / "settings.toml"
    path.write_text('[coordinator]\nborder_url = "http://127.0.0.1:8500"\nlisten_port = 8601\nofficers = ["wei"]\n')
    settings = CoordinatorSettings.load(folder)
    assert (settings.site, settings.listen_port, settings.data) == ("hq", 8601, folder / "coordinator")
    for text in ("", "[coordinator]\n", '[coordinator]\nborder_url = "x"\nport = 1\n', "[coordinator\n"):
        path.write_text(text)
        with pytest.raises(Fault) as fault:
            CoordinatorSettings.load(folder)
        assert fault.value.code is Code.CONFIGURATION
