"""One client that never reads, among others on a real gateway: do they notice, when is it closed, does memory grow?

Beside it a naive server that awaits every client in turn, as a first version would. Latency is from the moment a trade is told
to the bus to a client's hands (the naive server: from the moment it is sent), on one machine's clock.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack
from typing import Final

from tools.bench.cases.fan_out import MARK, SUBSCRIBE
from tools.bench.gateway_process import Gateway, Server, running_gateway, server
from tools.bench.measure import Row, sized
from tools.bench.readers import Readers, readers
from tools.bench.socket_readers import masked

TITLE = "A client that never reads, among 50 others"
CLIENTS: Final = 50
RATE: Final = 500
BATCHES: Final = 50
PAIRS: Final = sized(2, 1)
"""Times without and with the client, in turn."""
SECONDS: Final = sized(16, 4)
SLOW: Final = "cryptopulse_socket_slow_closes_total"


async def run() -> list[Row]:
    """Without and with the client, in turn, on ours and on the naive one."""
    async with (
        running_gateway() as gateway,
        readers(
            gateway.port, "/v1/ws", CLIENTS, subscribe=SUBSCRIBE, mark=MARK, token=gateway.token("bench-user")
        ) as clients,
    ):
        await _told(gateway, clients, 2.0)
        found = []
        for _ in range(PAIRS):
            without = await _told(gateway, clients, SECONDS)
            found.append((without, await _with_slow(gateway, clients)))
    rows = [_row("CryptoPulse, all read", [a for a, _ in found], {})]
    more = [
        {"others' p99": b["p99_ms"] / a["p99_ms"], "closed after s": b["closed"], "MiB grown": b["grown"]}
        for a, b in found
    ]
    worst = {name: max(item[name] for item in more) for name in more[0]}
    rows.append(_row("CryptoPulse, one never reads", [b for _, b in found], worst))
    return rows + await _naive()


def _row(name: str, samples: list[dict[str, float]], more: dict[str, float]) -> Row:
    def middle(key: str) -> float:
        return sorted(sample[key] for sample in samples)[len(samples) // 2]

    rate = middle("messages") / middle("cpu") if middle("cpu") else 0.0
    return Row(
        case="slow-client",
        name=name,
        unit="frames/s",
        rounds=len(samples),
        per_cpu_second=rate,
        low=rate,
        high=rate,
        per_wall_second=middle("messages") / middle("seconds"),
        cpu_us_per_item=1e6 / rate if rate else 0.0,
        hold="others' p99 < 1.2x, closed within 15 s" if more else "",
        extra={"p50 ms": middle("p50_ms"), "p99 ms": middle("p99_ms"), **more},
    )


async def _told(gateway: Gateway, clients: Readers, seconds: float) -> dict[str, float]:
    """Trades for some seconds, and what the clients saw of them."""
    await clients.counted()
    cpu, started = gateway.cpu_seconds(), time.perf_counter()
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(int(seconds * BATCHES)):
        await gateway.trades(RATE // BATCHES)
        due += 1 / BATCHES
        await asyncio.sleep(max(0.0, due - loop.time()))
    found = await clients.counted()
    if found["lost"]:
        raise RuntimeError(f"{found['lost']:.0f} clients that read were closed")
    return {**found, "cpu": gateway.cpu_seconds() - cpu, "seconds": time.perf_counter() - started}


async def _with_slow(gateway: Gateway, clients: Readers) -> dict[str, float]:
    before, closes = gateway.resident_mib(), await gateway.metric(SLOW)
    slow = await asyncio.to_thread(never_reading, gateway.port, gateway.token("slow-user"))
    started = time.monotonic()
    grown, closed = 0.0, float("inf")

    async def watch() -> None:
        nonlocal grown, closed
        while True:
            grown = max(grown, gateway.resident_mib() - before)
            if closed == float("inf") and await gateway.metric(SLOW) > closes:
                closed = time.monotonic() - started
            await asyncio.sleep(0.5)

    watcher = asyncio.create_task(watch())
    try:
        found = await _told(gateway, clients, SECONDS)
    finally:
        watcher.cancel()
        slow.close()
    return {**found, "closed": closed, "grown": grown}


def never_reading(port: int, token: str, path: str = "/v1/ws") -> socket.socket:
    """A socket that subscribes and then reads nothing; its own buffer is small."""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", port))
    credential = f"Authorization: Bearer {token}\r\n" if token else ""
    slow.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{credential}\r\n".encode()
    )
    answer = slow.recv(1024)
    if b" 101 " not in answer[:20]:
        raise RuntimeError(answer.decode(errors="replace"))
    if token:
        slow.sendall(masked(SUBSCRIBE.encode()))
    return slow


async def _naive() -> list[Row]:
    """The naive loop: everybody waits for the one who does not read."""
    rows = []
    for with_slow in (False, True):
        async with AsyncExitStack() as stack:
            arguments = ["-m", "tools.bench.yardsticks.naive_loop", "{port}", str(RATE)]
            target: Server = await stack.enter_async_context(server(arguments, {}, "/ready"))
            clients = await stack.enter_async_context(readers(target.port, "/", CLIENTS, mark=MARK))
            if with_slow:
                slow = await asyncio.to_thread(never_reading, target.port, "", "/")
                stack.callback(slow.close)
                # Until its buffers are full it harms nobody.
                await asyncio.sleep(sized(8, 2))
            await clients.counted()
            cpu, started = target.cpu_seconds(), time.perf_counter()
            await asyncio.sleep(sized(6, 1))
            found = await clients.counted()
            used = {"cpu": target.cpu_seconds() - cpu, "seconds": time.perf_counter() - started}
            name = "naive send loop, one never reads" if with_slow else "naive send loop, all read"
            rows.append(_row(name, [{**found, **used}], {}))
    return rows
