"""Which WebSocket client reads a venue best: `picows` or `websockets`, on recorded frames, and what parsing adds.

`python -m tools.bench.ingest_reader [--frames N]`; the server runs in a process of its own, CPU is the reader's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import picows
import uvloop
import websockets

from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.ticks import Quote, Trade
from cryptopulse.ingestor.adapters.binance.parse import BinanceParser
from cryptopulse.ingestor.adapters.sockets import PicowsSockets
from cryptopulse.ingestor.domain.ordering import TradeGuard

NAMES = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT"}
PER_WRITE = 64


def recorded(root: Path) -> list[bytes]:
    """The recorded trade frames, BTC then ETH."""
    frames = []
    for name in ("btcusdt", "ethusdt"):
        with gzip.open(root / "recordings" / "binance_spot_ws" / f"{name}_20240808.gz", "rb") as lines:
            frames += [line.partition(b" ")[2].strip() for line in lines if b"@trade" in line[:60]]
    return frames


class _Sender(picows.WSListener):
    """Sends all frames as soon as a client says anything."""

    def __init__(self, frames: list[bytes]) -> None:
        self._frames = frames

    def on_ws_frame(self, transport: Any, _frame: Any) -> None:
        self._task = asyncio.get_running_loop().create_task(self._send(transport))

    async def _send(self, transport: Any) -> None:
        for at, frame in enumerate(self._frames):
            transport.send(picows.WSMsgType.TEXT, frame)
            if at % PER_WRITE == 0:
                while transport.underlying_transport.get_write_buffer_size() > 1_000_000:  # noqa: ASYNC110 - a bench server
                    await asyncio.sleep(0.001)


def serve(pipe: Connection, frames: list[bytes]) -> None:
    """The server process."""

    async def run() -> None:
        server = await picows.ws_create_server(lambda _request: _Sender(frames), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


class _Sink:
    """Guard and count, as ingest does, with a sink that does nothing."""

    def __init__(self) -> None:
        self.guard = TradeGuard()
        self.passed = 0

    def trade(self, trade: Trade, /) -> None:
        self.passed += 1 if self.guard.offer(trade) else len(self.guard.settle(trade))

    def trades(self, trades: Sequence[Trade], /) -> None:
        for trade in trades:
            self.trade(trade)

    def quote(self, quote: Quote, /) -> None:
        del quote

    def heartbeat(self, symbol: str | None, last_trade_id: int | None, /) -> None:
        del symbol, last_trade_id

    def control(self, answer: object, /) -> None:
        del answer

    def sequence_hole(self, missing: int, /) -> None:
        del missing

    def refused(self, reason: object, frame: bytes, detail: str, /) -> None:
        raise RuntimeError(f"{reason}: {detail}: {frame[:200]!r}")


async def read_picows(port: int, count: int, on_frame: Callable[[bytes], None]) -> None:
    """Our own socket adapter."""
    done = asyncio.Event()
    left = count

    def on_text(frame: bytes) -> None:
        nonlocal left
        on_frame(frame)
        left -= 1
        if not left:
            done.set()

    wire = await PicowsSockets(SystemClock()).open(
        f"ws://127.0.0.1:{port}/", on_text, lambda _size: None, lambda: 0.0
    )
    wire.send(b"go")
    await done.wait()
    await wire.close()


async def read_websockets(port: int, count: int, on_frame: Callable[[bytes], None]) -> None:
    """The `websockets` library, without compression."""
    async with websockets.connect(f"ws://127.0.0.1:{port}/", compression=None) as socket:
        await socket.send("go")
        for _ in range(count):
            on_frame(await socket.recv(decode=False))


Reader = Callable[[int, int, Callable[[bytes], None]], Awaitable[None]]


def measure(name: str, reader: Reader, port: int, frames: int, *, parse: bool) -> float:
    """Frames per second of CPU; prints one line."""
    sink = _Sink()
    parser = BinanceParser(NAMES, sink)
    now = time.time_ns

    def on_frame(frame: bytes) -> None:
        if parse:
            parser.parse(frame, now() // 1_000)

    started, cpu = time.perf_counter(), time.process_time()
    uvloop.run(reader(port, frames, on_frame))  # type: ignore[arg-type]  # every reader is a coroutine function
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    if parse and sink.passed != frames:
        raise RuntimeError(f"{name}: {sink.passed} of {frames} trades passed")
    what = "read, parse, guard" if parse else "read"
    print(
        f"{name:<12} {what:<20} {frames / cpu:>10,.0f} frames/s per core   {cpu / frames * 1e6:5.2f} us   wall {wall:.2f} s"
    )
    return frames / cpu


def main() -> None:
    """Measure both readers, with and without the work that follows."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--shared", type=Path, default=Path(os.environ.get("CRYPTOPULSE_SHARED", "../shared"))
    )
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    frames = recorded(given.shared)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs, frames), daemon=True)
    server.start()
    port = ours.recv()
    for parse in (False, True):
        for name, reader in (("picows", read_picows), ("websockets", read_websockets)):
            best = max(measure(name, reader, port, len(frames), parse=parse) for _ in range(given.rounds))
            print(f"  best of {given.rounds}: {best:,.0f} frames/s")
    server.terminate()


if __name__ == "__main__":
    main()
