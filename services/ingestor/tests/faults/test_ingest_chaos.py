"""Everything at once for a while: at the end every trade is booked exactly once and memory is flat; the figures are printed."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections import Counter
from decimal import Decimal
from typing import Any

import httpx
import psutil
import pytest

from tools.venue_sim.testing import running_simulator

SECONDS = float(os.environ.get("CRYPTOPULSE_CHAOS_SECONDS", "45"))
RATE = 2_000
MARKETS = (("binance", "BTC-USDT"), ("binance", "ETH-USDT"), ("coinbase", "BTC-USD"), ("coinbase", "ETH-USD"))
SYMBOLS = "BTC-USDT,ETH-USDT,SOL-USDT,BTC-USD,ETH-USD,SOL-USD"
CHAOS: tuple[dict[str, Any], ...] = (
    {"kind": "cut"},
    {"kind": "close", "code": 1012},
    {"kind": "server_shutdown", "venue": "binance"},
    {"kind": "silent", "symbol": "ETH-USDT", "seconds": 3},
    {"kind": "drop", "channel": "trade", "probability": 0.01, "seconds": 3},
    {"kind": "duplicate", "channel": "trade", "probability": 0.1, "seconds": 3},
    {"kind": "reorder", "channel": "trade", "probability": 0.02, "window": 4, "seconds": 3},
    {"kind": "rest_status", "status": 429, "retry_after": 1, "count": 1},
    {"kind": "rest_status", "status": 418, "retry_after": 2, "count": 1, "venue": "binance"},
    {"kind": "rest_status", "status": 503, "count": 2},
    {"kind": "rest_body", "content": "html", "count": 1},
    {"kind": "corrupt", "content": "garbage", "count": 2, "insert": True},
    {"kind": "corrupt", "content": "bad_number", "probability": 0.01, "seconds": 2},
    {"kind": "sequence_hole", "venue": "coinbase", "count": 2},
)


@pytest.mark.ingest
@pytest.mark.timeout(SECONDS + 400)
async def test_ingest_chaos_ends_with_every_trade_exactly_once(
    collector: Any, ingestor: Any, eventually: Any, figures: list[str]
) -> None:
    rand = random.Random(11)
    done: Counter[str] = Counter()
    resident: list[int] = []
    async with running_simulator(process=True, rate=RATE, symbols=SYMBOLS) as sim:
        ingestor.environment |= sim.environment()
        await ingestor.start(SYMBOLS=SYMBOLS)
        for market in MARKETS:
            await eventually(lambda m=market: len(collector.trades[m]) > 50, 20)
        loop = asyncio.get_running_loop()
        ends, kills = loop.time() + SECONDS, [loop.time() + SECONDS * 0.35, loop.time() + SECONDS * 0.7]
        while loop.time() < ends:
            fault = dict(rand.choice(CHAOS))
            fault.setdefault("venue", rand.choice(["binance", "coinbase"]))
            await sim.control.fault(**fault)
            done[fault["kind"]] += 1
            await asyncio.sleep(rand.uniform(0.3, 1.5))
            if kills and loop.time() > kills[0]:
                kills.pop(0)
                await ingestor.stop(signal.SIGKILL)
                done["SIGKILL"] += 1
                await asyncio.sleep(1)
                await ingestor.start(SYMBOLS=SYMBOLS)
            resident.append(psutil.Process(ingestor.pid).memory_info().rss)
        await sim.control.clear()
        await asyncio.sleep(5)
        for market in MARKETS:
            before = len(collector.trades[market])
            await eventually(lambda m=market, b=before: len(collector.trades[m]) > b + 5, 60)
        await sim.control.pause()
        sent = doubled = repaired = 0
        for venue, symbol in MARKETS:
            newest = (await sim.control.trades(venue, symbol, limit=1))[-1]["id"]
            await eventually(lambda v=venue, s=symbol, n=newest: n in collector.ids(v, s)[-20_000:], 30)
            await eventually(
                lambda v=venue, s=symbol, n=newest: _is_whole(collector.ids(v, s), n), 120, symbol
            )
            every = collector.trades[venue, symbol]
            booked = {trade.trade_id: trade for trade in every}
            first = every[0].trade_id
            missing = sorted(set(range(first, newest + 1)) - set(booked))
            assert missing == [], (venue, symbol, len(missing), missing[:10])
            ledger = await _ledger(sim, venue, symbol, first, newest)
            mine = [(t.trade_id, t.price, t.size, t.side) for _, t in sorted(booked.items())]
            assert mine == ledger
            sent += len(ledger)
            doubled += len(every) - len(booked)
            repaired += sum(1 for trade in every if trade.flags & 2)
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(f"{ingestor.url}/metrics")).text
    found = re.findall(r"cryptopulse_trades_duplicate_total\{[^}]*\} (\S+)", metrics)
    dropped = round(sum(map(float, found)))
    figures.append(
        f"chaos {SECONDS:.0f} s of {dict(done)}: sent {sent}, repaired {repaired}, doubles dropped by the ingestor {dropped}, "
        f"sent again after SIGKILL {doubled}, lost 0; memory of the ingestor first {resident[0] >> 20} MB, "
        f"last {resident[-1] >> 20} MB, most {max(resident) >> 20} MB"
    )
    assert collector.conflated == []
    assert max(resident) < 400 << 20
    assert doubled < RATE * 3 * 2


def _is_whole(ids: list[int], newest: int) -> bool:
    """Nothing between our first one and the newest is missing; what a failing venue held back comes late."""
    return len({n for n in ids if ids[0] <= n <= newest}) == newest - ids[0] + 1


async def _ledger(
    sim: Any, venue: str, symbol: str, first: int, newest: int
) -> list[tuple[int, Decimal, Decimal, str]]:
    rows: list[tuple[int, Decimal, Decimal, str]] = []
    at = first
    while at <= newest:
        page = await sim.control.trades(venue, symbol, from_id=at, limit=1_000)
        rows += [
            (r["id"], Decimal(r["price"]), Decimal(r["size"]), r["taker"]) for r in page if r["id"] <= newest
        ]
        at = page[-1]["id"] + 1
    return rows
