"""For tests: a simulator on free ports, in this process or as one of its own, with its URLs and a control client."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tools.venue_sim.options import Options
from tools.venue_sim.simulator import Simulator, Urls

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0


class Control:
    """Client of the control API; every call raises when the simulator refuses it."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False)

    async def _call(
        self, method: str, path: str, body: Any = None, params: dict[str, Any] | None = None
    ) -> Any:
        response = await self._client.request(method, path, json=body, params=params)
        if response.status_code != 200:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json()

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def index(self) -> dict[str, Any]:
        """URLs, seed, source."""
        return dict(await self._call("GET", "/"))

    async def stats(self) -> dict[str, Any]:
        """Counters and rates since the start."""
        return dict(await self._call("GET", "/stats"))

    async def ledger(self, venue: str, symbol: str, **query: Any) -> dict[str, Any]:
        """What the venue booked for a symbol: count, sums, ids, one-minute candles."""
        return dict(await self._call("GET", f"/ledger/{venue}/{symbol}", params=query))

    async def trades(self, venue: str, symbol: str, **query: Any) -> list[dict[str, Any]]:
        """The venue's trades, newest 1,000 or `from_id` and `limit`."""
        return list(await self._call("GET", f"/trades/{venue}/{symbol}", params=query))

    async def pairs(self, venue: str = "") -> list[dict[str, Any]]:
        """What is listed."""
        return list(await self._call("GET", f"/pairs/{venue}"))

    async def fault(self, kind: str, **spec: Any) -> int:
        """Start a fault; returns its number."""
        return int((await self._call("POST", "/fault", {"kind": kind, **spec}))["id"])

    async def faults(self) -> list[dict[str, Any]]:
        """Live faults with their hits."""
        return list(await self._call("GET", "/faults"))

    async def clear(self, number: int | None = None) -> None:
        """End one fault, or all."""
        await self._call("DELETE", "/fault" if number is None else f"/fault/{number}")

    async def script(
        self, venue: str, symbol: str, path: list[tuple[float, float]], *, hold: bool = True
    ) -> None:
        """Give a price path: (seconds from now, price)."""
        await self._call("POST", "/script", {"venue": venue, "symbol": symbol, "path": path, "hold": hold})

    async def unscript(self, venue: str, symbol: str) -> None:
        """Give the price back to the market."""
        await self._call("DELETE", f"/script/{venue}/{symbol}")

    async def trade(self, venue: str, symbol: str, price: Any, **more: Any) -> dict[str, Any]:
        """One trade now: `size`, `side` ("buy" or "sell" of the taker), `shift_ms` or `time_us` are optional."""
        body = {"venue": venue, "symbol": symbol, "price": str(price), **more}
        return dict(await self._call("POST", "/trade", body))

    async def list_new(self, venue: str, symbol: str) -> dict[str, Any]:
        """List a pair without any history."""
        return dict(await self._call("POST", "/list", {"venue": venue, "symbol": symbol}))

    async def rate(self, rate: float) -> None:
        """Trades per second of the whole market."""
        await self._call("POST", "/rate", {"rate": rate})

    async def pause(self) -> None:
        """Stop the market; connections stay."""
        await self._call("POST", "/pause")

    async def resume(self) -> None:
        """Let it go on."""
        await self._call("POST", "/resume")


class WsTap:
    """A WebSocket client that keeps every message; JSON is decoded, what is none stays text or bytes."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        self.close_code: int | None = None
        self._news = asyncio.Event()
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                self.messages.append(_decoded(await self.connection.recv(decode=False)))
                self._news.set()
        self.close_code = self.connection.close_code
        self._news.set()

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return self._reader.done()

    async def say(self, message: Any) -> None:
        """Send a message as JSON; text and bytes go as they are."""
        if not isinstance(message, (str, bytes)):
            message = orjson.dumps(message).decode()
        await self.connection.send(message)

    async def until(self, wanted: Callable[[Any], bool], seconds: float = 5.0, *, after: int = 0) -> Any:
        """The first message for which `wanted` holds, of those that came already (from the `after`-th on) or come."""
        async with asyncio.timeout(seconds):
            checked = after
            while True:
                for message in self.messages[checked:]:
                    if wanted(message):
                        return message
                checked = len(self.messages)
                if self.closed:
                    raise ConnectionError("the connection ended before the message came")
                self._news.clear()
                if checked == len(self.messages):
                    await self._news.wait()

    async def gone(self, seconds: float = 5.0) -> int | None:
        """Wait for the end of the connection; the close code, 1006 when there was none."""
        async with asyncio.timeout(seconds):
            await asyncio.wait([self._reader])
        return self.close_code

    async def stop(self) -> None:
        """Close."""
        await self.connection.close()
        await asyncio.wait([self._reader])


def _decoded(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data


@contextlib.asynccontextmanager
async def tapped(url: str, *messages: Any) -> AsyncIterator[WsTap]:
    """A client of a WebSocket that has sent some messages."""
    connection = await connect(
        url, max_size=None, max_queue=None, compression=None, proxy=None, close_timeout=1
    )
    tap = WsTap(connection)
    try:
        for message in messages:
            await tap.say(message)
        yield tap
    finally:
        await tap.stop()


@dataclass(frozen=True, slots=True)
class Simulation:
    """A running simulator. `simulator` is None when it is a process of its own; `pid` is 0 when it is not."""

    urls: Urls
    control: Control
    simulator: Simulator | None = None
    pid: int = 0

    def environment(self) -> dict[str, str]:
        """The settings that point a system at this simulator."""
        urls = self.urls
        names = {
            "BINANCE_API_URL": urls.binance_api,
            "BINANCE_WS_URL": urls.binance_ws,
            "COINBASE_API_URL": urls.coinbase_api,
            "COINBASE_WS_URL": urls.coinbase_ws,
            "COINGECKO_API_URL": urls.coingecko_api,
            "KRAKEN_API_URL": urls.kraken_api,
            "KRAKEN_WS_URL": urls.kraken_ws,
        }
        return {name: url for name, url in names.items() if url}


@contextlib.asynccontextmanager
async def running_simulator(
    options: Options | None = None, *, process: bool = False, arguments: tuple[str, ...] = (), **changes: Any
) -> AsyncIterator[Simulation]:
    """A simulator for the length of the block. `changes` replace fields of the options; with `process` it runs as
    `python -m tools.venue_sim` with `arguments` (and `seed`, `rate`, `play`, `speed` from the changes).
    """
    if process:
        async with _as_process(arguments, changes) as simulation:
            yield simulation
        return
    chosen = replace(options or Options(), **changes)
    simulator = Simulator(chosen)
    async with simulator.running():
        control = Control(simulator.urls.control)
        try:
            yield Simulation(simulator.urls, control, simulator)
        finally:
            await control.close()


@contextlib.asynccontextmanager
async def _as_process(arguments: tuple[str, ...], changes: dict[str, Any]) -> AsyncIterator[Simulation]:
    words = list(arguments)
    if not any(word.endswith("-port") for word in words):
        for venue in ("binance", "coinbase", "coingecko", "kraken"):
            words += [f"--{venue}-port", "0"]
    words += ["--control-port", "0"]
    for name, value in changes.items():
        words += [
            f"--{name.replace('_', '-')}",
            *(map(str, value) if isinstance(value, tuple) else (str(value),)),
        ]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.venue_sim", *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        line = (await asyncio.wait_for(child.stdout.readline(), START_SECONDS)).decode()
        if "ready:" not in line:
            raise RuntimeError(f"the simulator did not start: {line or 'no output'}")
        words_found = dict(word.split("=", 1) for word in line.split() if "=" in word)
        urls = Urls(**{name: words_found.get(name, "") for name in Urls.__slots__})
        control = Control(urls.control)
        drain = asyncio.get_running_loop().create_task(_drain(child.stdout))
        try:
            yield Simulation(urls, control, None, child.pid)
        finally:
            drain.cancel()
            await control.close()
    finally:
        if child.returncode is None:
            child.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), 10)
        if child.returncode is None:
            child.kill()
            await child.wait()


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
