"""Every venue's frames and REST bodies, nearly right: a parser gives values that can be sent on, or refuses; nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptopulse.common.bus.codec import decode, encode
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.base import Message
from cryptopulse.common.contracts.candles import HistoryBatch
from cryptopulse.common.contracts.catalogue import CoinList, InstrumentList
from cryptopulse.common.contracts.ticks import Quote, TickBatch, Trade
from cryptopulse.common.contracts.topics import TOPICS
from cryptopulse.common.errors import Invalid, UpstreamUnavailable
from cryptopulse.common.testing.mutations import fuzz, mutated
from cryptopulse.ingestor.adapters.binance.feed import BinanceFeed
from cryptopulse.ingestor.adapters.binance.parse import BinanceParser
from cryptopulse.ingestor.adapters.coinbase.feed import CoinbaseFeed
from cryptopulse.ingestor.adapters.coinbase.parse import CoinbaseParser
from cryptopulse.ingestor.adapters.coinbase_exchange.feed import CoinbaseExchangeFeed
from cryptopulse.ingestor.adapters.coinbase_exchange.parse import ExchangeParser
from cryptopulse.ingestor.adapters.coingecko.feed import CoinGeckoSource
from cryptopulse.ingestor.adapters.kraken.feed import KrakenFeed
from cryptopulse.ingestor.adapters.kraken.parse import KrakenParser
from cryptopulse.ingestor.adapters.rest import VenueHttp
from cryptopulse.ingestor.application.ports import Page
from cryptopulse.ingestor.domain.ordering import Gap, TradeGuard
from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.market.instruments import BINANCE, COINBASE, KRAKEN, default_instruments
from tools.venue_sim.market.market import SyntheticMarket
from tools.venue_sim.net.messages import Request
from tools.venue_sim.venues.binance.site import BinanceSite
from tools.venue_sim.venues.coinbase.site import CoinbaseOptions, CoinbaseSite
from tools.venue_sim.venues.coingecko.catalogue import CoinCatalogue
from tools.venue_sim.venues.coingecko.site import CoinGeckoSite
from tools.venue_sim.venues.kraken.site import KrakenSite

NOW_US = (20_000 * 1440 + 615) * 60_000_000 + 33_000_000
DAY_MS = 86_400_000
TEXT_LIMIT = 100
ROWS = 3
"""Of the lists in a recorded body so many rows are kept: quick to change, and each kind of row is there."""

AT = "2026-08-09T21:05:48.228568804Z"
ADVANCED = {"client_id": "", "timestamp": AT, "sequence_num": 3}
ADVANCED_TRADE = {
    "product_id": "BTC-USD",
    "trade_id": "7",
    "price": "70000.01",
    "size": "0.5",
    "time": AT,
    "side": "BUY",
}
ADVANCED_TICKER = {
    "product_id": "BTC-USD",
    "best_bid": "1",
    "best_ask": "2",
    "best_bid_quantity": "3",
    "best_ask_quantity": "4",
}
MATCH = {
    "type": "match",
    "trade_id": 7,
    "product_id": "BTC-USD",
    "side": "buy",
    "size": "1",
    "price": "2",
    "time": AT,
}
TICKER = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "best_bid": "1",
    "best_ask": "2",
    "best_bid_size": "3",
    "time": AT,
}
KRAKEN_TRADE = {
    "symbol": "BTC/USD",
    "side": "sell",
    "price": 70000.1,
    "qty": 0.5,
    "trade_id": 7,
    "timestamp": AT,
}
KRAKEN_TICKER = {"symbol": "BTC/USD", "bid": 1.5, "bid_qty": 1, "ask": 1.6, "ask_qty": 2, "timestamp": AT}
BINANCE_TRADE = {
    "e": "trade",
    "E": 1723161255343,
    "s": "BTCUSDT",
    "t": 7,
    "p": "61837.63",
    "q": "0.02",
    "T": 1723161255342,
    "m": True,
    "M": True,
}
BINANCE_BOOK = {"u": 1, "s": "BTCUSDT", "b": "1.5", "B": "0", "a": "1.6", "A": "2"}

FRAMES: dict[type[Any], list[Any]] = {
    BinanceParser: [
        BINANCE_TRADE,
        {"stream": "btcusdt@trade", "data": BINANCE_TRADE},
        {"data": BINANCE_TRADE, "stream": "btcusdt@trade"},
        BINANCE_BOOK,
        {"stream": "btcusdt@bookTicker", "data": BINANCE_BOOK},
        {"result": ["btcusdt@trade"], "id": 4},
        {"error": {"code": 2, "msg": "Invalid request"}, "id": 5},
        {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}},
    ],
    CoinbaseParser: [
        {"channel": "market_trades", **ADVANCED, "events": [{"type": "update", "trades": [ADVANCED_TRADE] * 2}]},
        {"channel": "ticker", **ADVANCED, "events": [{"type": "update", "tickers": [ADVANCED_TICKER]}]},
        {"channel": "heartbeats", **ADVANCED, "events": [{"current_time": AT, "heartbeat_counter": 3}]},
        {"channel": "subscriptions", **ADVANCED, "events": [{"subscriptions": {"ticker": ["BTC-USD"]}}]},
        {"type": "error", "message": "no"},
    ],
    ExchangeParser: [
        MATCH,
        TICKER,
        {"type": "heartbeat", "sequence": 9, "last_trade_id": 7, "product_id": "BTC-USD", "time": AT},
        {"type": "subscriptions", "channels": [{"name": "matches", "product_ids": ["BTC-USD"]}]},
        {"type": "error", "message": "no", "reason": "not a product"},
    ],
    KrakenParser: [
        {"channel": "trade", "type": "update", "data": [KRAKEN_TRADE] * 2},
        {"channel": "ticker", "type": "snapshot", "data": [KRAKEN_TICKER]},
        {"channel": "heartbeat"},
        {"method": "subscribe", "result": {"channel": "trade", "symbol": "BTC/USD"}, "success": True, "req_id": 1},
        {"method": "subscribe", "error": "Currency pair not supported", "success": False, "symbol": "X/Y"},
    ],
}  # fmt: skip
NAMES = {"BTCUSDT": "BTC-USDT", "BTC-USD": "BTC-USD", "BTC/USD": "BTC-USD"}


@dataclass(slots=True)
class Taken:
    """An output behind a gap guard, as in the service."""

    guard: TradeGuard = field(default_factory=TradeGuard)
    passed: list[Trade] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)

    def trade(self, trade: Trade, /) -> None:
        self.passed += [trade] if self.guard.offer(trade) else self.guard.settle(trade)
        self.guard.due(trade.received_us)

    def trades(self, trades: Sequence[Trade], /) -> None:
        for trade in trades:
            self.trade(trade)

    def quote(self, quote: Quote, /) -> None:
        self.quotes.append(quote)

    def heartbeat(self, symbol: str | None, last_trade_id: int | None, /) -> None:
        if symbol is not None and last_trade_id is not None:
            self.told.append(self.guard.expect(symbol, last_trade_id, NOW_US))

    def control(self, answer: Any, /) -> None:
        self.told.append(answer)

    def sequence_hole(self, missing: int, /) -> None:
        self.told.append(float(missing))

    def refused(self, reason: str, frame: bytes, detail: str, /) -> None:
        self.told.append((reason, len(frame), detail.encode("utf-8", "replace")))


def assert_can_be_sent(message: Message) -> None:
    """The message comes back from the bus as it was, and no number in it is longer than anyone could want."""
    topic = next(topic for topic in TOPICS if topic.message is type(message))
    assert decode(encode(message), topic.type_name)[1] == message
    for number in _decimals(message):
        assert number.is_finite()
        assert len(format(number, "f")) <= TEXT_LIMIT, number


def _decimals(value: Any) -> list[Decimal]:
    if isinstance(value, Decimal):
        return [value]
    if isinstance(value, (list, tuple)):
        return [found for inner in value for found in _decimals(inner)]
    names = getattr(value, "__struct_fields__", ())
    return [found for name in names for found in _decimals(getattr(value, name))]


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("parser", FRAMES, ids=lambda parser: parser.__name__)
def test_a_frame_becomes_values_or_is_refused(parser: type[Any], data: st.DataObject) -> None:
    out = Taken()
    reader = parser(NAMES, out)
    for frame in data.draw(st.lists(mutated(FRAMES[parser]), min_size=1, max_size=10)):
        reader.parse(frame, NOW_US)
    assert_can_be_sent(
        TickBatch(venue="v", shard=0, epoch=1, seq=1, sent_us=NOW_US, trades=out.passed, quotes=out.quotes)
    )


class FixedClock(SystemClock):
    """The simulated market's now."""

    def now_us(self) -> int:
        return NOW_US

    def now_ms(self) -> int:
        return NOW_US // 1_000


class NoBudget:
    """A quota that allows everything, and says nothing."""

    def rule(self, venue: str, pools: Any) -> None:
        for pool in pools:
            assert pool.rate > 0

    async def spend(self, *_: Any, **__: Any) -> None: ...

    async def correct(self, *_: Any) -> None: ...

    async def block(self, *_: Any) -> None: ...

    def status(self, venue: str) -> list[Any]:
        return []


GAP = Gap("BTC-USD", 1, 10**30, NOW_US - 3_600_000_000, NOW_US)
Call = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A REST interface: its feed, the path that it lies under, and how a pair is called there."""

    feed: Callable[..., Any]
    path: str
    native: str

    def calls(self) -> dict[str, Call]:
        """Everything that is asked of it."""
        if self.feed is CoinGeckoSource:
            return {
                "top": lambda source: source.top(1),
                "candles": lambda source: source.candles("bitcoin", "BTC-USD", "4h", 30),
            }
        now_ms = NOW_US // 1_000
        return {
            "instruments": lambda feed: feed.instruments(),
            "volumes": lambda feed: feed.volumes(),
            "trades": lambda feed: feed.trades(self.native, GAP),
            "candles": lambda feed: feed.candles(self.native, "BTC-USD", "1d", now_ms - 20 * DAY_MS, now_ms),
        }

    def made(self, answer: Callable[[httpx.Request], Any]) -> Any:
        """The feed before a venue that answers so."""
        quota = NoBudget()
        http = VenueHttp("v", f"http://venue{self.path}", quota, transport=httpx.MockTransport(answer))
        if self.feed is CoinGeckoSource:
            return self.feed(http, quota, FixedClock(), ())
        return self.feed(http, "ws://venue", quota, FixedClock())


SUBJECTS = {
    "binance": Subject(BinanceFeed, "/api/v3", "BTCUSDT"),
    "coinbase": Subject(CoinbaseFeed, "/api/v3/brokerage", "BTC-USD"),
    "coinbase_exchange": Subject(CoinbaseExchangeFeed, "", "BTC-USD"),
    "kraken": Subject(KrakenFeed, "/0/public", "BTC/USD"),
    "coingecko": Subject(CoinGeckoSource, "/api/v3", "bitcoin"),
}
CALLS = [(name, call) for name, subject in SUBJECTS.items() for call in subject.calls()]


@cache
def _sites() -> dict[str, Any]:
    chosen = [one for venue in (BINANCE, COINBASE, KRAKEN) for one in default_instruments(venue)[:3]]
    market = SyntheticMarket(7, chosen, history_days=30, live_rate=50, now_us=lambda: NOW_US)
    coinbase = CoinbaseSite(market, Faults(1), CoinbaseOptions(burst=10_000))
    catalogue = CoinCatalogue(market.model, market.usd, 60.0, [])
    return {
        "binance": BinanceSite(market, Faults(1)),
        "coinbase": coinbase,
        "coinbase_exchange": coinbase,
        "kraken": KrakenSite(market, Faults(1)),
        "coingecko": CoinGeckoSite(market, Faults(1), catalogue),
    }


@cache
def valid_bodies(name: str, call: str) -> dict[str, Any]:
    """What the simulator answers to a call, by path, shortened."""
    found: dict[str, Any] = {}

    async def answer(request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        response = await _sites()[name].http(Request("GET", target, dict(request.headers)))
        assert response.status == 200, (target, response)
        found[request.url.path] = _shortened(orjson.loads(response.body))
        return httpx.Response(200, content=response.body)

    subject = SUBJECTS[name]
    read = asyncio.run(_called(subject.calls()[call], subject.made(answer)))
    assert len(read) if not isinstance(read, Page) else read.prices, (name, call)
    return found


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(inner) for inner in value[:ROWS]]
    return {key: _shortened(inner) for key, inner in value.items()} if isinstance(value, dict) else value


async def _called(call: Call, feed: Any) -> Any:
    return await call(feed)


def _as_message(call: str, read: Any) -> Message:
    match call:
        case "instruments":
            return InstrumentList(venue="v", at_us=NOW_US, instruments=read)
        case "trades":
            return TickBatch(venue="v", shard=0, epoch=1, seq=1, sent_us=NOW_US, trades=read)
        case "top":
            return CoinList(at_us=NOW_US, coins=read.coins)
        case _:
            return HistoryBatch(
                venue="v", symbol="BTC-USD", interval="1d", from_ms=0, to_ms=NOW_US // 1_000, candles=read
            )


@pytest.mark.parametrize(("name", "call"), CALLS)
def test_a_valid_body_is_read(name: str, call: str) -> None:
    assert valid_bodies(name, call)


@fuzz
@given(data=st.data())
@pytest.mark.parametrize(("name", "call"), CALLS)
def test_a_body_becomes_values_or_is_refused(name: str, call: str, data: st.DataObject) -> None:
    subject, bodies = SUBJECTS[name], valid_bodies(name, call)
    spoiled = data.draw(st.sampled_from(sorted(bodies)))
    body = data.draw(mutated([bodies[spoiled]]))

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path not in bodies:
            return httpx.Response(404)
        return httpx.Response(200, content=body if path == spoiled else orjson.dumps(bodies[path]))

    began = time.monotonic()
    try:
        read = asyncio.run(_called(subject.calls()[call], subject.made(answer)))
    except (UpstreamUnavailable, Invalid):
        return
    finally:
        assert time.monotonic() - began < 5
    if call == "volumes":
        assert all(volume.is_finite() and volume >= 0 for volume in read.values())
        return
    assert_can_be_sent(_as_message(call, read))
    if call == "top":
        assert_can_be_sent(
            TickBatch(venue="v", shard=0, epoch=1, seq=1, sent_us=NOW_US, references=read.prices)
        )
