"""What the route lost or doubled: the simulator's ledger beside the candles that the system built, and ids beside ids."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tools.harness.system import System

MINUTE_MS = 60_000
CATCH_UP_LOOKS = 15
CATCH_UP_SECONDS = 2.0

Pair = tuple[str, str]


async def loss(
    system: System, pairs: Sequence[Pair], ids: Mapping[str, list[int]], headers: dict[str, str]
) -> tuple[int, int]:
    """Trades lost and doubled, once everything on its way has arrived: what is late is not lost."""
    waiting = [pair for pair in pairs if await _ledger(system, *pair)]
    lost = doubled = 0
    for look in range(CATCH_UP_LOOKS):
        if look:
            await asyncio.sleep(CATCH_UP_SECONDS)
        verdicts = {pair: await _of_pair(system, *pair, headers) for pair in waiting}
        waiting = [pair for pair, verdict in verdicts.items() if any(verdict)]
        lost, doubled = (sum(verdict[place] for verdict in verdicts.values()) for place in (0, 1))
        if not waiting:
            break
    for seen in ids.values():
        distinct = set(seen)
        lost += max(distinct) - min(distinct) + 1 - len(distinct)
        doubled += len(seen) - len(distinct)
    return lost, doubled


async def _of_pair(system: System, venue: str, symbol: str, headers: dict[str, str]) -> tuple[int, int]:
    """Trades missing from and too many in the candles of a pair, all minutes but the first, in which we began."""
    minutes = (await _ledger(system, venue, symbol)).get("minutes", [])[1:]
    if not minutes:
        return 0, 0
    params: dict[str, Any] = {
        "interval": "1m",
        "source": venue,
        "from": minutes[0]["open_time"],
        "to": minutes[-1]["open_time"] + MINUTE_MS,
        "limit": 1000,
    }
    answer = await system.client.get(f"/v1/candles/{symbol}", params=params, headers=headers)
    rows = {row["open_time"]: row["trades"] for row in answer.json().get("data", [])}
    differences = [minute["trades"] - rows.get(minute["open_time"], 0) for minute in minutes]
    return sum(max(0, d) for d in differences), sum(max(0, -d) for d in differences)


async def _ledger(system: System, venue: str, symbol: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await system.control("GET", f"/ledger/{venue}/{symbol}")
    except httpx.HTTPStatusError:
        return {}
    return found
