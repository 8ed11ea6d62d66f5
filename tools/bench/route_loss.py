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
Missing = dict[tuple[str, str, int], int]
"""(venue, symbol, open time of a minute) -> trades of the ledger that its candle does not have; negative when it has too many."""


async def missing(system: System, pairs: Sequence[Pair], headers: dict[str, str]) -> Missing:
    """Where candles and ledger differ now: in the minute in which the feeds began, candles lack what was before."""
    found: Missing = {}
    for pair in pairs:
        found |= await _of_pair(system, *pair, headers)
    return found


async def loss(
    system: System,
    pairs: Sequence[Pair],
    ids: Mapping[str, list[int]],
    headers: dict[str, str],
    before: Missing,
) -> tuple[int, int]:
    """Trades lost since `before` and doubled, once everything on its way has arrived: what is late is not lost."""
    waiting = list(pairs)
    lost = doubled = 0
    for look in range(CATCH_UP_LOOKS):
        if look:
            await asyncio.sleep(CATCH_UP_SECONDS)
        now = await missing(system, waiting, headers)
        lost = sum(max(0, count - max(0, before.get(key, 0))) for key, count in now.items())
        doubled = sum(max(0, -count) for count in now.values())
        waiting = list({(venue, symbol): None for venue, symbol, _ in now})
        if not (lost or doubled):
            break
    lost_ids, doubled_ids = of_ids(ids)
    return lost + lost_ids, doubled + doubled_ids


def of_ids(ids: Mapping[str, list[int]]) -> tuple[int, int]:
    """Lost and doubled by the trade ids that one socket saw, which count on by one at each venue."""
    distinct = {venue: set(seen) for venue, seen in ids.items()}
    lost = sum(max(seen) - min(seen) + 1 - len(seen) for seen in distinct.values())
    return lost, sum(len(ids[venue]) - len(seen) for venue, seen in distinct.items())


async def _of_pair(system: System, venue: str, symbol: str, headers: dict[str, str]) -> Missing:
    minutes = (await _ledger(system, venue, symbol)).get("minutes", [])
    if not minutes:
        return {}
    params: dict[str, Any] = {
        "interval": "1m",
        "source": venue,
        "from": minutes[0]["open_time"],
        "to": minutes[-1]["open_time"] + MINUTE_MS,
        "limit": 1000,
    }
    answer = await system.client.get(f"/v1/candles/{symbol}", params=params, headers=headers)
    if answer.status_code != httpx.codes.NOT_FOUND:
        # Any other refusal must not pass for candles that lack everything: what lacks before the load is not counted as lost.
        answer.raise_for_status()
    rows = {row["open_time"]: row["trades"] for row in answer.json().get("data", [])}
    differences = {
        (venue, symbol, at["open_time"]): at["trades"] - rows.get(at["open_time"], 0) for at in minutes
    }
    return {key: count for key, count in differences.items() if count}


async def _ledger(system: System, venue: str, symbol: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await system.control("GET", f"/ledger/{venue}/{symbol}")
    except httpx.HTTPStatusError:
        return {}
    return found
