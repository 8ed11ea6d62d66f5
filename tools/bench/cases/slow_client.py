"""One client that never reads, among others on a real gateway: do they notice, when is it closed, does memory grow?

Beside it a naive server that awaits every client in turn, as a first version would. Latency is from the moment a trade is told
to the bus to a client's hands (the naive server: from the moment it is sent), on one machine's clock. Rounds without and with
the client alternate on the same process; quantiles are of all times of a side, the ratio is the median over the pairs. Nothing
asks the gateway for its metrics while times are taken: writing them out would hold up the very messages that are timed.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from tools.bench.cases.fan_out import MARK, SUBSCRIBE
from tools.bench.gateway_process import Gateway, Server, running_gateway, server
from tools.bench.measure import Row, sized
from tools.bench.readers import Readers, readers
from tools.bench.socket_readers import masked

TITLE = "A client that never reads, among 50 others"
CLIENTS: Final = 50
RATE: Final = 500
BATCHES: Final = 50
PAIRS: Final = sized(5, 1)
"""Rounds without and with the client, in turn."""
ALONE_SECONDS: Final = sized(3, 2)
BESIDE_SECONDS: Final = 7
"""From its connection to a while after it was closed."""
CLOSED_WITHIN_SECONDS: Final = 15.0
NAIVE_PAIRS: Final = sized(2, 1)
NAIVE_SECONDS: Final = 1.5
SLOW: Final = "cryptopulse_socket_slow_closes_total"


@dataclass(frozen=True, slots=True)
class Round:
    """What the clients that read saw of one round, and what it cost the server."""

    messages: float
    tenths_ms: Counter[int]
    cpu: float
    seconds: float

    @property
    def p99_ms(self) -> float:
        """Of this round alone."""
        return quantile_ms(self.tenths_ms, 0.99)


def quantile_ms(tenths: Counter[int], share: float) -> float:
    """The time below which `share` of the counted ones lie; NaN without any."""
    left = share * tenths.total()
    for at, count in sorted(tenths.items()):
        left -= count
        if left <= 0:
            return (at + 1) / 10
    return float("nan")


async def run() -> list[Row]:
    """Without and with the client, in turn, on ours and on the naive one."""
    async with (
        running_gateway() as gateway,
        readers(
            gateway.port, "/v1/ws", CLIENTS, subscribe=SUBSCRIBE, mark=MARK, token=gateway.token("bench-user")
        ) as clients,
    ):
        await _told(gateway, clients, 2.0)
        alone, beside, grown, cut = [], [], 0.0, 0.0
        for number in range(PAIRS):
            alone.append(await _told(gateway, clients, ALONE_SECONDS))
            slow = await asyncio.to_thread(never_reading, gateway.port, gateway.token("slow-user"))
            started, before = time.monotonic(), gateway.resident_mib()
            beside.append(await _told(gateway, clients, BESIDE_SECONDS))
            if number == PAIRS - 1:
                cut = await _until_cut(gateway, slow, started)
            grown = max(grown, gateway.resident_mib() - before)
            slow.close()
        closes = await gateway.metric(SLOW)
        if closes != PAIRS:
            raise RuntimeError(f"{closes:.0f} of {PAIRS} clients that never read were closed as slow")
    ratios = [b.p99_ms / a.p99_ms for a, b in zip(alone, beside, strict=True)]
    facts = {
        "others' p99": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "line cut after s": cut,
        "MiB grown": grown,
    }
    return [
        _row("CryptoPulse, all read", alone),
        _row("CryptoPulse, one never reads", beside, facts, "others' p99 < 1.2x, closed within 15 s"),
        *await _naive(),
    ]


def _row(
    name: str, rounds: Sequence[Round], more: dict[str, float] | None = None, hold: str = "", note: str = ""
) -> Row:
    rates = [one.messages / one.cpu if one.cpu else 0.0 for one in rounds]
    rate = statistics.median(rates)
    tenths = sum((one.tenths_ms for one in rounds), Counter[int]())
    quantiles = {"p50 ms": quantile_ms(tenths, 0.5), "p99 ms": quantile_ms(tenths, 0.99)} if tenths else {}
    return Row(
        case="slow-client",
        name=name,
        unit="frames/s",
        rounds=len(rounds),
        per_cpu_second=rate,
        low=min(rates),
        high=max(rates),
        per_wall_second=statistics.median(one.messages / one.seconds for one in rounds),
        cpu_us_per_item=1e6 / rate if rate else 0.0,
        hold=hold,
        extra={**quantiles, **(more or {})},
        note=note,
    )


async def _told(gateway: Gateway, clients: Readers, seconds: float) -> Round:
    """Trades for some seconds, and what the clients saw of them."""
    await clients.counted()
    cpu, started = gateway.cpu_seconds(), time.perf_counter()
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(int(seconds * BATCHES)):
        await gateway.trades(RATE // BATCHES)
        due += 1 / BATCHES
        await asyncio.sleep(max(0.0, due - loop.time()))
    return await _round(gateway, clients, cpu, started)


async def _round(target: Server, clients: Readers, cpu: float, started: float) -> Round:
    found, tenths = await clients.timed()
    if found["lost"]:
        raise RuntimeError(f"{found['lost']:.0f} clients that read were closed")
    return Round(found["messages"], tenths, target.cpu_seconds() - cpu, time.perf_counter() - started)


async def _until_cut(gateway: Gateway, slow: socket.socket, started: float) -> float:
    """Seconds from the client's connection until the gateway has let its line go, some after the close with 4008."""
    process, port = psutil.Process(gateway.process.pid), slow.getsockname()[1]
    while any(tuple(line.raddr)[1:] == (port,) for line in process.net_connections("tcp")):
        if time.monotonic() - started > CLOSED_WITHIN_SECONDS:
            raise RuntimeError(
                f"a client that never read was still connected after {CLOSED_WITHIN_SECONDS} s"
            )
        await gateway.trades(RATE // BATCHES)
        await asyncio.sleep(1 / BATCHES)
    return time.monotonic() - started


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
    arguments = ["-m", "tools.bench.yardsticks.naive_loop", "{port}", str(RATE)]
    async with (
        server(arguments, {}, "/ready") as target,
        readers(target.port, "/", CLIENTS, mark=MARK) as clients,
    ):
        alone, beside = [], []
        for _ in range(NAIVE_PAIRS):
            alone.append(await _left_alone(target, clients))
            slow = await asyncio.to_thread(never_reading, target.port, "", "/")
            await asyncio.sleep(NAIVE_SECONDS)  # until its buffers are full it harms nobody
            beside.append(await _left_alone(target, clients))
            slow.close()
            await asyncio.sleep(NAIVE_SECONDS)
    got = sum(one.messages for one in beside)
    note = "" if got else "stopped: nobody gets anything until the client goes"
    return [
        _row("naive send loop, all read", alone),
        _row("naive send loop, one never reads", beside, note=note),
    ]


async def _left_alone(target: Server, clients: Readers) -> Round:
    """Some seconds of what the server sends by itself."""
    await clients.counted()
    cpu, started = target.cpu_seconds(), time.perf_counter()
    await asyncio.sleep(NAIVE_SECONDS)
    return await _round(target, clients, cpu, started)
