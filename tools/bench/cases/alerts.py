"""Alert rules on one symbol: the engine's sorted thresholds beside a scan of all rules, on the same ticks, hits equal."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Final

from cryptopulse.alerts.domain.definition import RuleDefinition
from cryptopulse.alerts.domain.evaluation import ShardEngine
from cryptopulse.alerts.domain.rules import Rule
from cryptopulse.common.contracts.http.alert_conditions import PriceThreshold
from cryptopulse.common.contracts.ticks import TickBatch, Trade
from tools.bench.measure import Contender, Row, Sample, Stopwatch, interleaved

TITLE = "Alerts: 100,000 rules on one symbol, evaluated per tick"
RULES: Final = 100_000
TICKS: Final = 20_000
SCANNED: Final = 100
"""Ticks that the scan sees: at milliseconds each, all of them would take minutes."""
AT_US: Final = 1_700_000_000_000_000
CENT: Final = Decimal("0.01")


def thresholds() -> list[tuple[Decimal, bool]]:
    """Prices within 20 % of 60,000, half of them for rises."""
    rng = random.Random(1)
    return [
        (Decimal(60_000 * rng.uniform(0.8, 1.2)).quantize(CENT), number % 2 == 0) for number in range(RULES)
    ]


def walk(count: int) -> list[Decimal]:
    """A random walk of 2 basis points a tick."""
    rng, price, found = random.Random(22), 60_000.0, []
    for _ in range(count):
        price *= 1 + rng.gauss(0, 2e-4)
        found.append(Decimal(price).quantize(CENT))
    return found


def an_engine(levels: list[tuple[Decimal, bool]]) -> ShardEngine:
    """All rules in an engine; those of one threshold and direction share nothing."""
    engine = ShardEngine()
    for number, (level, up) in enumerate(levels):
        condition = PriceThreshold(type="price_above" if up else "price_below", value=level)
        definition = RuleDefinition(symbol="BTC-USDT", source="binance", condition=condition)
        engine.add(Rule(f"al_{number}", "user", 1, definition), AT_US)
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
    """Ours and the scan, interleaved; raises when their hits differ."""
    levels, prices = thresholds(), walk(TICKS)
    played = batches(prices)
    expected = scan(levels, prices[:SCANNED])
    trial = an_engine(levels)
    got = {firing.rule_id for batch in batches(prices[:SCANNED]) for firing in trial.on_ticks(batch, AT_US)}
    if got != expected:
        raise RuntimeError(f"hits differ: {len(got)} of ours, {len(expected)} of the scan")
    return await interleaved(
        "alerts",
        "ticks/s",
        [
            Contender("threshold index", lambda: _ours(levels, played)),
            Contender("scan of all rules", lambda: _scanned(levels, prices[:SCANNED])),
        ],
        rounds=3,
        warmup=0,
        hold="< 5 us per tick",
    )


def scan(levels: list[tuple[Decimal, bool]], prices: list[Decimal]) -> set[str]:
    """Every rule looked at for every tick; each fires once."""
    fired: set[str] = set()
    before = prices[0]
    for price in prices[1:]:
        for number, (level, up) in enumerate(levels):
            if (before < level <= price) if up else (price <= level < before):
                fired.add(f"al_{number}")
        before = price
    return fired


def _ours(levels: list[tuple[Decimal, bool]], played: list[TickBatch]) -> Sample:
    engine = an_engine(levels)
    hits = 0
    watch = Stopwatch()
    for batch in played:
        hits += len(engine.on_ticks(batch, AT_US))
    return watch.sample(TICKS, hits=hits)


def _scanned(levels: list[tuple[Decimal, bool]], prices: list[Decimal]) -> Sample:
    watch = Stopwatch()
    hits = len(scan(levels, prices))
    return watch.sample(len(prices), hits=hits)
