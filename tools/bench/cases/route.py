"""The whole route: venue frames of the simulator through all five services to sockets; throughput, latency, loss, CPU.

Latency is from the trade's time at the venue (the simulator stamps a frame when it falls due) to its arrival at a WebSocket
client, on the `trades` channel, both on this machine's clock. Loss is judged by the simulator's own ledger against the
candles that the system built, per venue and symbol, and by the ids that the socket saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import websockets

from cryptopulse.common.config import SERVICES
from tools.bench.backends import fresh_backends
from tools.bench.measure import Row, percentile, sized
from tools.harness.system import Backends, System

TITLE = "The whole route: venue frame to WebSocket client, all five services, rules and a portfolio present"
RATES = tuple(int(rate) for rate in os.environ.get("RATES", sized("5000,20000", "500")).split(","))
SECONDS = float(os.environ.get("SECONDS_PER_RATE", sized("20", "3")))
SETTLE_SECONDS = 6.0
CATCH_UP_LOOKS = 15
MINUTE_MS = 60_000
WATCHED = "BTC-USDT"
BASES = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC")
SYMBOLS = tuple(f"{base}-{quote}" for base in BASES for quote in ("USDT", "USD"))


@dataclass
class Seen:
    """What the socket got."""

    latencies_ms: list[float] = field(default_factory=list)
    ids: dict[str, list[int]] = field(default_factory=dict)
    tickers: int = 0


async def run() -> list[Row]:
    """One row per rate; the first row's process CPU is that of all five services together."""
    rows = []
    for rate in RATES:
        async with fresh_backends() as backends:
            rows.append(await _at_rate(backends, rate))
    return rows


async def _at_rate(backends: Backends, rate: int) -> Row:
    settings = {
        "SYMBOLS": ",".join(SYMBOLS),
        "CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS": "0",
        "CRYPTOPULSE_INGESTOR_HISTORY_HOURS_DAYS": "0",
        "CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS": "0",
        "LOG_LEVEL": "WARNING",
    }
    arguments = (
        "--rate",
        "20",
        "--quote-ratio",
        "1",
        "--symbols",
        ",".join((*SYMBOLS, "USDT-USD", "USDC-USD", "EUR-USD")),
    )
    with tempfile.TemporaryDirectory() as folder:
        async with System(backends, Path(folder), settings=settings, simulator_arguments=arguments) as system:
            await system.price("BTC")
            headers = await system.login()
            await _rules_and_portfolio(system, headers)
            seen = Seen()
            listener = asyncio.create_task(_listen(system, headers, seen))
            await system.control("POST", "/rate", json={"rate": rate})
            await asyncio.sleep(3)
            seen.latencies_ms.clear()
            before, sent_before, started = _cpu(system), await _sent(system), time.monotonic()
            await asyncio.sleep(SECONDS)
            after, sent_after, wall = _cpu(system), await _sent(system), time.monotonic() - started
            await system.control("POST", "/pause")
            await asyncio.sleep(SETTLE_SECONDS)
            lost, doubled = await _judged(system, seen)
            listener.cancel()
            ticks = sent_after - sent_before
            cpu = sum(after[name] - before[name] for name in SERVICES)
            shares = {
                f"{name} %": 100 * (after[name] - before[name]) / wall for name in (*SERVICES, "simulator")
            }
            return Row(
                case="route",
                name=f"{rate:,} ticks/s asked",
                unit="ticks/s",
                rounds=1,
                per_cpu_second=ticks / cpu,
                low=ticks / cpu,
                high=ticks / cpu,
                per_wall_second=ticks / wall,
                cpu_us_per_item=1e6 * cpu / ticks,
                hold="20,000/s, p99 < 50 ms, lost 0",
                extra={
                    "p50 ms": percentile(seen.latencies_ms, 0.5),
                    "p99 ms": percentile(seen.latencies_ms, 0.99),
                    "p99.9 ms": percentile(seen.latencies_ms, 0.999),
                    "lost": lost,
                    "doubled": doubled,
                    "socket frames": len(seen.latencies_ms) + seen.tickers,
                    **shares,
                },
            )


async def _rules_and_portfolio(system: System, headers: dict[str, str]) -> None:
    price = float((await system.price("BTC"))["price"])
    for place in range(20):
        rule = {"symbol": "BTC", "condition": "above", "price": f"{price * (1.05 + place / 100):.2f}"}
        (await system.client.post("/alerts", json=rule, headers=headers)).raise_for_status()
    order = {"symbol": "BTC", "quantity": "1", "price": "1000"}
    (await system.client.post("/portfolio", json=order, headers=headers)).raise_for_status()


async def _listen(system: System, headers: dict[str, str], seen: Seen) -> None:
    url = f"ws://127.0.0.1:{system.port}/v1/ws"
    async with websockets.connect(url, additional_headers=headers, proxy=None, max_queue=None) as socket:
        channels = [{"ch": "trades", "symbols": [WATCHED]}, {"ch": "ticker", "symbols": list(SYMBOLS)}]
        await socket.send(json.dumps({"op": "subscribe", "id": 1, "channels": channels}))
        async for frame in socket:
            body: dict[str, Any] = json.loads(frame)
            data = body.get("data") or {}
            if body.get("type") != "update":
                continue
            if "id" in data:
                seen.latencies_ms.append(time.time() * 1000 - data["ts"])
                seen.ids.setdefault(data["src"], []).append(data["id"])
            else:
                seen.tickers += 1


def _cpu(system: System) -> dict[str, float]:
    used = {}
    for name, process in system.processes.items():
        times = psutil.Process(process.pid).cpu_times()
        used[name] = times.user + times.system
    return used


async def _sent(system: System) -> int:
    total = 0
    for venue in ("binance", "coinbase"):
        for symbol in SYMBOLS:
            total += (await _ledger(system, venue, symbol)).get("count", 0)
    return total


async def _ledger(system: System, venue: str, symbol: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await system.control("GET", f"/ledger/{venue}/{symbol}")
    except httpx.HTTPStatusError:
        return {}
    return found


async def _judged(system: System, seen: Seen) -> tuple[float, float]:
    """The verdict once everything on its way has arrived: what is late is not lost."""
    verdict = await _judge(system, seen)
    for _ in range(CATCH_UP_LOOKS):
        if not any(verdict):
            break
        await asyncio.sleep(2)
        verdict = await _judge(system, seen)
    return verdict


async def _judge(system: System, seen: Seen) -> tuple[float, float]:
    """Trades missing from and too many in the candles of whole minutes, and in the ids that the socket saw."""
    lost = doubled = 0
    for venue in ("binance", "coinbase"):
        for symbol in SYMBOLS:
            ledger = await _ledger(system, venue, symbol)
            minutes = ledger.get("minutes", [])[1:]
            if not minutes:
                continue
            rows = await _candles(
                system, symbol, venue, minutes[0]["open_time"], minutes[-1]["open_time"] + MINUTE_MS
            )
            for minute in minutes:
                difference = minute["trades"] - rows.get(minute["open_time"], 0)
                lost += max(0, difference)
                doubled += max(0, -difference)
    for ids in seen.ids.values():
        distinct = set(ids)
        lost += max(distinct) - min(distinct) + 1 - len(distinct)
        doubled += len(ids) - len(distinct)
    return lost, doubled


async def _candles(system: System, symbol: str, venue: str, start: int, end: int) -> dict[int, int]:
    params: dict[str, Any] = {"interval": "1m", "source": venue, "from": start, "to": end, "limit": 1000}
    answer = await system.client.get(f"/v1/candles/{symbol}", params=params)
    return {row["open_time"]: row["trades"] for row in answer.json().get("data", [])}
