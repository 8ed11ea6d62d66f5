"""Each request has an id and a trace, both handed on; metrics are by route template."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from prometheus_client import REGISTRY
from starlette.responses import StreamingResponse

from cryptopulse.common.telemetry import tracing
from cryptopulse.common.telemetry.context import current_request_id
from cryptopulse.common.web.middleware import RequestScope

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def make_app(*, draining: bool = False) -> FastAPI:
    app = FastAPI(openapi_url=None, telemetry={"tracing": False, "metrics": False})
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")

    @inner.get("/{symbol}")
    async def ids(symbol: str, request: Request) -> Any:
        sent: dict[str, str] = {}
        tracing.inject(sent)
        return {"symbol": symbol, "state": request.state.request_id, "context": current_request_id(), **sent}

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("after the first byte")

        return StreamingResponse(body())

    outer.include_router(inner)
    app.include_router(outer)
    app.add_middleware(RequestScope, service="scope-test", is_draining=lambda: draining)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app()), base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("given", ["abcd1234", "A-b_9" * 12 + "abcd"])
async def test_a_callers_id_is_kept(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/outer/inner/BTC", headers={"X-Request-Id": given})

    assert response.headers.get_list("x-request-id") == [given]
    assert response.json()["state"] == response.json()["context"] == given


@pytest.mark.parametrize(
    "given", ["", "short", "x" * 65, "abcd 1234", "abcd1234\u00e9", "a" * 8 + ";", "../../../etc"]
)
async def test_a_bad_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    response = await client.get("/outer/inner/BTC", headers={b"X-Request-Id": given.encode("latin-1")})

    assert response.headers["x-request-id"] != given
    assert re.fullmatch(r"[A-Za-z0-9_-]{8,64}", response.headers["x-request-id"])


async def test_ids_differ_and_end_with_the_request(client: httpx.AsyncClient) -> None:
    first = (await client.get("/outer/inner/BTC")).json()["context"]
    second = (await client.get("/outer/inner/BTC")).json()["context"]

    assert first != second
    assert current_request_id() == ""


async def test_the_callers_trace_is_handed_on_without_a_collector(client: httpx.AsyncClient) -> None:
    body = (await client.get("/outer/inner/BTC", headers={"traceparent": PARENT})).json()

    assert body["traceparent"].split("-")[1] == PARENT.split("-")[1]


async def test_a_collected_request_is_a_span_under_the_caller(client: httpx.AsyncClient) -> None:
    exporter = tracing.collect_in_memory()
    try:
        await client.get("/outer/inner/BTC", headers={"traceparent": PARENT})
        spans = exporter.get_finished_spans()
    finally:
        tracing.shutdown()

    assert [span.name for span in spans] == ["GET /outer/inner/{symbol}"]
    assert format(spans[0].context.trace_id, "032x") == PARENT.split("-")[1]


def requests(route: str, status: str, method: str = "GET") -> float:
    labels = {"service": "scope-test", "method": method, "route": route, "status": status}
    return REGISTRY.get_sample_value("cryptopulse_http_requests_total", labels) or 0.0


async def test_requests_are_counted_by_template_with_all_prefixes(client: httpx.AsyncClient) -> None:
    before = requests("/outer/inner/{symbol}", "200")
    for symbol in ("BTC", "ETH", "SOL"):
        await client.get(f"/outer/inner/{symbol}")

    assert requests("/outer/inner/{symbol}", "200") == before + 3


async def test_made_up_paths_and_methods_make_no_labels_of_their_own(client: httpx.AsyncClient) -> None:
    before = requests("unmatched", "404"), requests("unmatched", "404", "other")
    await client.get("/made/up/1")
    await client.get("/made/up/2")
    await client.request("BREW", "/made/up/3")

    assert requests("unmatched", "404") == before[0] + 2
    assert requests("unmatched", "404", "other") == before[1] + 1


async def test_a_failure_after_the_first_byte_cuts_the_connection(client: httpx.AsyncClient) -> None:
    with pytest.raises(RuntimeError, match="after the first byte"):
        await client.get("/broken")


async def test_a_draining_server_asks_to_reconnect_elsewhere() -> None:
    app = make_app(draining=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/outer/inner/BTC")).headers["connection"] == "close"
