"""What a second replica of the indicator service is worth: the shards divide themselves, and so does the load.

One replica under a load, and two under 1.8 times that load, in turn, so that a host that changes its speed changes both: the two
take it when the busier of them needs no more of a core than the one did. Beside them run the ingestor and the venues only: on a
machine that is full, flushes come late, and who is late works less.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from dataclasses import dataclass
from functools import partial

import httpx

from cryptopulse.common.contracts.topics import DEFAULT_SHARDS
from tools.bench.backends import fresh_backends
from tools.bench.cases.route import Load, cpu_seconds, running, trades_made
from tools.bench.measure import Row, sized
from tools.harness.system import System

TITLE = "Indicators: two replicas beside one"
NOT_IN = ("quick",)
"""A whole system is started for it; in a quick run that of `route` is enough."""
LOAD = Load(*(int(part) for part in os.environ.get("LOAD", sized("4000/100/0", "300/20/0")).split("/")))
"""Ticks per second of the one / symbols / 0."""
MORE = 1.8
SECONDS = sized(12, 3)
ROUNDS = sized(2, 1)
"""How often two replicas are measured; one is before, between and after them."""
IDLE_RATE = 20
"""Trades a second of the whole market while shards move: moving them is not the load."""
QUIET_SECONDS = sized(8, 1)
"""A replica has settled when no indicator series was built anew for so long."""
SETTLE_SECONDS = 150.0
TICKS_HANDLED = "cryptopulse_tick_age_seconds_count"


@dataclass(frozen=True, slots=True)
class Window:
    """Ticks per second, the share of a core that each replica used, and the looks at forming bars a second that were left out.

    Looks are left out when ticks wait for more than a second: then the machine is too full to compare anything on it.
    """

    rate: float
    shares: list[float]
    left_out: float

    @property
    def per_cpu_second(self) -> float:
        """Ticks for a second of CPU, over all replicas."""
        return self.rate / sum(self.shares)


async def run() -> list[Row]:
    """A row for one replica, a row for two."""
    ones: list[Window] = []
    twos: list[Window] = []
    services = ("ingestor", "indicators")
    async with fresh_backends() as backends, running(backends, LOAD, services) as system:
        await system.until_ready("indicators")
        await system.until(partial(_owns, system, "indicators", DEFAULT_SHARDS), what="one owns all shards")
        await system.until(partial(_counted, system, "indicators", TICKS_HANDLED), what="ticks arrive")
        ones.append(await _measured(system, ["indicators"], LOAD.rate))
        for _ in range(ROUNDS):
            second = await second_owner(system)
            twos.append(await _measured(system, ["indicators", second], MORE * LOAD.rate))
            await system.stop_second(second)
            await system.until(
                partial(_owns, system, "indicators", DEFAULT_SHARDS), what="one owns all shards"
            )
            ones.append(await _measured(system, ["indicators"], LOAD.rate))
    busier = [
        max(two.shares) / ((before.shares[0] + after.shares[0]) / 2)
        for before, two, after in zip(ones, twos, ones[1:], strict=False)
    ]
    return [
        _row("one replica", ones, {}),
        _row(
            "two replicas",
            twos,
            {
                "busier / the one": statistics.median(busier),
                "evenness": statistics.median(min(two.shares) / max(two.shares) for two in twos),
            },
        ),
    ]


async def second_owner(system: System) -> str:
    """Start a second indicator service and wait until it owns half of the shards; its name."""
    second = system.start_second("indicators")

    async def divided() -> bool:
        half = DEFAULT_SHARDS // 2
        return await _owns(system, "indicators", half) and await _owns(system, second, half)

    await system.until(divided, what="the shards are divided", of=second)
    return second


async def _owns(system: System, name: str, shards: int) -> bool:
    return await _counted(system, name, "cryptopulse_shards_owned") == shards


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


async def _measured(system: System, names: list[str], ticks_per_second: float) -> Window:
    """A window under a load, once the replicas have settled under it."""
    await system.control("POST", "/rate", json={"rate": ticks_per_second / LOAD.share})
    await _until_settled(system, names)
    left_out = await _left_out(system, names)
    before, made, started = cpu_seconds(system), await trades_made(system), time.monotonic()
    await asyncio.sleep(SECONDS)
    after, wall = cpu_seconds(system), time.monotonic() - started
    ticks = (await trades_made(system) - made) * LOAD.share
    left_out = await _left_out(system, names) - left_out
    await system.control("POST", "/rate", json={"rate": IDLE_RATE})
    return Window(ticks / wall, [(after[name] - before[name]) / wall for name in names], left_out / wall)


async def _left_out(system: System, names: list[str]) -> int:
    return sum([await _counted(system, name, "cryptopulse_indicators_backpressure_total") for name in names])


def _row(name: str, windows: list[Window], extra: dict[str, float]) -> Row:
    speeds = [window.per_cpu_second for window in windows]
    shares = [statistics.median(each) for each in zip(*(window.shares for window in windows), strict=True)]
    return Row(
        case="replicas",
        name=f"{name}, {LOAD.symbols:,} symbols",
        unit="ticks/s",
        rounds=len(windows),
        per_cpu_second=statistics.median(speeds),
        low=min(speeds),
        high=max(speeds),
        per_wall_second=statistics.median(window.rate for window in windows),
        cpu_us_per_item=1e6 / statistics.median(speeds),
        hold=f"busier <= the one, at {MORE:g} times the load" if extra else "",
        extra={
            **{f"replica {at} %": 100 * share for at, share in enumerate(shares, start=1)},
            "looks left out/s": statistics.median(window.left_out for window in windows),
            **extra,
        },
    )
