"""Fan-out: trades told to a real gateway over the bus, written to 500 sockets of another process; about 200 bytes each.

Ours is the whole way from a message of the bus to the sockets: decoded, encoded once, one frame, as many writes. Beside it
`websockets.broadcast()` of a ready text and Django Channels' `group_send` (daphne, layer in memory), both without any source.
CPU is the server process's alone; frames are those that the clients received.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tools.bench.gateway_process import TRADED, Gateway, Server, running_gateway, server
from tools.bench.measure import Contender, Row, Sample, interleaved, sized
from tools.bench.readers import Readers, readers

TITLE = "Fan-out: 500 WebSocket clients, about 200 bytes a frame"
CLIENTS: Final = sized(500, 20)
CHANNELS_CLIENTS: Final = sized(100, 10)
SECONDS: Final = sized(4, 1)
RATE: Final = 150.0
"""Messages a second of the yardsticks."""
BATCHES: Final = 10
"""Batches a second to the gateway; the messages of a second are divided among them."""
MARK: Final = '"type":"update"'
SUBSCRIBE: Final = json.dumps(
    {"op": "subscribe", "id": 1, "channels": [{"ch": "trades", "symbols": [TRADED]}]}
)


async def run() -> list[Row]:
    """The three, interleaved, each with its clients connected all the while."""
    broadcast = ["-m", "tools.bench.yardsticks.ws_broadcast", "{port}", str(RATE)]
    daphne = [
        "-m",
        "daphne",
        "-b",
        "127.0.0.1",
        "-p",
        "{port}",
        "tools.bench.yardsticks.channels_app:application",
    ]
    secret = {"BENCH_SECRET": secrets.token_urlsafe(40), "BENCH_RATE": str(RATE / 5)}

    async def ours() -> Sample:
        async with (
            running_gateway() as gateway,
            readers(
                gateway.port,
                "/v1/ws",
                CLIENTS,
                subscribe=SUBSCRIBE,
                mark=MARK,
                token=gateway.token("bench-user"),
            ) as clients,
        ):
            return await _measured(gateway, clients, lambda: _tell(gateway, SECONDS))

    async def theirs(arguments: list[str], settings: dict[str, str], count: int) -> Sample:
        async with (
            server(arguments, settings, "/ready") as found,
            readers(found.port, "/", count, mark=MARK) as clients,
        ):
            return await _measured(found, clients, lambda: asyncio.sleep(SECONDS))

    return await interleaved(
        "fan-out",
        "frames/s",
        [
            Contender("CryptoPulse, from the bus to the sockets", ours),
            Contender("websockets.broadcast()", lambda: theirs(broadcast, {}, CLIENTS)),
            Contender(
                f"Django Channels, group_send, {CHANNELS_CLIENTS} clients",
                lambda: theirs(daphne, secret, CHANNELS_CLIENTS),
            ),
        ],
        rounds=3,
        warmup=0,
        hold=">= 130,000 frames/s",
    )


async def _tell(gateway: Gateway, seconds: float, rate: float = RATE) -> None:
    """Trades for some seconds, evenly."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for number in range(int(seconds * BATCHES)):
        await gateway.trades(int(rate / BATCHES))
        await asyncio.sleep(max(0.0, started + (number + 1) / BATCHES - loop.time()))


async def _measured(target: Server, clients: Readers, work: Callable[[], Awaitable[None]]) -> Sample:
    await clients.counted()
    cpu, started = target.cpu_seconds(), time.perf_counter()
    await work()
    found = await clients.counted()
    if found["lost"]:
        raise RuntimeError(f"{found['lost']:.0f} clients lost their connection")
    figures = {"p50 ms": found["p50_ms"], "p99 ms": found["p99_ms"]} if found["timed"] else {}
    return Sample(int(found["messages"]), target.cpu_seconds() - cpu, time.perf_counter() - started, figures)
