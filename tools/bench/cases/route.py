"""The whole route: venue frames of the simulator through all five services to sockets; throughput, latency, loss, CPU.

A tick is a trade of a judged pair; there are as many quotes beside. Latency is from the trade's time at the venue to its
arrival, both on this machine's clock: at a WebSocket client on the `trades` channel, in Redis, and as an alert event at its
owner's socket. It counts Binance's trades, whose frame leaves within 10 ms of the trade; Coinbase bundles trades for 50 ms
before a frame leaves, so that both venues together are counted from the frame's arrival (`rx`). Loss is judged by the
simulator's own ledger against the candles that the system built, per venue and symbol, and by the ids that the socket saw.

The yardstick, under the same load in the same run, is the least that brings trades from venues to sockets over RabbitMQ: of it
loss is judged by the ids at the socket only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jwt
import psutil

from cryptopulse.common.config import SERVICES
from cryptopulse.common.testing.servers.ports import free_port
from tools.bench.backends import fresh_backends
from tools.bench.measure import Row, sized
from tools.bench.readers import Readers, readers
from tools.bench.route_loss import loss, missing, of_ids
from tools.bench.route_probes import WATCHED, Seen, following, probes
from tools.harness.system import Backends, System
from tools.venue_sim.market.instruments import TRADING_VENUES, default_instruments

TITLE = "The whole route: venue frame to WebSocket client, all five services, rules and a portfolio present"
LOADS = os.environ.get("LOADS", sized("5000/20/200,20000/20/200,60000/20/200", "500/20/5"))
"""Ticks per second / symbols / sockets, comma-separated."""
SECONDS = float(os.environ.get("SECONDS_PER_LOAD", sized("12", "3")))
BARE_SECONDS = SECONDS / 2
WARM_SECONDS = 3.0
SETTLE_SECONDS = 4.0
JUDGED = ("binance", "coinbase")
BASES = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC")
RATES = ("USDT-USD", "USDC-USD", "EUR-USD")
SUBSCRIBE = '{"op":"subscribe","id":1,"channels":[{"ch":"ticker","symbols":["BTC-USD"]}]}'
SERVERS = {"beam.smp": "rabbitmq", "redis-server": "redis", "postgres": "postgres"}


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the system. Beyond the twenty pairs of the majors come small coins, a pair on each venue."""

    rate: int
    symbols: int
    sockets: int

    def __str__(self) -> str:
        return f"{self.rate:,} ticks/s, {self.symbols:,} symbols, {self.sockets:,} sockets"

    @property
    def extra(self) -> int:
        """Small coins."""
        return max(0, self.symbols // 2 - len(BASES))

    @property
    def pairs(self) -> list[str]:
        """The judged pairs."""
        bases = (*BASES, *(f"X{number:04}" for number in range(1, self.extra + 1)))
        return [f"{base}-{quote}" for base in bases[: self.symbols // 2] for quote in ("USDT", "USD")]

    @property
    def share(self) -> float:
        """The part of the simulated market's trades that falls on the judged pairs."""
        wanted, judged = {*self.pairs, *RATES}, set(self.pairs)
        market = [one for venue in TRADING_VENUES for one in default_instruments(venue, self.extra)]
        weights = {(one.venue, one.symbol): one.weight for one in market if one.symbol in wanted}
        ours = sum(w for (venue, symbol), w in weights.items() if venue in JUDGED and symbol in judged)
        return ours / sum(weights.values())


@dataclass(frozen=True, slots=True)
class Window:
    """Ticks of the judged pairs, CPU seconds by process, and what clients saw."""

    ticks: float
    wall: float
    used: dict[str, float]
    figures: dict[str, float]

    def row(self, name: str, counted: Iterable[str], more: Mapping[str, float]) -> Row:
        """One round; its CPU is that of the processes that count."""
        cpu = sum(self.used[one] for one in counted)
        return Row(
            case="route",
            name=name,
            unit="ticks/s",
            rounds=1,
            per_cpu_second=self.ticks / cpu,
            low=self.ticks / cpu,
            high=self.ticks / cpu,
            per_wall_second=self.ticks / self.wall,
            cpu_us_per_item=1e6 * cpu / self.ticks,
            extra={
                **self.figures,
                **more,
                **{f"{one} %": 100 * seconds / self.wall for one, seconds in self.used.items()},
            },
        )


async def run() -> list[Row]:
    """Two rows per load, ours and the yardstick; the process CPU of ours is that of all five services together."""
    rows = []
    for text in LOADS.split(","):
        load = Load(*(int(part) for part in text.split("/")))
        async with fresh_backends() as backends:
            ours = await _under(backends, load)
        async with fresh_backends() as backends:
            bare = await _bare(backends, load)
        rows += [ours, replace(bare, ratio=ours.per_cpu_second / bare.per_cpu_second)]
    return rows


async def _under(backends: Backends, load: Load) -> Row:
    async with running(backends, load) as system:
        await system.until_ready("gateway")
        await system.price("BTC")
        headers = await system.login()
        await _rules_and_portfolio(system, headers)
        claims = {"sub": "bench", "exp": int(time.time()) + 3_600, "tier": "enterprise"}
        token = jwt.encode(claims, system.secret, algorithm="HS256")
        judge = {"authorization": f"Bearer {token}"}
        pairs = [(venue, symbol) for venue in JUDGED for symbol in load.pairs]
        # Before the probes, which make trades of their own: nothing is on its way while the market stands.
        await system.control("POST", "/pause")
        await asyncio.sleep(SETTLE_SECONDS)
        before_us = await missing(system, pairs, judge)
        await system.control("POST", "/resume")
        seen = Seen()
        async with (
            readers(
                system.port,
                "/v1/ws",
                load.sockets,
                subscribe=SUBSCRIBE,
                mark='"type":"update"',
                token=token,
            ) as clients,
            probes(system, headers, seen),
        ):
            window = await _window(system, load, clients, seen, SECONDS)
            seen.is_settling = True
            await system.control("POST", "/pause")
            await asyncio.sleep(SETTLE_SECONDS)
            lost, doubled = await loss(system, pairs, seen.ids, judge, before_us)
    figures = {"conflated": seen.conflated, "lost": lost, "doubled": doubled}
    return replace(window.row(str(load), SERVICES, figures), hold="20,000/s, p99 < 50 ms, lost 0")


async def _bare(backends: Backends, load: Load) -> Row:
    """The yardstick's two processes on the same venues."""
    async with running(backends, load, services=()) as system:
        program = [sys.executable, "-m", "tools.bench.yardsticks.bare_route"]
        await system.until(lambda: system.control("GET", "/stats"), what="the venues are up", of="simulator")
        port = free_port()
        system.spawn("serve", [*program, "serve", str(port), WATCHED])
        ready = f"http://127.0.0.1:{port}/ready"
        await system.until(lambda: system.client.get(ready), what="the yardstick answers", of="serve")
        venues = [system.environment[f"{venue.upper()}_WS_URL"] for venue in JUDGED]
        system.spawn("take", [*program, "take", *venues, ",".join(load.pairs)])
        seen = Seen()
        async with (
            readers(port, "/", load.sockets, mark='"type":"update"') as clients,
            following(f"ws://127.0.0.1:{port}/trades", seen),
        ):
            window = await _window(system, load, clients, seen, BARE_SECONDS)
            await system.control("POST", "/pause")
            await asyncio.sleep(1)
    lost, doubled = of_ids(seen.ids)
    return window.row("the bare pipeline", ("take", "serve"), {"lost": lost, "doubled": doubled})


async def _window(system: System, load: Load, clients: Readers, seen: Seen, seconds: float) -> Window:
    """What happens in so many seconds, once the load has been on for a while."""
    await system.control("POST", "/rate", json={"rate": load.rate / load.share})
    await asyncio.sleep(WARM_SECONDS)
    await clients.counted()
    made, before, started = await trades_made(system), cpu_seconds(system), time.monotonic()
    seen.clear()
    await asyncio.sleep(seconds)
    figures = seen.figures()
    wall, after = time.monotonic() - started, cpu_seconds(system)
    ticks = (await trades_made(system) - made) * load.share
    frames = await clients.counted()
    figures |= {"frames/s": frames["messages"] / wall, "sockets lost": frames["lost"]}
    return Window(ticks, wall, {name: after[name] - before[name] for name in after}, figures)


@contextlib.asynccontextmanager
async def running(
    backends: Backends, load: Load, services: tuple[str, ...] = tuple(SERVICES)
) -> AsyncIterator[System]:
    """The system on the simulator, with the load's pairs and without history."""
    settings = {
        "SYMBOLS": ",".join(load.pairs),
        "CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS": "0",
        "CRYPTOPULSE_INGESTOR_HISTORY_HOURS_DAYS": "0",
        "CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS": "0",
        "LOG_LEVEL": "WARNING",
    }
    arguments = ("--rate", "20", "--quote-ratio", "1", "--symbols-extra", str(load.extra))
    symbols = ("--symbols", ",".join((*load.pairs, *RATES)))
    with tempfile.TemporaryDirectory() as folder:
        async with System(
            backends,
            Path(folder),
            settings=settings,
            simulator_arguments=(*arguments, *symbols),
            services=services,
        ) as system:
            yield system


async def _rules_and_portfolio(system: System, headers: dict[str, str]) -> None:
    """Twenty rules that do not fire, one that fires when a probe's trade crosses it, and a holding."""
    price = float((await system.price("BTC"))["price"])

    async def known() -> bool:
        rule = {"symbol": "BTC", "condition": "above", "price": f"{price * 2:.2f}"}
        return (await system.client.post("/alerts", json=rule, headers=headers)).is_success

    await system.until(known, what="the catalogue knows BTC", of="alerts")
    for place in range(19):
        rule = {"symbol": "BTC", "condition": "above", "price": f"{price * (2 + place / 100):.2f}"}
        (await system.client.post("/alerts", json=rule, headers=headers)).raise_for_status()
    crossed = {
        "symbol": WATCHED,
        "source": "binance",
        "condition": {"type": "price_cross", "value": f"{price * 1.05:.2f}"},
        "trigger": "every_cross",
    }
    (await system.client.post("/v1/alerts", json=crossed, headers=headers)).raise_for_status()
    order = {"symbol": "BTC", "quantity": "1", "price": "1000"}
    (await system.client.post("/portfolio", json=order, headers=headers)).raise_for_status()


async def trades_made(system: System) -> int:
    """Trades that the simulator has made until now."""
    counters: dict[str, int] = (await system.control("GET", "/stats"))["counters"]
    return counters["trades"]


def cpu_seconds(system: System) -> dict[str, float]:
    """CPU seconds until now: of each process of the system, and of the servers when they were started with us."""
    used = {name: _seconds(psutil.Process(process.pid)) for name, process in system.processes.items()}
    for process in psutil.Process(os.getppid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if (server := SERVERS.get(process.name())) is not None:
                used[server] = used.get(server, 0.0) + _seconds(process)
    return used


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
