"""Faults on the route of a tick: whatever dies, the candles end as the venue booked them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from decimal import Decimal
from typing import Final

import aio_pika
import asyncpg
import pytest
import redis.asyncio as redis_asyncio

from tests.faults.judge import MINUTE_MS, minute_of
from tests.faults.report import Report
from tests.faults.route_case import route_case, until_fresh
from tests.faults.stand import FIVE, Stand

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

VENUE_SECONDS = float(os.environ.get("CRYPTOPULSE_FAULT_VENUE_SECONDS", "600"))
VENUE_RATE = float(os.environ.get("CRYPTOPULSE_FAULT_VENUE_RATE", "2000"))
AWAY_SECONDS = 130
RISING = (("binance", "BTC-USDT"), ("coinbase", "BTC-USDT"), ("coinbase", "BTC-USD"))
REST_RATE = 80
MEMORY_SLACK_MIB = 64
FOLLOWED = (
    *(("binance", symbol) for symbol in ("BTC-USDT", "ETH-USDT", "SOL-USDT")),
    *(("coinbase", f"{base}-{quote}") for base in ("BTC", "ETH", "SOL") for quote in ("USD", "USDT")),
)
"""The markets that the stand's `SYMBOLS` are at these venues."""


@pytest.mark.broker
async def test_01_broker_killed_and_back(stand: Stand) -> None:
    async def during() -> None:
        stand.servers.kill("rabbitmq")
        await asyncio.sleep(10)
        await stand.servers.revive("rabbitmq")

    await route_case(stand, Report(1, "broker SIGKILL, back in 10 s"), during)


@pytest.mark.broker
async def test_02_broker_absent_at_start(stand: Stand) -> None:
    async def during() -> None:
        for service in FIVE:
            stand.processes[service].terminate()
        for service in FIVE:
            await asyncio.to_thread(stand.processes[service].wait, 40)
        stand.servers.kill("rabbitmq")
        for service in FIVE:
            stand.start(service)
        for service in FIVE:
            await stand.until_alive(service)
        await asyncio.sleep(3)
        await stand.servers.revive("rabbitmq")
        for service in FIVE:
            await stand.until_ready(service)

    await route_case(stand, Report(2, "broker absent at the start of all five"), during, but=FIVE)


@pytest.mark.broker
async def test_03_partition_without_reset(stand: Stand) -> None:
    async def during() -> None:
        stand.proxy["rabbitmq"].toxics.blackhole = True
        await asyncio.sleep(25)
        assert stand.proxies is not None
        stand.proxies.heal()

    await route_case(stand, Report(3, "indicators cut off from the broker, silently, 25 s"), during)


ALARMS: Final = {
    "memory": (
        ("set_vm_memory_high_watermark", "0.00001"),
        ("set_vm_memory_high_watermark", "absolute", "1GiB"),
    ),
    "disk": (("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "1MB")),
}


@pytest.mark.broker
@pytest.mark.parametrize("alarm", ALARMS)
async def test_04_broker_alarm(stand: Stand, alarm: str) -> None:
    """No publisher is heard while it lasts."""
    begin, end = ALARMS[alarm]

    async def during() -> None:
        await asyncio.to_thread(stand.servers.rabbitmqctl, *begin)
        try:
            await asyncio.sleep(12)
        finally:
            await asyncio.to_thread(stand.servers.rabbitmqctl, *end)

    await route_case(stand, Report(4 if alarm == "memory" else 20, f"broker {alarm} alarm 12 s"), during)


@pytest.mark.consumer
async def test_05_consumer_killed_under_load(stand: Stand, dice: random.Random) -> None:
    async def during() -> None:
        for _ in range(3):
            await asyncio.sleep(dice.uniform(0.5, 3))
            stand.kill("indicators")
            stand.start("indicators")
            await stand.until_ready("indicators")

    await route_case(stand, Report(5, "indicators SIGKILL 3 times"), during, but=("indicators",))


@pytest.mark.broker
async def test_08_poison_and_newer_messages(stand: Stand) -> None:
    """Also 22: what a newer release may say is refused or read, never a reason to stop."""
    report = Report(8, "poison and unknown versions on every queue")
    poison = (b"\xc1\xff garbage", b"", b"\x93\x01\x02", b"\x81\xa3foo\x01")

    async def during() -> None:
        connection = await aio_pika.connect(stand.backends.rabbitmq)
        async with connection:
            channel = await connection.channel()
            for exchange, key, kind in (
                ("market.ticks", "batch.0.binance", "ticks"),
                ("market.history", "backfill.0.binance.BTC-USDT", "history"),
                ("market.candles", "batch.1m.0", "candles"),
                ("market.catalogue", "coin.x", "coins"),
            ):
                target = await channel.get_exchange(exchange)
                for body in poison:
                    for version in ("v1", "v9"):
                        await target.publish(aio_pika.Message(body, type=f"{kind}.{version}"), key)
        await asyncio.sleep(3)

    await route_case(stand, report, during)
    letters = await dead_letters(stand)
    assert letters["indicators.history.v1.0of4.dlq"] == 8, letters
    assert letters["indicators.coins.v1.dlq"] == 8, letters
    for queue in letters:
        await asyncio.to_thread(stand.servers.rabbitmqctl, "purge_queue", queue)


async def dead_letters(stand: Stand) -> dict[str, int]:
    """Dead-letter queues that are not empty."""
    listed = await asyncio.to_thread(
        stand.servers.rabbitmqctl, "list_queues", "--quiet", "--no-table-headers", "name", "messages"
    )
    rows = [line.split() for line in listed.splitlines() if ".dlq" in line]
    return {name: int(count) for name, count in rows if int(count)}


@pytest.mark.consumer
async def test_09_backlog_of_a_slow_consumer(stand: Stand) -> None:
    async def during() -> None:
        stand.kill("indicators")
        await stand.control("POST", "/rate", json={"rate": 1_500})
        await asyncio.sleep(20)
        await stand.control("POST", "/rate", json={"rate": REST_RATE})
        stand.start("indicators")
        await stand.until_ready("indicators")

    await route_case(
        stand, Report(9, "20 s of 1,500 trades/s wait for indicators"), during, but=("indicators",)
    )


@pytest.mark.redis
@pytest.mark.parametrize("empty", [False, True], ids=["same", "empty"])
async def test_10_redis_gone(stand: Stand, empty: bool) -> None:
    async def during() -> None:
        stand.servers.kill("redis")
        await asyncio.sleep(30)
        if empty:
            stand.servers.empty_redis()
        await stand.servers.revive("redis")
        for service in FIVE:
            await stand.until_ready(service)

    report = Report(11, "Redis gone 30 s, back empty") if empty else Report(10, "Redis gone 30 s")
    await route_case(stand, report, during)


@pytest.mark.postgres
async def test_12_postgres_down_and_reset(stand: Stand) -> None:
    async def during() -> None:
        assert stand.proxies is not None
        stand.servers.kill("postgres")
        await asyncio.sleep(60)
        await stand.servers.revive("postgres")
        for service in FIVE:
            await stand.until_ready(service)
        for _ in range(5):
            stand.proxies.reset("postgres")
            await asyncio.sleep(0.5)

    await route_case(stand, Report(12, "Postgres SIGKILL, 60 s down, then 5 resets"), during)


@pytest.mark.postgres
async def test_12_postgres_read_only(stand: Stand) -> None:
    """As after a failover to a standby: every read is answered, every write refused."""

    async def turn(value: str) -> None:
        connection = await asyncpg.connect(
            stand.servers.postgres.urls()["DATABASE_URL"],
            server_settings={"default_transaction_read_only": "off"},
        )
        try:
            await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()

    async def during() -> None:
        await turn("on")
        try:
            await asyncio.sleep(20)
        finally:
            await turn("off")
        for service in FIVE:
            await stand.until_ready(service)

    await route_case(stand, Report(12, "Postgres read-only 20 s"), during)


@pytest.mark.postgres
async def test_13_postgres_slow(stand: Stand) -> None:
    async def during() -> None:
        stand.proxy["postgres"].toxics.latency_seconds = 0.4
        await asyncio.sleep(20)
        stand.proxy["postgres"].toxics.latency_seconds = 0.0

    await route_case(stand, Report(13, "Postgres slow: 0.8 s a round trip for 20 s"), during)


STEADY: tuple[dict[str, object], ...] = (
    {"kind": "drop", "channel": "trade", "probability": 0.01},
    {"kind": "duplicate", "channel": "trade", "probability": 0.05},
    {"kind": "reorder", "channel": "trade", "probability": 0.03, "window": 4},
)
SUDDEN: tuple[dict[str, object], ...] = (
    {"kind": "cut"},
    {"kind": "close", "code": 1012},
    {"kind": "half_open"},
    {"kind": "silent", "venue": "binance", "symbol": "BTC-USDT", "seconds": 6},
    {"kind": "silent", "venue": "coinbase", "symbol": "ETH-USD", "seconds": 6},
    {"kind": "rest_status", "status": 429, "retry_after": 2, "count": 2},
    {"kind": "rest_status", "venue": "binance", "status": 418, "retry_after": 3, "count": 1},
    {"kind": "rest_status", "status": 503, "count": 3},
    {"kind": "rest_body", "content": "html", "count": 1},
    {"kind": "rest_cut", "count": 2},
    {"kind": "corrupt", "content": "truncated", "insert": True, "count": 5},
    {"kind": "corrupt", "content": "garbage", "insert": True, "count": 3},
    {"kind": "corrupt", "content": "bad_number", "channel": "trade", "probability": 0.01, "seconds": 3},
    {"kind": "server_shutdown", "venue": "binance"},
)


@pytest.mark.ingest
@pytest.mark.timeout(VENUE_SECONDS + 900)
async def test_16_venues_hostile(stand: Stand, dice: random.Random) -> None:
    """Also 6 and 7: doubled and reordered trades, and the ingestor killed twice, in the first half.

    The rate is that of the followed markets, which are all judged. In the second half one ingestor lives through the
    same faults, so what its memory does there is what it does for ever.
    """
    report = Report(16, f"venues hostile {VENUE_SECONDS:.0f} s at {VENUE_RATE:.0f} trades/s, ingestor killed")
    counts: Counter[str] = Counter()
    memory: list[float] = []

    async def note_counts() -> None:
        for name in ("repaired", "lost", "duplicate"):
            counts[name] += await stand.count("ingestor", f"cryptopulse_trades_{name}_total")

    async def during() -> None:
        await stand.control("POST", "/rate", json={"rate": VENUE_RATE / await share_of(stand, FOLLOWED)})
        for venue in ("binance", "coinbase"):
            for fault in STEADY:
                await stand.control("POST", "/fault", json={**fault, "venue": venue})
        loop = asyncio.get_running_loop()
        begin = loop.time()
        kills = [begin + VENUE_SECONDS / 4, begin + VENUE_SECONDS / 2]
        while loop.time() < begin + VENUE_SECONDS:
            venue = dice.choice(("binance", "coinbase"))
            await stand.control("POST", "/fault", json={"venue": venue, **dice.choice(SUDDEN)})
            await asyncio.sleep(dice.uniform(2, 5))
            if kills and loop.time() > kills[0]:
                kills.pop(0)
                await note_counts()
                stand.kill("ingestor")
                stand.start("ingestor")
                await stand.until_ready("ingestor")
                memory.clear()
            memory.append(await stand.memory_mib("ingestor"))
        await stand.control("DELETE", "/fault")
        await stand.control("POST", "/rate", json={"rate": REST_RATE})
        await note_counts()

    async def fill() -> None:
        settled = memory[len(memory) // 10 :]
        checked = {
            outcome: await stand.count(
                "indicators", "cryptopulse_candles_checked_total", f'outcome="{outcome}"'
            )
            for outcome in ("equal", "different")
        }
        report.duplicates = counts["duplicate"]
        report.notes |= {
            "repaired": counts["repaired"],
            "declared_missing": counts["lost"],
            "candles_verified": checked["equal"],
            "candles_corrected": checked["different"],
            "ingestor_mib": f"{settled[0]:.0f}..{settled[-1]:.0f},most={max(settled):.0f}",
        }
        assert max(settled) < settled[0] + MEMORY_SLACK_MIB, memory

    await route_case(stand, report, during, but=("ingestor",), markets=FOLLOWED, fill=fill)


async def share_of(stand: Stand, markets: tuple[tuple[str, str], ...]) -> float:
    """The part of the simulator's trades that these markets have."""
    before, all_before = await booked(stand, markets)
    await asyncio.sleep(5)
    after, all_after = await booked(stand, markets)
    return (after - before) / (all_after - all_before)


async def booked(stand: Stand, markets: tuple[tuple[str, str], ...]) -> tuple[int, int]:
    """Trades made since the simulator's start: of these markets, of all."""
    rows = [await stand.control("GET", f"/ledger/{venue}/{symbol}") for venue, symbol in markets]
    stats = await stand.control("GET", "/stats")
    return sum(row["count"] for row in rows), stats["counters"]["trades"]


@pytest.mark.shutdown
async def test_18_sigterm_under_load(stand: Stand, dice: random.Random) -> None:
    report = Report(18, "SIGTERM to each under load, a second one to indicators")
    codes: dict[str, int] = {}

    async def during() -> None:
        for service in FIVE:
            stand.processes[service].terminate()
            codes[service] = await asyncio.to_thread(stand.processes[service].wait, 40)
            stand.start(service)
            await stand.until_ready(service)
        stand.processes["indicators"].terminate()
        await asyncio.sleep(dice.uniform(0.0, 0.3))
        stand.processes["indicators"].terminate()
        await asyncio.to_thread(stand.processes["indicators"].wait, 40)
        stand.start("indicators")
        await stand.until_ready("indicators")

    await route_case(stand, report, during, but=FIVE)
    assert codes == dict.fromkeys(FIVE, 0)


@pytest.mark.redis
async def test_20_redis_full(stand: Stand) -> None:
    """Redis refuses every write (`noeviction`). The broker's alarm is case 4; a full disk needs a mount that tests cannot make."""

    async def during() -> None:
        client = redis_asyncio.Redis.from_url(stand.servers.redis.urls()["REDIS_URL"])
        try:
            await client.config_set("maxmemory", "1mb")
            await asyncio.sleep(15)
            await client.config_set("maxmemory", "512mb")
        finally:
            await client.aclose()
        for service in FIVE:
            await stand.until_ready(service)

    await route_case(stand, Report(20, "Redis full 15 s"), during)


@pytest.mark.owners
async def test_21_paused_owner_is_fenced(stand: Stand) -> None:
    report = Report(21, "indicators owner paused beside a second one")

    async def owns(name: str, wanted: int) -> bool:
        return await stand.count(name, "cryptopulse_shards_owned") == wanted

    async def during() -> None:
        stand.processes["indicators"].send_signal(signal.SIGSTOP)
        await stand.until(lambda: owns("indicators2", 4), what="the second has all shards", seconds=60)
        await asyncio.sleep(10)
        stand.processes["indicators"].send_signal(signal.SIGCONT)
        # The first says two until it has noticed; the second gives two back once the first is its peer again.
        await stand.until(lambda: owns("indicators2", 2), what="the second has given two back", seconds=60)
        await stand.until(lambda: owns("indicators", 2), what="the first has two again", seconds=60)
        report.notes["refused"] = stand.log("indicators", 5_000).count("shard lost to another owner")

    stand.start("indicators2")
    await stand.until_ready("indicators2")
    await stand.until(lambda: owns("indicators2", 2), what="the second has two shards", seconds=60)
    await route_case(stand, report, during)
    assert report.notes["refused"] != 0


@pytest.mark.ingest
async def test_16_ingestor_away(stand: Stand) -> None:
    """Nobody hears the venues while prices rise by 2 % a minute: the minutes of then end with the prices of then."""
    report = Report(16, f"ingestor away {AWAY_SECONDS} s while prices rise")
    bars = """
        SELECT s.source, c.open_time, c.open, c.high, c.low, c.close
        FROM market.candles c JOIN market.series s ON s.id = c.series_id
        WHERE s.symbol = 'BTC-USDT' AND c.bar_interval = '1m' AND c.open_time BETWEEN $1 AND $2
    """
    loop = asyncio.get_running_loop()
    began_ms = minute_of(time.time() * 1000)

    async def during() -> None:
        for venue, symbol in RISING:
            (row,) = await stand.rows(
                "SELECT close FROM market.candles c JOIN market.series s ON s.id = c.series_id "
                "WHERE s.source = $1 AND s.symbol = $2 AND c.bar_interval = '1m' ORDER BY open_time DESC LIMIT 1",
                venue, symbol,
            )  # fmt: skip
            price = float(row["close"])
            path = [[0, price], [AWAY_SECONDS + 30, price * (1 + AWAY_SECONDS / 3_000)]]
            path.append([3_600, path[-1][1]])
            script = {"venue": venue, "symbol": symbol, "path": path, "hold": True}
            await stand.control("POST", "/script", json=script)
        gone = loop.time()
        stand.kill("ingestor")
        await asyncio.sleep(AWAY_SECONDS)
        stand.start("ingestor")
        await stand.until_ready("ingestor")
        report.notes["away_s"] = loop.time() - gone

    async def fill() -> None:
        rows = await stand.rows(bars, began_ms, minute_of(time.time() * 1000) - MINUTE_MS)
        minutes: dict[int, dict[str, asyncpg.Record]] = {}
        for row in rows:
            minutes.setdefault(row["open_time"], {})[row["source"]] = row
        report.notes["minutes"] = len(minutes)
        wrong = []
        for open_ms, by_source in minutes.items():
            whole = by_source.pop("consolidated")
            low = min(row["low"] for row in by_source.values()) * Decimal("0.998")
            high = max(row["high"] for row in by_source.values()) * Decimal("1.002")
            if not all(low <= whole[name] <= high for name in ("open", "high", "low", "close")):
                wrong.append(f"{open_ms}: {dict(whole)} outside [{low}, {high}]")
        assert len(minutes) > AWAY_SECONDS // 60
        assert not wrong, wrong

    try:
        await route_case(stand, report, during, but=("ingestor",), fill=fill)
    finally:
        for venue, symbol in RISING:
            await stand.control("DELETE", f"/script/{venue}/{symbol}")


@pytest.mark.owners
@pytest.mark.ingest
async def test_21_second_ingestor_stands_by(stand: Stand) -> None:
    async def during() -> None:
        stand.processes["ingestor"].send_signal(signal.SIGSTOP)
        await asyncio.sleep(20)
        stand.processes["ingestor"].send_signal(signal.SIGCONT)
        await until_fresh(stand)
        stand.kill("ingestor")
        await until_fresh(stand)
        stand.start("ingestor")

    stand.start("ingestor2")
    await stand.until_ready("ingestor2")
    await route_case(
        stand, Report(21, "ingestor paused 20 s, then killed, beside a second"), during, but=("ingestor",)
    )
