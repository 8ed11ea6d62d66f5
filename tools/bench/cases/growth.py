"""How the cost of a tick grows: from one base, one thing at a time becomes more - symbols, sockets, rules, replicas.

CPU time per tick of each service, over a window of the whole route (`route.py`); the simulator, the servers and the clients are
not in it. Rules wait far above the market: each tick is held against them, none fires. It takes some ten minutes, so it is run
by its name only: `make bench CASE=growth`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

import asyncpg
import jwt

from cryptopulse.alerts.adapters.rule_repository import RULES_CHANNEL
from cryptopulse.common.config import SERVICES
from tools.bench.backends import fresh_backends
from tools.bench.cases.replicas import second_owner
from tools.bench.cases.route import SERVERS, SUBSCRIBE, Load, cpu_seconds, running, trades_made
from tools.bench.measure import Row, sized
from tools.bench.readers import Readers, readers
from tools.harness.system import System

TITLE = "Growth: CPU time per tick against symbols, sockets, rules, replicas, one of them at a time"
NOT_IN = ("full", "quick")
RATE = int(os.environ.get("RATE", sized("5000", "300")))
SECONDS = float(os.environ.get("SECONDS_PER_LOAD", sized("12", "3")))
WARM_SECONDS: Final = sized(6, 2)
TAKEN_OVER_SECONDS: Final = 120.0
OWNERS: Final = 10
"""Users who share the rules: one may have a few thousand at most."""


@dataclass(frozen=True, slots=True)
class Point:
    """What the system holds, and how many replicas of two services do the work."""

    symbols: int
    sockets: int
    rules: int
    indicators: int = 1
    gateways: int = 1

    @property
    def load(self) -> Load:
        """The load without rules."""
        return Load(RATE, self.symbols, self.sockets)

    def name(self, varied: str) -> str:
        """What differs from the base."""
        return f"{getattr(self, varied):,} {varied}"


def sizes(name: str, full: str, quick: str) -> tuple[int, ...]:
    """The sizes of one thing, the base first."""
    return tuple(int(part) for part in os.environ.get(name.upper(), sized(full, quick)).split(","))


GROWTH: Final = {
    "symbols": sizes("symbols", "200,20,1000", "20,40"),
    "sockets": sizes("sockets", "200,1000,2000", "5,20"),
    "rules": sizes("rules", "20,1000,10000", "20,100"),
    "indicators": sizes("indicators", "1,2", "1,2"),
    "gateways": sizes("gateways", "1,2", "1,2"),
}


async def run() -> list[Row]:
    """The base, then a row for each other size of each thing; the base once more at the end, for the drift of the host."""
    base = Point(**{name: those[0] for name, those in GROWTH.items()})
    points = [
        (point.name(name), point)
        for name, those in GROWTH.items()
        for point in (replace(base, **{name: size}) for size in those[1:])
    ]
    told = f"{base.symbols:,} symbols, {base.sockets:,} sockets, {base.rules:,} rules"
    rows = []
    for name, point in [(f"base: {told}", base), *points, ("base, once more", base)]:
        rows.append(await _measured(name, point))
    return rows


async def _measured(name: str, point: Point) -> Row:
    async with fresh_backends() as backends, running(backends, point.load) as system:
        await system.until_ready("gateway")
        await system.price("BTC")
        await _add_rules(system, point)
        doors = [system.port]
        if point.indicators > 1:
            await second_owner(system)
        if point.gateways > 1:
            second = system.start_second("gateway")
            await system.until_ready(second)
            doors.append(system.doors[second])
        async with _clients(system, doors, point.sockets) as clients:
            await system.control("POST", "/rate", json={"rate": RATE / point.load.share})
            await asyncio.sleep(WARM_SECONDS)
            for one in clients:
                await one.counted()
            made, before, started = await trades_made(system), cpu_seconds(system), time.monotonic()
            await asyncio.sleep(SECONDS)
            after, wall = cpu_seconds(system), time.monotonic() - started
            ticks = (await trades_made(system) - made) * point.load.share
            frames = [await one.counted() for one in clients]
    each = {process: 1e6 * (after[process] - before[process]) / ticks for process in after}
    services = {service: each[service] + each.get(f"{service}2", 0.0) for service in SERVICES}
    cost = sum(services.values())
    return Row(
        case="growth",
        name=name,
        unit="ticks/s",
        rounds=1,
        per_cpu_second=1e6 / cost,
        low=1e6 / cost,
        high=1e6 / cost,
        per_wall_second=ticks / wall,
        cpu_us_per_item=cost,
        extra={
            **{f"{service} us": us for service, us in services.items()},
            **{f"{server} us": each[server] for server in SERVERS.values() if server in each},
            "frames/s": sum(found["messages"] for found in frames) / wall,
            "sockets lost": sum(found["lost"] for found in frames),
        },
    )


@contextlib.asynccontextmanager
async def _clients(system: System, doors: list[int], sockets: int) -> AsyncIterator[list[Readers]]:
    """Sockets with a ticker each, evenly over the gateways, in a process for each of these."""
    token = _token(system, "bench")["authorization"].removeprefix("Bearer ")
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                readers(
                    port,
                    "/v1/ws",
                    sockets // len(doors),
                    subscribe=SUBSCRIBE,
                    mark='"type":"update"',
                    token=token,
                )
            )
            for port in doors
        ]


async def _add_rules(system: System, point: Point) -> None:
    """A rule on each asset through the API, copies of these with thresholds of their own straight to the table."""
    pairs = [pair for pair in point.load.pairs if pair.endswith("-USDT")][:OWNERS]
    for number, pair in enumerate(pairs):
        await _rule(system, _token(system, f"owner{number}"), pair)
    connection = await asyncpg.connect(system.backends.postgres)
    try:
        copies = max(0, point.rules // len(pairs) - 1)
        await connection.execute(_COPIES, copies, RULES_CHANNEL)

        async def taken_over() -> bool:
            waiting = (
                "SELECT count(*) FROM alerts.rules WHERE NOT coalesce((runtime->>'evaluated')::bool, false)"
            )
            return bool(await connection.fetchval(waiting) == 0)

        await system.until(
            taken_over, what="every rule is evaluated", of="alerts", seconds=TAKEN_OVER_SECONDS
        )
    finally:
        await connection.close()


_COPIES: Final = """
WITH made AS (
    INSERT INTO alerts.rules (id, user_id, state, symbol, type, home, definition, runtime, created_price)
    SELECT r.id || '-' || n, r.user_id, r.state, r.symbol, r.type, r.home,
           jsonb_set(r.definition, '{condition,value}', to_jsonb((1000000000 + n)::text)), r.runtime - 'evaluated',
           r.created_price
    FROM alerts.rules r, generate_series(1, $1::integer) AS n
    RETURNING id
)
SELECT pg_notify($2, id) FROM made
"""


async def _rule(system: System, headers: dict[str, str], pair: str) -> None:
    rule = {
        "symbol": pair,
        "source": "binance",
        "condition": {"type": "price_above", "value": "1000000000"},
    }

    async def known() -> bool:
        return (await system.client.post("/v1/alerts", json=rule, headers=headers)).is_success

    await system.until(known, what=f"a rule on {pair}", of="alerts")


def _token(system: System, user: str) -> dict[str, str]:
    claims = {"sub": user, "exp": int(time.time()) + 3_600, "tier": "enterprise"}
    return {"authorization": f"Bearer {jwt.encode(claims, system.secret, algorithm='HS256')}"}
