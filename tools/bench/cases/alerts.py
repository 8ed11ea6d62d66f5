"""Alert rules on one symbol: the engine's sorted thresholds beside a scan of all rules, on the same ticks, hits equal.

The workload is a random walk of 2 basis points a tick through thresholds uniform within 20 % of the start, half of them for
rises; each fires once. The walk's seed is one that fires about 6,200 of 100,000 rules in 20,000 ticks. A firing costs many
times a quiet tick (the rule is taken out, its event is made), so the figure stands for this share of hits: `hits` is told.
"""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Final

import numpy as np

from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.alerts.domain.evaluation import ShardEngine
from cryptopulse.alerts.domain.rules import Rule
from cryptopulse.common.contracts.http.alert_conditions import PriceThreshold
from cryptopulse.common.contracts.ticks import TickBatch, Trade
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved, sized

TITLE = "Alerts: 100,000 rules on one symbol, evaluated per tick"
RULES: Final = sized(100_000, 2_000)
FEWER: Final = (100, 1_000, 10_000)
TICKS: Final = sized(20_000, 2_000)
SCANNED: Final = sized(100, 20)
"""Ticks that the timed scan sees: at milliseconds each, all of them would take minutes."""
WALK_SEED: Final = 22
AT_US: Final = 1_700_000_000_000_000
CENT: Final = Decimal("0.01")

Level = tuple[Decimal, bool]
"""A threshold, and whether it is for a rise."""


def thresholds() -> list[Level]:
    """Prices within 20 % of 60,000, half of them for rises."""
    rng = random.Random(1)
    return [
        (Decimal(60_000 * rng.uniform(0.8, 1.2)).quantize(CENT), number % 2 == 0) for number in range(RULES)
    ]


def walk(count: int) -> list[Decimal]:
    """A random walk of 2 basis points a tick."""
    rng, price, found = random.Random(WALK_SEED), 60_000.0, []
    for _ in range(count):
        price *= 1 + rng.gauss(0, 2e-4)
        found.append(Decimal(price).quantize(CENT))
    return found


def definitions(levels: list[Level]) -> list[RuleDefinition]:
    """A rule for each level."""
    return [
        RuleDefinition(
            symbol="BTC-USDT",
            source="binance",
            condition=PriceThreshold(type="price_above" if up else "price_below", value=level),
        )
        for level, up in levels
    ]


def an_engine(made: list[RuleDefinition]) -> ShardEngine:
    """All rules in an engine, as a shard that was taken over."""
    engine = ShardEngine()
    engine.load((Rule(f"al_{number}", "user", 1, item) for number, item in enumerate(made)), AT_US)
    return engine


def batches(prices: list[Decimal]) -> list[TickBatch]:
    """Batches of 256 trades."""
    trades = [
        Trade("BTC-USDT", number + 1, price, CENT, "buy", AT_US + number, AT_US + number)
        for number, price in enumerate(prices)
    ]
    return [
        TickBatch(
            venue="binance", shard=0, epoch=1, seq=start, sent_us=AT_US, trades=trades[start : start + 256]
        )
        for start in range(0, len(trades), 256)
    ]


async def run() -> list[Row]:
    """Ours and the scan, interleaved; raises when their hits over all ticks differ. Then ours with fewer rules."""
    levels, prices = thresholds(), walk(TICKS)
    made, played = definitions(levels), batches(prices)
    _compare(levels, prices, made, played)
    rows = await interleaved(
        "alerts",
        "ticks/s",
        [
            Contender("threshold index", lambda: _ours(made, played)),
            Contender("scan of all rules", lambda: _scanned(levels, prices[:SCANNED])),
        ],
        rounds=3,
        warmup=0,
        hold="< 5 us per tick",
    )
    for count in FEWER:
        if count < RULES:
            fewer = Contender(f"threshold index, {count:,} rules", lambda n=count: _ours(made[:n], played))  # type: ignore[misc]
            rows += await interleaved("alerts", "ticks/s", [fewer], rounds=3, warmup=0)
    return rows


def _compare(
    levels: list[Level], prices: list[Decimal], made: list[RuleDefinition], played: list[TickBatch]
) -> None:
    """Every rule's hit, and the tick of it, as a scan of all rules over all ticks finds them."""
    engine = an_engine(made)
    got = {
        int(firing.rule_id.removeprefix("al_")): firing.cause.at_us - AT_US
        for batch in played
        for firing in engine.on_ticks(batch, AT_US)
    }
    expected = scan_all(levels, prices)
    if got != expected:
        raise RuntimeError(f"hits differ: {len(got)} of ours, {len(expected)} of the scan")


def scan_all(levels: list[Level], prices: list[Decimal]) -> dict[int, int]:
    """Rule -> tick at which it fires, by comparing every rule with every tick; in cents, whole arrays at a time."""
    cents = np.array([int(level * 100) for level, _ in levels], dtype=np.int64)
    rises = np.array([up for _, up in levels])
    found: dict[int, int] = {}
    before = int(prices[0] * 100)
    for tick, price in enumerate(prices[1:], 1):
        now = int(price * 100)
        if now == before:
            continue
        crossed = (
            rises & (before < cents) & (cents <= now)
            if now > before
            else ~rises & (now <= cents) & (cents < before)
        )
        for number in np.flatnonzero(crossed):
            found.setdefault(int(number), tick)
        before = now
    return found


def scan(levels: list[Level], prices: list[Decimal]) -> set[int]:
    """Every rule looked at for every tick; each fires once."""
    fired: set[int] = set()
    before = prices[0]
    for price in prices[1:]:
        for number, (level, up) in enumerate(levels):
            if (before < level <= price) if up else (price <= level < before):
                fired.add(number)
        before = price
    return fired


def _ours(made: list[RuleDefinition], played: list[TickBatch]) -> Sample:
    engine = an_engine(made)
    hits = 0
    watch = Stopwatch()
    for batch in played:
        hits += len(engine.on_ticks(batch, AT_US))
    return watch.sample(TICKS, hits=hits)


def _scanned(levels: list[Level], prices: list[Decimal]) -> Sample:
    watch = Stopwatch()
    hits = len(scan(levels, prices))
    return watch.sample(len(prices), hits=hits)
