"""The weekend of March 2023 when USDC lost its peg, replayed: the price of BTC in USD must not notice.

Three venues: one quotes BTC-USD (the recording), one BTC-USDT near its peg, one BTC-USDC (the recording, up to 14 % above).
USDC-USD is what the two recordings imply.
"""

from __future__ import annotations

import csv
import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from cryptopulse.common.contracts.ticks import TickBatch, Trade
from cryptopulse.indicators.application.build_candles import ShardMarket
from cryptopulse.indicators.application.rates import RateBook

START_US = 1_678_406_400_000_000
MINUTE_US = 60_000_000
TETHER = Decimal("1.002")


def closes(path: Path) -> list[tuple[Decimal, Decimal]]:
    """(close, volume) by minute."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.reader(file))
    body = rows[1:] if not rows[0][4].replace(".", "").isdigit() else rows
    return [(Decimal(row[4]), Decimal(row[5])) for row in body]


@pytest.fixture
def recording(shared_data: Path) -> list[tuple[Decimal, tuple[Decimal, Decimal]]]:
    folder = shared_data / "recordings" / "usdc_depeg_2023"
    usd = closes(next(folder.glob("*BTCUSD_*")))
    usdc = closes(next(folder.glob("*BTCUSDC_*")))
    assert len(usd) == len(usdc) == 4_320
    return [(dollars[0], coins) for dollars, coins in zip(usd, usdc, strict=True)]


class World:
    """Venues that trade once a minute, and rates as other shards tell them."""

    def __init__(self) -> None:
        self.rates = RateBook()
        self.market = ShardMarket(0, 1, self.rates.usd)
        self.stable = ShardMarket(1, 1, self.rates.usd)
        self.ids: dict[str, int] = {}

    def trade(self, market: ShardMarket, venue: str, symbol: str, price: Decimal, at_us: int) -> None:
        number = self.ids[symbol] = self.ids.get(symbol, 0) + 1
        trade = Trade(symbol, number, price, Decimal(1), "buy", at_us, at_us)
        market.on_batch(TickBatch(venue=venue, shard=0, epoch=1, seq=number, sent_us=at_us, trades=[trade]))

    def rate(self, venue: str, symbol: str, price: Decimal, at_us: int) -> None:
        self.trade(self.stable, venue, symbol, price, at_us)
        for update in self.stable.price_updates(at_us):
            self.rates.take(update)


def test_btc_in_usd_stays_true_through_the_depeg(
    recording: list[tuple[Decimal, tuple[Decimal, Decimal]]],
) -> None:
    world = World()
    compared = 0
    lowest = Decimal(2)
    for minute, (true, (in_usdc, volume)) in enumerate(recording):
        at = START_US + minute * MINUTE_US
        peg = true / in_usdc if volume else None
        world.rate("coinbase", "USDT-USD", TETHER, at)
        if peg is not None:
            lowest = min(lowest, peg)
            world.rate("coinbase", "USDC-USD", peg.quantize(Decimal("0.00001")), at + 1)
        world.trade(world.market, "coinbase", "BTC-USD", true, at + 2)
        world.trade(world.market, "binance", "BTC-USDT", (true / TETHER).quantize(Decimal("0.01")), at + 3)
        # Quiet BTC-USDC minutes repeat an old price: the venue sends nothing, as a venue does.
        if volume:
            world.trade(world.market, "kraken", "BTC-USDC", in_usdc, at + 4)
        found = {u.symbol: u for u in world.market.price_updates(at + 5) if u.source == "consolidated"}
        price = found["BTC-USD"].price
        assert abs(price - true) <= true * Decimal("0.005"), (minute, price, true)
        compared += 1
    assert compared == 4_320
    assert lowest < Decimal("0.88"), "the recording holds the depeg"


def test_sources_in_usdc_are_dropped_when_its_rate_is_stale() -> None:
    world = World()
    at = START_US
    world.rate("coinbase", "USDC-USD", Decimal(1), at)
    world.trade(world.market, "coinbase", "BTC-USD", Decimal(20_000), at)
    later = at + 40_000_000
    world.trade(world.market, "coinbase", "BTC-USD", Decimal(20_010), later)
    world.trade(world.market, "kraken", "BTC-USDC", Decimal(23_000), later)
    found = next(
        u for u in world.market.price_updates(later) if (u.symbol, u.source) == ("BTC-USD", "consolidated")
    )
    assert found.price == Decimal(20_010)
    assert [(gone.source, gone.reason) for gone in found.excluded] == [("kraken:BTC-USDC", "rate_stale")]
    assert found.status == "single"


def test_with_usdc_at_87_cents_and_btc_up_14_percent_in_it_all_three_venues_agree() -> None:
    world = World()
    at = START_US
    world.rate("coinbase", "USDC-USD", Decimal("0.87"), at)
    world.rate("coinbase", "USDT-USD", Decimal("1.003"), at)
    world.trade(world.market, "coinbase", "BTC-USD", Decimal(20_000), at)
    world.trade(world.market, "binance", "BTC-USDT", Decimal("19940.18"), at)
    world.trade(world.market, "kraken", "BTC-USDC", Decimal("22988.51"), at)
    found = next(
        u for u in world.market.price_updates(at) if (u.symbol, u.source) == ("BTC-USD", "consolidated")
    )
    assert found.status == "ok"
    assert len(found.sources_used) == 3
    assert abs(found.price - 20_000) < 100
