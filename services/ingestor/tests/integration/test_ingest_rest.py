"""History, budgets, reference prices, the bus away, and the internal HTTP, on real servers and the simulator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from cryptopulse.common.cache.client import connect
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.common.testing.tcp_proxy import TcpProxy
from cryptopulse.ingestor.adapters.quota_store import QuotaStore
from cryptopulse.ingestor.adapters.redis_stores import (
    RedisHistoryMarks,
    RedisLastIds,
    RedisLease,
    RedisWanted,
)
from cryptopulse.ingestor.domain.history import Covered
from cryptopulse.ingestor.domain.quota import PoolRule, Priority
from tools.venue_sim.testing import Simulation, running_simulator

pytestmark = pytest.mark.timeout(120)
MINUTE = 60_000


@pytest.fixture
async def sim() -> AsyncIterator[Simulation]:
    async with running_simulator(process=True, rate=300) as found:
        yield found


async def test_history_comes_newest_first_whole_and_closed(
    sim: Simulation, collector: Any, ingestor: Any, eventually: Any
) -> None:
    ingestor.environment |= sim.environment()
    await ingestor.start(
        SYMBOLS="BTC-USDT,BTC-USD",
        CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS="2",
        CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS="30",
    )
    await eventually(lambda: _history_done(collector, "binance") and _history_done(collector, "coinbase"), 60)
    for venue, symbol in (("binance", "BTC-USDT"), ("coinbase", "BTC-USD")):
        minutes = sorted(collector.candles[venue, symbol, "1m"])
        assert len(minutes) > 0.9 * 2 * 1_440
        assert max(minutes) + MINUTE <= int(time.time() * 1_000)
        assert len(collector.candles[venue, symbol, "1d"]) == 30
        pages = [
            p.from_ms for p in collector.history if (p.venue, p.symbol, p.interval) == (venue, symbol, "1m")
        ]
        assert pages == sorted(pages, reverse=True)
        finals = [
            p.final for p in collector.history if (p.venue, p.symbol, p.interval) == (venue, symbol, "1m")
        ]
        assert finals == [False] * (len(finals) - 1) + [True]
    page = collector.history[0]
    assert all(candle.closed and candle.simulated for candle in page.candles)


def _history_done(collector: Any, venue: str) -> bool:
    status = collector.status.get(venue)
    progress = status.history if status is not None else None
    return (
        progress is not None and progress.series_total > 0 and progress.series_done == progress.series_total
    )


async def state_of(http: httpx.AsyncClient, venue: str, own: dict[str, Any]) -> str:
    feeds = {feed["venue"]: feed for feed in (await http.get("/status", **own)).json()}
    return str(feeds[venue]["state"])


async def test_a_range_is_fetched_on_request_and_waits_once(
    sim: Simulation, collector: Any, ingestor: Any, eventually: Any
) -> None:
    ingestor.environment |= sim.environment()
    await ingestor.start(SYMBOLS="BTC-USDT,ETH-USDT")
    await eventually(lambda: collector.trades["binance", "BTC-USDT"])
    end = int(time.time() * 1_000) // MINUTE * MINUTE - 30 * MINUTE
    body = {"symbol": "BTC-USDT", "interval": "1m", "from_ms": end - 100 * MINUTE, "to_ms": end}
    async with httpx.AsyncClient(base_url=ingestor.url) as http:
        assert (await http.post("/backfill", json=body)).status_code == 401
        refused = await http.post("/backfill", json=body, headers=ingestor.headers("anonymous"))
        assert refused.status_code == 403
        own = {"headers": ingestor.headers()}
        wrong = await http.post("/backfill", json=body | {"to_ms": 0}, **own)
        assert wrong.status_code == 422
        assert wrong.headers["content-type"].startswith("application/problem+json")
        assert (await http.post("/backfill", json=body | {"venue": "nowhere"}, **own)).status_code == 404
        taken = await http.post("/backfill", json=body, **own)
        assert taken.status_code == 202
        assert "binance BTC-USDT 1m" in taken.json()["queued"]
        await eventually(lambda: len(collector.candles["binance", "BTC-USDT", "1m"]) >= 90)
        opens = sorted(collector.candles["binance", "BTC-USDT", "1m"])
        assert opens[0] >= end - 100 * MINUTE
        assert opens[-1] < end

        async with asyncio.timeout(20):  # history may be there before the socket is
            while (await state_of(http, "binance", own)) != "live":
                await asyncio.sleep(0.05)
        for scopes in (frozenset(), frozenset({"*"})):
            user = {"headers": ingestor.headers("user", scopes)}
            assert (await http.post("/feeds/binance/pause", **user)).status_code == 403
            assert (await http.post("/feeds/binance/resume", **user)).status_code == 403
            assert (await http.get("/feeds/binance/quarantine", **user)).status_code == 403
        admin = {"headers": ingestor.headers("user", frozenset({"*", "admin"}))}
        assert (await http.post("/feeds/coinbase/pause", **admin)).json()["paused"] is True
        assert (await http.post("/feeds/coinbase/resume", **admin)).json()["paused"] is False
        assert (await http.post("/feeds/binance/pause", **own)).json() == {"venue": "binance", "paused": True}
        await eventually(lambda: collector.status["binance"].paused)
        await asyncio.sleep(1)
        await http.post("/feeds/binance/resume", **own)
        await eventually(lambda: collector.status["binance"].state == "live")
        before = len(collector.trades["binance", "BTC-USDT"])
        await eventually(lambda: len(collector.trades["binance", "BTC-USDT"]) > before + 5)
    collector.assert_each_once_in_order()


@pytest.mark.parametrize(("status", "retry_after"), [(429, 6), (418, 6)])
async def test_a_told_wait_is_obeyed_and_the_feed_lives_on(
    sim: Simulation, collector: Any, ingestor: Any, eventually: Any, status: int, retry_after: int
) -> None:
    await sim.control.fault("rest_status", venue="binance", status=status, retry_after=retry_after, count=1)
    ingestor.environment |= sim.environment()
    await ingestor.start(SYMBOLS="BTC-USDT,ETH-USDT", CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS="10")
    await eventually(lambda: f"HTTP {status}" in ingestor.log, 10)
    # by the naming rule the named markets flow meanwhile
    await eventually(lambda: collector.trades["binance", "BTC-USDT"], 10)
    await eventually(
        lambda: _says_so(collector.status.get("binance")), 6, "naming rule and block in the status"
    )
    await eventually(lambda: "markets chosen" in ingestor.log.partition("no product list")[2], 60)
    await eventually(lambda: collector.candles["binance", "BTC-USDT", "1d"], 20)


def _says_so(status: Any) -> bool:
    return (
        status is not None
        and "naming rule" in status.detail
        and any(b.blocked_until_us for b in status.budgets)
    )


async def test_html_and_cut_answers_of_rest_are_tried_again(
    sim: Simulation, collector: Any, ingestor: Any, eventually: Any
) -> None:
    for content in ("html", "empty", "truncated", "array"):
        await sim.control.fault("rest_body", venue="binance", content=content, path="klines", count=1)
    await sim.control.fault("rest_cut", venue="binance", path="klines", count=1)
    ingestor.environment |= sim.environment()
    await ingestor.start(SYMBOLS="BTC-USDT", CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS="10")
    await eventually(lambda: len(collector.candles["binance", "BTC-USDT", "1d"]) == 10, 60)
    assert ingestor.log.count("history waits") >= 3


async def test_coins_and_reference_prices_come_and_wanted_ones_join(
    sim: Simulation, collector: Any, ingestor: Any, eventually: Any
) -> None:
    ingestor.environment |= sim.environment()
    await ingestor.start(
        CRYPTOPULSE_INGESTOR_VENUES="coingecko",
        CRYPTOPULSE_INGESTOR_COINGECKO_GUARD_SECONDS="0.3",
        CRYPTOPULSE_INGESTOR_COINGECKO_POLL_SECONDS="1",
        CRYPTOPULSE_INGESTOR_COINGECKO_PER_MONTH="10000000",
        CRYPTOPULSE_INGESTOR_COINGECKO_PER_MINUTE="600",
    )
    await eventually(lambda: "bitcoin" in collector.references and "bitcoin" in collector.coins)
    coin = collector.coins["bitcoin"]
    assert (coin.symbol, coin.market_cap_rank) == ("btc", 1)
    assert collector.references["bitcoin"].symbol == "BTC-USD"
    assert collector.history == []
    async with httpx.AsyncClient(base_url=ingestor.url, headers=ingestor.headers()) as http:
        answer = await http.put("/wanted", json={"coin_ids": ["bitcoin", "no-such-coin"], "ttl_seconds": 60})
        assert answer.status_code == 204
        bad = await http.put("/wanted", json={"coin_ids": ["../etc"], "ttl_seconds": 60})
        assert bad.status_code == 422
    await eventually(lambda: len(collector.history) == 2, 15, "the history of what is wanted")
    for interval, hours, most in (("4h", 4, 180), ("30m", 0.5, 48)):
        candles = collector.candles["coingecko", "BTC-USD", interval]
        assert most - 1 <= len(candles) <= most
        opens = sorted(candles)
        assert {b - a for a, b in pairwise(opens)} == {hours * 3_600_000}
        assert opens[-1] + hours * 3_600_000 <= time.time() * 1_000
        assert all(c.source == "coingecko" and c.simulated and not c.volume for c in candles.values())
    await sim.control.fault("rest_status", venue="coingecko", status=429, retry_after=2, count=1)
    await eventually(
        lambda: "coingecko" in collector.status and collector.status["coingecko"].state == "backoff", 15
    )
    await eventually(
        lambda: "coingecko" in collector.status and collector.status["coingecko"].state == "live", 30
    )
    assert all(reference.price > 0 for reference in collector.references.values())
    assert len(collector.history) == 2
    progress = collector.status["coingecko"].history
    assert (progress.series_total, progress.series_done) == (2, 2)


async def test_the_proxy_prefix_gets_the_whole_address_encoded(
    sim: Simulation, collector: Any, ingestor: Any, eventually: Any
) -> None:
    seen: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = httpx.URL("http://x" + head.split(" ")[1]).params["url"]
        seen.append(target)
        async with httpx.AsyncClient() as http:
            body = (await http.get(target)).content
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ingestor.environment |= sim.environment() | {
        "COINGECKO_PROXY_PREFIX": f"http://127.0.0.1:{port}/raw?url="
    }
    await ingestor.start(CRYPTOPULSE_INGESTOR_VENUES="coingecko")
    await eventually(lambda: "bitcoin" in collector.references)
    server.close()
    assert seen[0].startswith(f"{sim.urls.coingecko_api}/coins/markets?vs_currency=usd")


async def test_the_bus_away_costs_no_memory_and_heals_without_a_restart(
    sim: Simulation, collector: Any, ingestor: Any, eventually: Any, rabbit_vhost: str
) -> None:
    parts = urlsplit(rabbit_vhost)
    assert parts.hostname is not None
    assert parts.port is not None
    async with TcpProxy(parts.hostname, parts.port) as proxy:
        place = f"{parts.username}:{parts.password}@127.0.0.1:{proxy.port}"
        ingestor.environment |= sim.environment()
        ingestor.environment["RABBITMQ_URL"] = urlunsplit((parts.scheme, place, parts.path, "", ""))
        await ingestor.start(SYMBOLS="BTC-USDT,ETH-USDT,BTC-USD", CRYPTOPULSE_INGESTOR_BUFFER_TRADES="600")
        await eventually(lambda: collector.trades["binance", "BTC-USDT"])
        await sim.control.rate(8_000)
        proxy.toxics.refuse = True
        proxy.reset()
        await asyncio.sleep(10)
        proxy.toxics.refuse = False
        await eventually(lambda: collector.conflated, 20)
        await sim.control.rate(200)
        before = len(collector.trades["binance", "BTC-USDT"])
        await eventually(lambda: len(collector.trades["binance", "BTC-USDT"]) > before + 20, 20)
        await asyncio.sleep(1)
    for (venue, symbol), trades in collector.trades.items():
        covered = {t.trade_id for t in trades}
        bars = [b for b in collector.conflated if b.symbol == symbol]
        for bar in bars:
            assert bar.trades == bar.last_id - bar.first_id + 1
            covered |= set(range(bar.first_id, bar.last_id + 1))
        # at most the confirms that were under way when the connection died are lost: live data is never sent twice
        missing = max(covered) - min(covered) + 1 - len(covered)
        assert missing <= 64 * 512, (venue, symbol, missing)
    assert sum(b.trades for b in collector.conflated) > 1_000


async def test_budgets_are_shared_by_replicas_and_outlive_redis(redis_db: str) -> None:
    redis, clock = connect(redis_db), SystemClock()
    rules = [PoolRule("minute", 10, 600.0, unit="call"), PoolRule("weight", 100, 600.0)]
    first, second = (QuotaStore(redis, clock, address="a") for _ in range(2))
    for store in (first, second):
        store.rule("v", rules)
    for n in range(10):
        await (first, second)[n % 2].spend("v", 1, Priority.REPAIR, wait_seconds=0)
    for store in (first, second):
        with pytest.raises(UpstreamUnavailable) as refused:
            await store.spend("v", 1, Priority.REPAIR, wait_seconds=0)
        assert refused.value.retry_after_seconds == pytest.approx(60, abs=5)
    assert second.status("v")[0].left == 0
    other = QuotaStore(redis, clock, address="b")
    other.rule("v", rules)
    await other.spend("v", 1, Priority.REPAIR, wait_seconds=0)
    await other.block("v", 5, "HTTP 429")
    stranger = QuotaStore(redis, clock, address="b")
    stranger.rule("v", rules)
    with pytest.raises(UpstreamUnavailable):
        await stranger.spend("v", 1, Priority.REPAIR, wait_seconds=0.05)
    await redis.aclose()
    gone = connect("redis://127.0.0.1:1/0")
    alone = QuotaStore(gone, clock, address="a")
    alone.rule("v", rules)
    await alone.spend("v", 1, Priority.REPAIR, wait_seconds=0)
    await gone.aclose()


async def test_a_lease_has_one_owner_and_rising_epochs(redis_db: str) -> None:
    redis, clock = connect(redis_db), SystemClock()
    one, two = RedisLease(redis, clock, "one"), RedisLease(redis, clock, "two")
    epoch = await one.take("binance", "1/1")
    assert epoch is not None
    assert abs(epoch - clock.now_ms()) < 5_000
    assert await two.take("binance", "1/1") is None
    assert await one.take("binance", "1/1") == epoch
    assert await two.take("binance", "2/2") is not None
    await one.give_back("binance", "1/1")
    later = await two.take("binance", "1/1")
    assert later is not None
    assert later > epoch
    assert await one.take("binance", "1/1") is None
    await redis.aclose()


async def test_a_restart_fetches_only_the_history_that_is_new(
    sim: Simulation, collector: Any, ingestor: Any, eventually: Any
) -> None:
    ingestor.environment |= sim.environment()
    settings = {"SYMBOLS": "BTC-USDT", "CRYPTOPULSE_INGESTOR_VENUES": "binance"}
    settings |= {
        "CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS": "2",
        "CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS": "30",
    }
    await ingestor.start(**settings)
    await eventually(lambda: _history_done(collector, "binance"), 60)
    first = len(collector.history)
    assert first >= 4
    assert await ingestor.stop() == 0
    collector.status.clear()
    await ingestor.start(**settings)
    await eventually(lambda: _history_done(collector, "binance"), 60)
    await asyncio.sleep(0.5)
    again = collector.history[first:]
    assert {page.interval for page in again} <= {"1m", "1h"}
    # where a minute or an hour has ended meanwhile: its newest page, once for each of the markets
    series = [(page.symbol, page.interval) for page in again]
    assert len(series) == len(set(series))
    assert first > len(again)


async def test_marks_of_history_are_kept_apart_for_the_simulator(redis_db: str) -> None:
    redis = connect(redis_db)
    live, simulated = RedisHistoryMarks(redis, simulated=False), RedisHistoryMarks(redis, simulated=True)
    await live.save("binance", "BTC-USDT", "1m", Covered(((1, 5), (7, 9))))
    assert await live.load("binance") == {("BTC-USDT", "1m"): Covered(((1, 5), (7, 9)))}
    assert await simulated.load("binance") == {}
    await redis.aclose()


async def test_ids_and_wanted_coins_are_remembered(redis_db: str) -> None:
    redis = connect(redis_db)
    ids = RedisLastIds(redis)
    await ids.save("binance", {"BTC-USDT": (7, 1_700_000_000_000_000)})
    await ids.save("binance", {"ETH-USDT": (8, 1_700_000_000_000_001)})
    assert await ids.load("binance") == {
        "BTC-USDT": (7, 1_700_000_000_000_000),
        "ETH-USDT": (8, 1_700_000_000_000_001),
    }
    wanted = RedisWanted(redis)
    await wanted.add(["a", "b"], 1_000)
    await wanted.add(["a"], 2_000)
    await wanted.add(["a"], 500)
    assert await wanted.current(1_500) == ["a"]
    assert await wanted.current(2_500) == []
    await redis.aclose()


async def test_wrong_settings_are_told_line_by_line_and_end_with_78(ingestor: Any) -> None:
    await ingestor.start(CRYPTOPULSE_INGESTOR_VENUES="binance,mtgox")
    assert await asyncio.wait_for(ingestor._child.wait(), 20) == 78
    assert "mtgox" in ingestor.log
    await ingestor.start(CRYPTOPULSE_INGESTOR_PART="3/2", SYMBOLS="top:0", CRYPTOPULSE_INGESTOR_NONSENSE="1")
    assert await asyncio.wait_for(ingestor._child.wait(), 20) == 78
    for name in ("CRYPTOPULSE_INGESTOR_PART", "SYMBOLS", "CRYPTOPULSE_INGESTOR_NONSENSE"):
        assert name in ingestor.log
