"""For how long a caller waits is told with each try, and a read is ended when that time is over."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.web import client as module
from cryptopulse.common.web.client import ServiceClient
from cryptopulse.common.web.deadline import HEADER, Deadline


class Signer:
    def sign(self, identity: Identity, audience: str) -> str:
        return f"{identity.kind}-{audience}"


def door() -> tuple[httpx.AsyncClient, list[str]]:
    """A client of an app whose handler takes half a second, and what its handlers saw."""
    app, seen = FastAPI(), list[str]()

    @app.api_route("/slow", methods=["GET", "POST"])
    async def slow() -> None:
        try:
            await asyncio.sleep(0.5)
            seen.append("done")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @app.get("/own")
    async def own() -> None:
        raise TimeoutError("of its own")

    app.add_middleware(Deadline)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test"), seen


async def test_a_read_ends_when_its_caller_waits_no_longer() -> None:
    http, seen = door()
    answer = await http.get("/slow", headers={HEADER: "20"})
    assert (answer.status_code, answer.json()["code"], seen) == (504, "deadline", ["cancelled"])


@pytest.mark.parametrize("given", ["", "soon", "-1", "1" * 30, "2000"])
async def test_without_a_deadline_that_has_passed_a_read_is_answered(given: str) -> None:
    http, seen = door()
    answer = await http.get("/slow", headers={HEADER: given})
    assert (answer.status_code, seen) == (200, ["done"])


async def test_a_write_is_not_ended() -> None:
    http, seen = door()
    assert (await http.post("/slow", headers={HEADER: "20"})).status_code == 200
    assert seen == ["done"]


async def test_a_timeout_of_the_handler_itself_is_its_own() -> None:
    http, _ = door()
    with pytest.raises(TimeoutError, match="of its own"):
        await http.get("/own", headers={HEADER: "2000"})


async def test_each_try_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.0)
    told: list[int] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        told.append(int(request.headers[HEADER]))
        await asyncio.sleep(0.05)
        return httpx.Response(503 if len(told) < 3 else 200)

    client = ServiceClient(
        "http://x", "x", Signer(), timeout_seconds=1.0, transport=httpx.MockTransport(answer)
    )
    await client.request("GET", "/", identity=Identity(None, kind="service"))
    assert told[0] <= 1_000
    assert told[0] - 50 >= told[1]
    assert told[1] - 50 >= told[2] > 0
