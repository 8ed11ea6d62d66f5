"""Faults on the route of a tick: whatever dies, the candles end as the venue booked them."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from tests.faults.judge import Judge
from tests.faults.report import Report, Stopwatch
from tests.faults.stand import FIVE, Stand, watching

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(700)]


async def until_fresh(stand: Stand) -> float:
    """Seconds until the gateway has a price that is newer than now."""
    watch = Stopwatch()
    before = await stand.newest()

    async def newer() -> bool:
        now = await stand.newest()
        return now is not None and now != before

    await stand.until(newer, what="a fresh price", seconds=90)
    return watch.seconds()


async def fill_from_metrics(stand: Stand, report: Report) -> None:
    """What was confirmed and what was dropped as a double since the processes started."""
    report.confirmed = await stand.count(
        "ingestor", "cryptopulse_bus_messages_published_total", 'outcome="confirmed"', 'topic="ticks"'
    )
    report.duplicates = await stand.count("ingestor", "cryptopulse_trades_duplicate_total")


def assert_survivors(stand: Stand, pids: dict[str, int], *, but: tuple[str, ...] = ()) -> None:
    """No process ended by itself."""
    for service in FIVE:
        if service not in but:
            assert stand.is_running(service), f"{service} ended\n{stand.log(service)}"
            assert stand.processes[service].pid == pids[service]


def pids(stand: Stand) -> dict[str, int]:
    """The processes as they are now."""
    return {service: stand.processes[service].pid for service in FIVE}


@pytest.mark.quick
@pytest.mark.broker
async def test_01_broker_killed_and_back(stand: Stand) -> None:
    report, judge, before = Report(1, "broker SIGKILL, back in 5 s"), Judge(stand), pids(stand)
    async with watching(stand) as pulse:
        stand.servers.kill("rabbitmq")
        await asyncio.sleep(5)
        await stand.servers.revive("rabbitmq")
        report.recovery_s = await until_fresh(stand)
    report.stall_s = pulse.stall
    await fill_from_metrics(stand, report)
    await judge.settle(report)
    assert_survivors(stand, before)
    report.close()


@pytest.mark.consumer
async def test_05_consumer_killed_under_load(stand: Stand, dice: random.Random) -> None:
    report, judge, before = Report(5, "indicators SIGKILL under load, 3 times"), Judge(stand), pids(stand)
    async with watching(stand) as pulse:
        for _ in range(3):
            await asyncio.sleep(dice.uniform(0.5, 3))
            stand.kill("indicators")
            stand.start("indicators")
            await stand.until_ready("indicators")
        report.recovery_s = await until_fresh(stand)
    report.stall_s = pulse.stall
    await fill_from_metrics(stand, report)
    await judge.settle(report)
    assert_survivors(stand, before, but=("indicators",))
    report.close()


@pytest.mark.broker
async def test_03_partition_without_reset(stand: Stand) -> None:
    report, judge, before = (
        Report(3, "indicators cut off from the broker, silently, 25 s"),
        Judge(stand),
        pids(stand),
    )
    async with watching(stand) as pulse:
        stand.proxy["rabbitmq"].toxics.blackhole = True
        await asyncio.sleep(25)
        stand.proxy["rabbitmq"].toxics.blackhole = False
        report.recovery_s = await until_fresh(stand)
    report.stall_s = pulse.stall
    await fill_from_metrics(stand, report)
    await judge.settle(report)
    assert_survivors(stand, before)
    report.close()


@pytest.mark.redis
@pytest.mark.parametrize("empty", [False, True], ids=["same", "empty"])
async def test_10_redis_gone(stand: Stand, empty: bool) -> None:
    name = "Redis gone 15 s, back empty" if empty else "Redis gone 15 s"
    report, judge, before = Report(11 if empty else 10, name), Judge(stand), pids(stand)
    async with watching(stand) as pulse:
        stand.servers.kill("redis")
        await asyncio.sleep(15)
        if empty:
            stand.servers.empty_redis()
        await stand.servers.revive("redis")
        report.recovery_s = await until_fresh(stand)
        for service in FIVE:
            await stand.until_ready(service)
    report.stall_s = pulse.stall
    await fill_from_metrics(stand, report)
    await judge.settle(report)
    assert_survivors(stand, before)
    report.close()


@pytest.mark.postgres
async def test_12_postgres_down_and_reset(stand: Stand) -> None:
    report, judge, before = (
        Report(12, "Postgres SIGKILL 15 s, then all connections reset"),
        Judge(stand),
        pids(stand),
    )
    assert stand.proxies is not None
    async with watching(stand) as pulse:
        stand.servers.kill("postgres")
        await asyncio.sleep(15)
        await stand.servers.revive("postgres")
        for service in FIVE:
            await stand.until_ready(service)
        for _ in range(5):
            stand.proxies.reset("postgres")
            await asyncio.sleep(0.5)
        report.recovery_s = await until_fresh(stand)
    report.stall_s = pulse.stall
    await fill_from_metrics(stand, report)
    await judge.settle(report)
    assert_survivors(stand, before)
    report.close()


@pytest.mark.owners
async def test_21_paused_owner_is_fenced(stand: Stand) -> None:
    report, judge, before = (
        Report(21, "indicators owner paused 20 s beside a second one"),
        Judge(stand),
        pids(stand),
    )
    stand.start("indicators2")
    await stand.until_ready("indicators2")

    async def owns(name: str, wanted: int) -> bool:
        return await stand.count(name, "cryptopulse_shards_owned") == wanted

    await stand.until(lambda: owns("indicators2", 2), what="the second has two shards", seconds=60)
    async with watching(stand) as pulse:
        stand.processes["indicators"].send_signal(signal.SIGSTOP)
        await stand.until(lambda: owns("indicators2", 4), what="the second has all shards", seconds=60)
        await asyncio.sleep(10)
        stand.processes["indicators"].send_signal(signal.SIGCONT)
        await stand.until(lambda: owns("indicators", 2), what="the first has two again", seconds=60)
        report.recovery_s = await until_fresh(stand)
    report.stall_s = pulse.stall
    lost = stand.log("indicators", 5_000).count("shard lost to another owner")
    report.notes["refused"] = lost
    await fill_from_metrics(stand, report)
    await judge.settle(report)
    assert lost > 0
    assert_survivors(stand, before)
    report.close()


@pytest.mark.owners
@pytest.mark.ingest
async def test_21_second_ingestor_stands_by(stand: Stand) -> None:
    report, judge = Report(21, "ingestor paused 20 s beside a second one"), Judge(stand)
    stand.start("ingestor2")
    await stand.until_ready("ingestor2")
    async with watching(stand) as pulse:
        stand.processes["ingestor"].send_signal(signal.SIGSTOP)
        await asyncio.sleep(20)
        stand.processes["ingestor"].send_signal(signal.SIGCONT)
        await until_fresh(stand)
        stand.kill("ingestor")
        report.recovery_s = await until_fresh(stand)
        stand.start("ingestor")
    report.stall_s = pulse.stall
    await judge.settle(report)
    report.close()


@pytest.mark.shutdown
async def test_18_sigterm_under_load(stand: Stand, dice: random.Random) -> None:
    report, judge = Report(18, "SIGTERM to each under load, then a second one"), Judge(stand)
    codes = {}
    async with watching(stand) as pulse:
        for service in FIVE:
            process = stand.processes[service]
            process.terminate()
            codes[service] = await asyncio.to_thread(process.wait, 40)
            stand.start(service)
            await stand.until_ready(service)
        await stand.price("BTC")
        process = stand.processes["indicators"]
        process.terminate()
        await asyncio.sleep(dice.uniform(0.0, 0.3))
        process.terminate()
        await asyncio.to_thread(process.wait, 40)
        stand.start("indicators")
        await stand.until_ready("indicators")
        report.recovery_s = await until_fresh(stand)
    report.stall_s = pulse.stall
    report.notes["codes"] = sorted(set(codes.values()))
    await judge.settle(report)
    assert set(codes.values()) == {0}
    report.close()
