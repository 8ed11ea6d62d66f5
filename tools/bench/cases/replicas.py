"""What a second replica of the indicator service is worth: the shards divide themselves, and so does the load.

The whole system under one load, with one replica and with two. A replica is full when it needs a whole core, so the
load that two can take is that of one, times the CPU of the one, over that of the busier of the two.
"""

from __future__ import annotations

import asyncio
import os
import time

import httpx

from cryptopulse.common.contracts.topics import DEFAULT_SHARDS
from tools.bench.backends import fresh_backends
from tools.bench.cases.route import Load, cpu_seconds, running, trades_made
from tools.bench.measure import Row, sized
from tools.harness.system import System

TITLE = "Indicators: two replicas beside one"
NOT_IN = ("quick",)
"""A whole system is started for it; in a quick run that of `route` is enough."""
LOAD = Load(*(int(part) for part in os.environ.get("LOAD", sized("10000/100/0", "300/20/0")).split("/")))
"""Ticks per second / symbols / 0."""
SECONDS = sized(20, 3)
QUIET_SECONDS = sized(8, 1)
"""A replica has settled when no indicator series was built anew for so long."""
SETTLE_SECONDS = 150.0


async def run() -> list[Row]:
    """A row for one replica, a row for two."""
    alone, both = await _with(1), await _with(2)
    times = sum(alone[1]) / max(both[1])
    even = min(both[1]) / max(both[1])
    return [
        _row("one replica", alone, {}),
        _row("two replicas", both, {"times the load": times, "evenness": even}),
    ]


async def _with(replicas: int) -> tuple[float, list[float]]:
    """Measured on a system of its own, whose replicas divide the shards before the load comes: moving them is not the load."""
    async with fresh_backends() as backends, running(backends, LOAD) as system:
        await system.until_ready("gateway")
        await system.price("BTC")
        names = ["indicators"]
        if replicas == 2:
            names.append(await second_owner(system))
        await system.control("POST", "/rate", json={"rate": LOAD.rate / LOAD.share})
        return await _measured(system, names)


async def second_owner(system: System) -> str:
    """Start a second indicator service and wait until it owns half of the shards; its name."""
    second = system.start_second("indicators")

    async def divided() -> bool:
        return [await _owned(system, name) for name in ("indicators", second)] == [DEFAULT_SHARDS // 2] * 2

    await system.until(divided, what="the shards are divided", of=second)
    return second


async def _owned(system: System, name: str) -> int:
    return await _counted(system, name, "cryptopulse_shards_owned")


async def _counted(system: System, name: str, metric: str) -> int:
    answer = await system.client.get(f"http://127.0.0.1:{system.ports[name]}/metrics")
    if answer.status_code != httpx.codes.OK:
        return 0
    lines = [line for line in answer.text.splitlines() if line.startswith(metric)]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


async def _until_settled(system: System, names: list[str]) -> None:
    """Series that start, and those that moved, are built once: that is not the load."""
    built, since, deadline = -1, 0.0, time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        now = sum([await _counted(system, name, "cryptopulse_series_rebuilt_total") for name in names])
        if now != built:
            built, since = now, time.monotonic()
        elif time.monotonic() - since > QUIET_SECONDS:
            return
        await asyncio.sleep(1)
    raise RuntimeError(f"series were still built after {SETTLE_SECONDS:.0f} s")


async def _measured(system: System, names: list[str]) -> tuple[float, list[float]]:
    """Ticks per second, and the share of a core that each replica used."""
    await _until_settled(system, names)
    before, made, started = cpu_seconds(system), await trades_made(system), time.monotonic()
    await asyncio.sleep(SECONDS)
    after, wall = cpu_seconds(system), time.monotonic() - started
    ticks = (await trades_made(system) - made) * LOAD.share
    return ticks / wall, [(after[name] - before[name]) / wall for name in names]


def _row(name: str, measured: tuple[float, list[float]], extra: dict[str, float]) -> Row:
    rate, shares = measured
    return Row(
        case="replicas",
        name=f"{name}, {LOAD.rate:,} ticks/s, {LOAD.symbols:,} symbols",
        unit="ticks/s",
        rounds=1,
        per_cpu_second=rate / sum(shares),
        low=rate / sum(shares),
        high=rate / sum(shares),
        per_wall_second=rate,
        cpu_us_per_item=1e6 * sum(shares) / rate,
        hold="1.8 times the load" if extra else "",
        extra={**{f"replica {at} %": 100 * share for at, share in enumerate(shares, start=1)}, **extra},
    )
