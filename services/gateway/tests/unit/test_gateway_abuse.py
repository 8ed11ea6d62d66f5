"""What abuses the door: heads that trickle in, what is no HTTP, frames too large, fields that nobody knows."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from websockets.exceptions import ConnectionClosed

from cryptopulse.gateway.entrypoints.http_protocol import HttpProtocol


async def dial(gateway: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gateway.url.split(":")
    return await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [b"GET /v1/time HTTP/1.1\r\n", b"Host: x\r\n"],
        [b"GET /v1/time HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v1/time HTTP/1.1\r\nHost: x\r\n"],
    ],
    ids=["silence", "half a head", "half a second head"],
)
async def test_a_head_that_never_ends_is_cut(
    gateway: Any, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    monkeypatch.setattr(HttpProtocol, "head_seconds", 0.2)
    reader, writer = await dial(gateway)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        answer = await reader.read()
    assert b"408 Request Timeout" in answer
    assert orjson.loads(answer.rpartition(b"\r\n\r\n")[2])["code"] == "request-timeout"
    writer.close()


async def test_what_is_whole_is_not_cut(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "head_seconds", 0.2)
    reader, writer = await dial(gateway)
    for _ in range(2):
        writer.write(b"GET /v1/time HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}")
        await asyncio.sleep(0.3)
    writer.close()


async def test_what_is_no_http_and_an_endless_address_get_a_problem(gateway: Any) -> None:
    for head in (
        b"nonsense\r\n\r\n",
        b"GET /v1/prices?symbols=" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        reader, writer = await dial(gateway)
        writer.write(head)
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"application/problem+json" in answer
        assert orjson.loads(answer.rpartition(b"\r\n\r\n")[2])["code"] == "malformed-request"
        writer.close()


async def test_a_frame_over_16_kib_is_refused(gateway: Any) -> None:
    async with gateway.ws() as ws:
        await ws.recv()
        await ws.send('{"op":"ping","id":"' + "x" * 17 * 1024 + '"}')
        assert orjson.loads(await ws.recv())["type"] == "error"
    async with gateway.ws() as ws:
        await ws.recv()
        await ws.send("x" * 80 * 1024)
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_seeds_paths_ignore_unknown_fields_and_v1_passes_them_on_to_be_refused(gateway: Any) -> None:
    gateway.services.says("alerts", "POST", "/alerts", {"id": "al_1"}, 201)
    gateway.services.says("portfolio", "POST", "/portfolio", {"id": 1}, 201)
    alert = b'{"symbol":"BTC","condition":"above","price":70000.123456789012345678,"theme":"dark"}'
    order = b'{"symbol":"BTC","quantity":0.1,"note_of_the_front_end":1}'
    headers = {**gateway.token(), "Content-Type": "application/json"}
    for path, body in (("/alerts", alert), ("/portfolio", order)):
        gateway.services.calls.clear()
        for prefix in ("", "/v1"):
            await gateway.http.post(prefix + path, content=body, headers=headers)
        lenient, strict = (call["content"] for call in gateway.services.calls)
        assert strict == body
        assert orjson.loads(lenient).keys() == orjson.loads(body).keys() - {"theme", "note_of_the_front_end"}
    gateway.services.calls.clear()
    await gateway.http.post("/alerts", content=alert, headers=headers)
    assert orjson.loads(gateway.services.calls[0]["content"])["price"] == "70000.123456789012345678"
