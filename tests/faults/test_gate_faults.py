"""Faults at the public door: services that are away behind it, floods of logins, sockets that never read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections import Counter

import httpx
import pytest
import websockets

from tests.faults.report import Report, Stopwatch
from tests.faults.stand import Stand

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.gate, pytest.mark.timeout(400)]

CONNECTS = int(os.environ.get("CRYPTOPULSE_FAULT_CONNECTS", "2000"))
GROWTH_MIB = 250.0
ROUTES = {"indicators": "/v1/candles/BTC?interval=1m", "alerts": "/v1/alerts", "portfolio": "/portfolio"}


async def test_23_service_down_behind_the_gateway(stand: Stand) -> None:
    """Only the routes of the service that is away say so, with a time to come back; the process lives on."""
    report = Report(23, "each service killed behind the gateway")
    headers = stand.token("behind")
    pid = stand.processes["gateway"].pid
    wrong, asked = [], 0
    for victim, own in ROUTES.items():
        stand.kill(victim)
        for service, path in {**ROUTES, "gateway": "/v1/prices/BTC"}.items():
            answer = await stand.client.get(path, headers=headers)
            asked += 1
            if service == victim:
                told = (
                    answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and "retry-after" in answer.headers
                )
                if not told:
                    wrong.append(f"{path} without {victim}: {answer.status_code} {answer.text[:100]}")
            elif answer.status_code != httpx.codes.OK:
                wrong.append(f"{path} without {victim}: {answer.status_code} {answer.text[:100]}")
        watch = Stopwatch()
        stand.start(victim)
        await stand.until_ready(victim)

        async def back(path: str = own) -> bool:
            return (await stand.client.get(path, headers=headers)).status_code == httpx.codes.OK

        await stand.until(back, what=f"{victim} answers through the gateway")
        report.recovery_s = watch.seconds()
    report.sent, report.handled, report.lost = asked, asked - len(wrong), len(wrong)
    report.notes["wrong"] = wrong
    report.close()
    assert stand.processes["gateway"].pid == pid
    assert stand.is_running("gateway")


async def test_24_login_flood(stand: Stand) -> None:
    """400 wrong passwords at once: refused or slowed, and prices are served meanwhile, in bounded memory."""
    report = Report(24, "400 logins at once")
    before = await stand.memory_mib("gateway")
    codes: Counter[int] = Counter()
    prices: Counter[int] = Counter()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{stand.port}",
        timeout=60,
        trust_env=False,
        limits=httpx.Limits(max_connections=100),
    ) as flood:

        async def attempt(number: int) -> None:
            body = {"email": f"u{number % 7}@example.com", "password": "wrong password of a stranger"}
            codes[(await flood.post("/v1/auth/login", json=body)).status_code] += 1

        logins = [asyncio.create_task(attempt(number)) for number in range(400)]
        while not all(task.done() for task in logins):
            prices[(await stand.client.get("/prices/BTC")).status_code] += 1
            await asyncio.sleep(0.1)
        await asyncio.gather(*logins)
    growth = await stand.memory_mib("gateway") - before
    report.sent, report.handled = 400, codes.total()
    report.lost = 400 - codes.total()
    report.notes |= {"codes": dict(codes), "prices": dict(prices), "growth_mib": growth}
    report.close()
    assert set(codes) <= {401, 429, 503}, codes
    assert codes[429] > 0
    assert set(prices) == {200}
    assert growth < GROWTH_MIB


def deaf_socket(port: int) -> socket.socket:
    """A raw WebSocket that subscribes and then never reads, behind the smallest buffer that there is."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    raw.settimeout(10)
    raw.connect(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    raw.sendall(
        f"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in raw.recv(1_024)
    channels = [{"ch": "trades", "symbols": ["BTC-USDT", "ETH-USDT", "SOL-USDT", "BTC-USD"]}]
    body = json.dumps({"op": "subscribe", "channels": channels}).encode()
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))
    assert len(body) < 65_536
    raw.sendall(bytes([0x81, 0xFE]) + len(body).to_bytes(2, "big") + mask + masked)
    return raw


async def test_17_sockets_that_never_read(stand: Stand) -> None:
    """They are cut off; the reader beside them is not held up, memory is bounded."""
    report = Report(17, "3 sockets that never read at 2,000 trades/s")
    before = await stand.memory_mib("gateway")
    await stand.control("POST", "/rate", json={"rate": 2_000})
    deaf = [await asyncio.to_thread(deaf_socket, stand.port) for _ in range(3)]
    heard = 0
    try:
        async with websockets.connect(f"ws://127.0.0.1:{stand.port}/ws/crypto/", proxy=None) as reader:

            async def read() -> None:
                nonlocal heard
                with contextlib.suppress(websockets.ConnectionClosed):
                    while True:
                        await reader.recv()
                        heard += 1

            reading = asyncio.create_task(read())
            watch = Stopwatch()

            async def cut_off() -> bool:
                return await stand.count("gateway", "cryptopulse_socket_slow_closes_total") >= len(deaf)

            await stand.until(cut_off, what="who never reads is cut off", seconds=120)
            report.recovery_s = watch.seconds()
            assert not reading.done()
            reading.cancel()
    finally:
        for raw in deaf:
            raw.close()
        await stand.control("POST", "/rate", json={"rate": 80})
    growth = await stand.memory_mib("gateway") - before
    report.notes |= {"reader_heard": heard, "growth_mib": growth}
    report.close()
    assert heard > 0
    assert growth < GROWTH_MIB


async def test_17_a_crowd_connects_at_once(stand: Stand) -> None:
    """A crowd from one address: served or refused with a reason; afterwards the door is as open as before."""
    report = Report(17, f"{CONNECTS} sockets at once from one address")
    before = await stand.memory_mib("gateway")
    outcomes: Counter[str] = Counter()
    gate = asyncio.Semaphore(200)
    held: list[websockets.ClientConnection] = []

    async def enter() -> None:
        async with gate:
            try:
                found = await websockets.connect(
                    f"ws://127.0.0.1:{stand.port}/v1/ws", proxy=None, open_timeout=60, close_timeout=1
                )
            except websockets.InvalidStatus as error:
                outcomes[str(error.response.status_code)] += 1
            except (OSError, websockets.InvalidHandshake, TimeoutError) as error:
                outcomes[type(error).__name__] += 1
            else:
                outcomes["served"] += 1
                held.append(found)

    await asyncio.gather(*(enter() for _ in range(CONNECTS)))
    growth = await stand.memory_mib("gateway") - before
    assert (await stand.client.get("/prices/BTC")).status_code == httpx.codes.OK
    for found in held:
        await found.close()
    report.sent, report.handled = CONNECTS, outcomes.total()
    report.lost = CONNECTS - outcomes.total()
    report.notes |= {"outcomes": dict(outcomes), "growth_mib": growth}
    report.close()
    assert outcomes["served"] > 0
    assert set(outcomes) <= {"served", "429", "403", "503"}, outcomes
    assert growth < GROWTH_MIB
    async with await _after_the_wait(f"ws://127.0.0.1:{stand.port}/v1/ws") as again:
        assert json.loads(await again.recv())["type"] == "welcome"


async def _after_the_wait(url: str) -> websockets.ClientConnection:
    """A connection now, or once what a 429 names as the wait is over: it is asked a second time, not a third."""
    try:
        return await websockets.connect(url, proxy=None)
    except websockets.InvalidStatus as error:
        if error.response.status_code != httpx.codes.TOO_MANY_REQUESTS:
            raise
        await asyncio.sleep(int(error.response.headers["retry-after"]))
    return await websockets.connect(url, proxy=None)
