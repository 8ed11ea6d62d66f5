"""Calls between services carry who asks, are tried again only where that is safe, and stop at a service that is down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import NotFound, UpstreamUnavailable
from cryptopulse.common.telemetry import tracing
from cryptopulse.common.telemetry.context import REQUEST_ID
from cryptopulse.common.web import client as module
from cryptopulse.common.web.client import OPEN_AFTER_FAILURES, ServiceClient

USER = Identity(user_id="u1")
Answer = Callable[[httpx.Request], Coroutine[Any, Any, httpx.Response]]


class FakeSigner:
    def sign(self, identity: Identity, audience: str) -> str:
        return f"{identity.user_id}-for-{audience}"


class Server:
    """Answers from a list of statuses or errors; the last one repeats."""

    def __init__(self, *answers: int | BaseException) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return httpx.Response(answer, headers={"Retry-After": "9"} if answer == 503 else {})


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)


def connect(
    server: Answer, clock: ManualClock | None = None, *, timeout_seconds: float = 5.0
) -> ServiceClient:
    return ServiceClient(
        "http://alerts:9103",
        "alerts",
        FakeSigner(),
        timeout_seconds=timeout_seconds,
        transport=httpx.MockTransport(server),
        clock=clock or ManualClock(),
    )


async def test_a_call_carries_caller_request_id_and_trace() -> None:
    server = Server(200)
    client = connect(server)
    token = REQUEST_ID.set("req-12345678")
    try:
        with tracing.server_span("GET", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
            await client.request(
                "POST",
                "/alerts",
                identity=USER,
                params={"limit": 5},
                content=b"{}",
                headers={"Idempotency-Key": "k"},
            )
    finally:
        REQUEST_ID.reset(token)

    (request,) = server.requests
    assert request.headers["authorization"] == "Bearer u1-for-alerts"
    assert request.headers["x-request-id"] == "req-12345678"
    assert request.headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert request.headers["idempotency-key"] == "k"
    assert str(request.url) == "http://alerts:9103/alerts?limit=5"
    assert request.content == b"{}"


@pytest.mark.parametrize("status", [200, 201, 204, 304, 404, 409, 422, 429])
async def test_an_answer_below_500_is_the_callers_to_read(status: int) -> None:
    server = Server(status)

    assert (await connect(server).request("GET", "/x", identity=USER)).status_code == status
    assert len(server.requests) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "get"])
@pytest.mark.parametrize(
    "failure", [503, 502, 504, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut")]
)
async def test_what_may_be_repeated_is(method: str, failure: int | BaseException) -> None:
    server = Server(failure, failure, 200)

    assert (await connect(server).request(method, "/x", identity=USER)).status_code == 200
    assert len(server.requests) == 3


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("failure", [503, httpx.ReadTimeout("slow"), httpx.ReadError("cut")])
async def test_what_may_not_be_repeated_is_not(method: str, failure: int | BaseException) -> None:
    server = Server(failure, 200)

    with pytest.raises(UpstreamUnavailable):
        await connect(server).request(method, "/x", identity=USER)
    assert len(server.requests) == 1


@pytest.mark.parametrize("path", ["/portfolios/..", "/portfolios/../transactions", "/./x", "/a/.."])
async def test_a_path_that_would_become_another_one_is_not_asked_for(path: str) -> None:
    server = Server(200)

    with pytest.raises(NotFound):
        await connect(server).request("GET", path, identity=USER)
    assert server.requests == []


async def test_a_post_that_never_connected_is_tried_once_more() -> None:
    server = Server(httpx.ConnectError("refused"), 201)

    assert (await connect(server).request("POST", "/x", identity=USER)).status_code == 201
    assert len(server.requests) == 2


async def test_a_bug_over_there_is_not_repeated_and_keeps_the_circuit_closed() -> None:
    server = Server(500)
    client = connect(server)

    for _ in range(OPEN_AFTER_FAILURES + 2):
        with pytest.raises(UpstreamUnavailable, match="says 500"):
            await client.request("GET", "/x", identity=USER)
    assert len(server.requests) == OPEN_AFTER_FAILURES + 2


async def test_the_service_s_own_wish_to_wait_is_passed_on() -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        await connect(Server(503)).request("POST", "/x", identity=USER)

    assert caught.value.retry_after_seconds == 9


async def test_a_service_that_is_down_is_left_alone_and_found_again() -> None:
    clock, server = ManualClock(), Server(httpx.ConnectError("refused"))
    client = connect(server, clock)
    for _ in range(OPEN_AFTER_FAILURES):
        with pytest.raises(UpstreamUnavailable):
            await client.request("GET", "/x", identity=USER)
    tried = len(server.requests)
    assert not client.check().ok

    with pytest.raises(UpstreamUnavailable, match="found to be down"):
        await client.request("GET", "/x", identity=USER)
    assert len(server.requests) == tried

    clock.advance(5)
    server.answers = [200]
    assert (await client.request("GET", "/x", identity=USER)).status_code == 200
    assert client.check().ok


async def test_only_one_call_goes_to_see_whether_it_is_back() -> None:
    clock, release, server = ManualClock(), asyncio.Event(), Server(httpx.ConnectError("refused"))
    calls = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        if not release.is_set() and clock.monotonic() > 1_003:
            calls += 1
            await release.wait()
            return httpx.Response(200)
        return await server(request)

    client = connect(answer, clock)
    for _ in range(OPEN_AFTER_FAILURES):
        with pytest.raises(UpstreamUnavailable):
            await client.request("POST", "/x", identity=USER)
    clock.advance(5)
    probe = asyncio.create_task(client.request("GET", "/x", identity=USER))
    await asyncio.sleep(0.01)

    with pytest.raises(UpstreamUnavailable, match="found to be down"):
        await client.request("GET", "/x", identity=USER)
    release.set()

    assert (await probe).status_code == 200
    assert calls == 1


async def test_a_cancelled_probe_does_not_lock_the_circuit() -> None:
    clock, server = ManualClock(), Server(httpx.ConnectError("refused"))
    client = connect(server, clock)
    for _ in range(OPEN_AFTER_FAILURES):
        with pytest.raises(UpstreamUnavailable):
            await client.request("POST", "/x", identity=USER)
    clock.advance(5)
    server.answers = [asyncio.CancelledError()]  # a caller that went away
    with pytest.raises(asyncio.CancelledError):
        await client.request("GET", "/x", identity=USER)
    server.answers = [200]

    assert (await client.request("GET", "/x", identity=USER)).status_code == 200


async def test_a_call_ends_in_time_however_slowly_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.02)

    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(UpstreamUnavailable, match="in time"):
        await connect(never, timeout_seconds=0.05).request("GET", "/x", identity=USER)


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    client = ServiceClient("http://127.0.0.1:9", "alerts", FakeSigner(), retries=0)

    assert client._http._mounts == {}
    await client.close()
