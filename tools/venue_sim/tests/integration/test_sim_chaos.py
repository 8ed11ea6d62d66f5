"""A careful client can get every trade exactly once through cuts, drops, doubles and shuffles: the faults are fair."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
from websockets.exceptions import WebSocketException

from tools.venue_sim.options import Options
from tools.venue_sim.testing import Simulation, running_simulator, tapped
from tools.venue_sim.venues.coinbase.site import CoinbaseOptions

OPTIONS = Options(rate=1500.0, coins=3, coinbase=CoinbaseOptions(requests_per_second=1000.0, burst=1000))

FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "drop", "probability": 0.05},
    {"kind": "duplicate", "probability": 0.05},
    {"kind": "reorder", "probability": 0.2, "window": 6},
    {
        "kind": "corrupt",
        "channel": "trade",
        "content": "bad_number",
        "field": "size",
        "value": "NaN",
        "probability": 0.02,
    },
    {"kind": "corrupt", "content": "garbage", "insert": True, "count": 1},
    {"kind": "cut", "after": 0.7},
    {"kind": "close", "after": 1.4, "code": 1012},
)


async def listen(url: str, message: Any, taken: Callable[[Any], None]) -> None:
    """Stay connected, whatever happens."""
    while True:
        with contextlib.suppress(OSError, WebSocketException, ConnectionError):
            async with tapped(url, message) as tap:
                seen = 0
                while not tap.closed:
                    for said in tap.messages[seen:]:
                        taken(said)
                        seen += 1
                    await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)


async def repair(client: httpx.AsyncClient, sim: Simulation, found: dict[int, Decimal], last: int) -> int:
    """Ask Binance for the ids between the first and `last` that never came."""
    missing = sorted(set(range(min(found), last + 1)) - set(found))
    repaired = 0
    for start in missing:
        if start in found:
            continue
        url = f"{sim.urls.binance_api}/historicalTrades?symbol=BTCUSDT&fromId={start}&limit=1000"
        for row in (await client.get(url)).json():
            if row["id"] in missing and row["id"] not in found:
                found[row["id"]] = Decimal(row["qty"])
                repaired += 1
    return repaired


async def test_every_trade_once_through_chaos() -> None:
    async with running_simulator(OPTIONS) as sim, httpx.AsyncClient(trust_env=False) as client:
        found: dict[int, Decimal] = {}
        doubles = 0

        def taken(message: Any) -> None:
            nonlocal doubles
            if isinstance(message, dict) and message.get("e") == "trade":
                doubles += message["t"] in found
                with contextlib.suppress(ArithmeticError):
                    size = Decimal(message["q"])
                    if size.is_finite() and size > 0:
                        found[message["t"]] = size

        reader = asyncio.create_task(listen(sim.urls.binance_ws + "/ws/btcusdt@trade", "ignored", taken))
        await asyncio.sleep(0.5)
        for spec in FAULTS:
            await sim.control.fault(
                str(spec["kind"]), venue="binance", **{key: spec[key] for key in spec if key != "kind"}
            )
        await asyncio.sleep(2.5)
        await sim.control.clear()
        await sim.control.pause()
        await asyncio.sleep(0.5)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        ledger = await sim.control.ledger("binance", "BTC-USDT", from_id=min(found))
        repaired = await repair(client, sim, found, ledger["last_id"])

    assert repaired > 0
    assert doubles > 0
    assert len(found) == ledger["count"] > 200
    assert sum(found.values()) == Decimal(ledger["volume"])
