"""What a venue may send to do harm: it costs the message or the row that holds it, never what stands beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import pytest

from cryptopulse.common.bus.codec import decode
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.ticks import Trade
from cryptopulse.common.errors import Invalid, UpstreamUnavailable
from cryptopulse.ingestor.adapters.binance.feed import BinanceFeed
from cryptopulse.ingestor.adapters.binance.parse import BinanceParser
from cryptopulse.ingestor.adapters.coinbase.feed import CoinbaseFeed
from cryptopulse.ingestor.adapters.coinbase_exchange.feed import CoinbaseExchangeFeed
from cryptopulse.ingestor.adapters.coinbase_exchange.parse import ExchangeParser
from cryptopulse.ingestor.adapters.coingecko.feed import CoinGeckoSource
from cryptopulse.ingestor.adapters.kraken.feed import KrakenFeed
from cryptopulse.ingestor.adapters.kraken.parse import KrakenParser
from cryptopulse.ingestor.adapters.rest import BAN_SECONDS, DEFAULT_BLOCK_SECONDS, VenueHttp
from cryptopulse.ingestor.domain.ordering import Gap
from cryptopulse.ingestor.domain.rows import NonsenseError

DEEP = b"[" * 100_000 + b"]" * 100_000
GAP = Gap("BTC-USDT", 1, 3, 1_700_000_000_000_000, 1_700_000_001_000_000)


class Generous:
    """A budget without end that keeps what the venue told."""

    def __init__(self) -> None:
        self.corrected: list[float] = []
        self.blocked: list[float] = []

    def rule(self, venue: str, pools: Any) -> None: ...

    async def spend(self, venue: str, weight: float, priority: Any, *, wait_seconds: float) -> None: ...

    async def block(self, venue: str, seconds: float, reason: str) -> None:
        self.blocked.append(seconds)

    async def correct(self, venue: str, pool: str, used: float) -> None:
        self.corrected.append(used)

    def status(self, venue: str) -> list[Any]:
        return []


def a_feed(kind: Callable[..., Any], answers: dict[str, Any], used: str = "") -> tuple[Any, Generous]:
    """A feed whose venue answers each path with a body: bytes as they are, everything else as JSON."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = answers[request.url.path]
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(200, content=raw, headers=[(b"X-Used", used.encode("latin-1"))])

    quota = Generous()
    http = VenueHttp("v", "http://venue", quota, used_header="X-Used", transport=httpx.MockTransport(answer))
    if kind is CoinGeckoSource:
        return kind(http, quota, SystemClock(), ()), quota
    return kind(http, "ws://venue", quota, SystemClock()), quota


class Refusals:
    """An output that takes trades and keeps the reasons of refusals."""

    def __init__(self) -> None:
        self.passed: list[Trade] = []
        self.reasons: list[str] = []

    def trade(self, trade: Trade, /) -> None:
        self.passed.append(trade)

    def trades(self, trades: Any, /) -> None:
        self.passed += trades

    def heartbeat(self, symbol: str | None, last_trade_id: int | None, /) -> None:
        assert last_trade_id is None or 0 <= last_trade_id < 2**63

    def refused(self, reason: str, frame: bytes, detail: str, /) -> None:
        self.reasons.append(reason)


@pytest.mark.parametrize("trade_id", [-1, 10**18, 2**64, 2**70])
def test_a_trade_id_that_no_encoding_holds_is_refused_by_every_parser(trade_id: int) -> None:
    time = "2026-08-09T21:05:48.1Z"
    frames: list[tuple[Any, dict[str, Any]]] = [
        (BinanceParser, {"e": "trade", "s": "B", "t": trade_id, "p": "1", "q": "1", "T": 1723161255342, "m": True}),
        (ExchangeParser, {"type": "match", "product_id": "B", "trade_id": trade_id, "price": "1", "size": "1", "time": time}),
        (ExchangeParser, {"type": "heartbeat", "product_id": "B", "last_trade_id": trade_id}),
        (KrakenParser, {"channel": "trade", "data": [
            {"symbol": "B", "side": "buy", "price": 1, "qty": 1, "trade_id": trade_id, "timestamp": time},
        ]}),
    ]  # fmt: skip
    for parser, frame in frames:
        out = Refusals()
        parser({"B": "BTC-USD"}, out).parse(json.dumps(frame, separators=(",", ":")).encode(), 1)
        assert (out.passed, out.reasons) == ([], ["malformed"]), parser


def test_a_body_with_an_unknown_field_nested_beyond_all_bounds_is_undecodable() -> None:
    nested = b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(Invalid) as refused:
        decode(b"\x81\xa7unknown" + nested, "ticks.v1")
    assert refused.value.code == "undecodable"
    assert "ticks.v1" in refused.value.detail


BINANCE_BAD: list[dict[str, Any]] = [
    {"filters": [{"filterType": "PRICE_FILTER", "tickSize": "NaN"}]},
    {"filters": [{"filterType": "LOT_SIZE", "stepSize": "1e400"}]},
    {"filters": None},
    {"baseAsset": None},
    {"baseAsset": "币安人生"},
]
COINBASE_BAD: list[dict[str, Any]] = [
    {"price_increment": "-1"}, {"base_increment": "x"}, {"status": 5}, {"quote_currency_id": ""},
]  # fmt: skip
EXCHANGE_BAD: list[dict[str, Any]] = [{"quote_increment": "Infinity"}, {"base_increment": []}, {"id": None}]
KRAKEN_BAD: list[dict[str, Any]] = [
    {"tick_size": "0"}, {"lot_decimals": 10**9}, {"lot_decimals": -5}, {"wsname": "A/"}, {"altname": {}},
]  # fmt: skip


@pytest.mark.parametrize("bad", BINANCE_BAD)
async def test_binance_one_bad_product_costs_only_itself(bad: dict[str, Any]) -> None:
    row = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}
    answers = {
        "/exchangeInfo": {"symbols": [row | bad, row], "rateLimits": [{"limit": 10**30}, {"intervalNum": 0}, 7]},
        "/ticker/24hr": [{"symbol": "BTCUSDT", "quoteVolume": "NaN"}, {"symbol": "BTCUSDT", "quoteVolume": "5"}],
    }  # fmt: skip
    answers["/exchangeInfo"]["rateLimits"] += [  # type: ignore[index]  # a dictionary of this very test
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6_000}
    ]
    feed, _ = a_feed(BinanceFeed, answers)
    assert [i.symbol for i in await feed.instruments()] == ["BTC-USDT"]
    assert {s: str(v) for s, v in (await feed.volumes()).items()} == {"BTC-USDT": "5"}


@pytest.mark.parametrize("bad", COINBASE_BAD)
async def test_coinbase_one_bad_product_costs_only_itself(bad: dict[str, Any]) -> None:
    row = {"product_id": "BTC-USD", "base_currency_id": "BTC", "quote_currency_id": "USD"}
    row["approximate_quote_24h_volume"] = "7"
    feed, _ = a_feed(CoinbaseFeed, {"/market/products": {"products": [row | bad, row]}})
    assert [i.symbol for i in await feed.instruments()] == ["BTC-USD"]
    assert {s: str(v) for s, v in (await feed.volumes()).items()} == {"BTC-USD": "7"}


@pytest.mark.parametrize("bad", EXCHANGE_BAD)
async def test_the_exchange_one_bad_product_costs_only_itself(bad: dict[str, Any]) -> None:
    row = {"id": "BTC-USD", "base_currency": "BTC", "quote_currency": "USD"}
    feed, _ = a_feed(CoinbaseExchangeFeed, {"/products": [row | bad, row]})
    assert [i.symbol for i in await feed.instruments()] == ["BTC-USD"]


@pytest.mark.parametrize("bad", KRAKEN_BAD)
async def test_kraken_one_bad_product_costs_only_itself(bad: dict[str, Any]) -> None:
    row = {"altname": "XBTUSD", "wsname": "XBT/USD", "tick_size": "0.1", "lot_decimals": 8}
    pairs = {"BAD": row | bad, "XXBTZUSD": row, "NOVOLUME": row | {"wsname": "ETH/USD"}}
    tickers = {"XXBTZUSD": {"v": ["1", "2"], "p": ["3", "4"]}, "NOVOLUME": {"v": ["1"]}, "BAD": DEEP.decode()}
    feed, _ = a_feed(
        KrakenFeed, {"/AssetPairs": {"error": [], "result": pairs}, "/Ticker": {"result": tickers}}
    )
    assert [i.symbol for i in await feed.instruments()] == ["BTC-USD", "ETH-USD"]
    assert {s: str(v) for s, v in (await feed.volumes()).items()} == {"BTC-USD": "8"}


async def test_coingecko_one_bad_coin_costs_only_itself() -> None:
    coin = {"id": "bitcoin", "symbol": "btc", "name": "Bitcoin", "current_price": 5}
    rows = [coin, {"id": None}, coin | {"id": "x" * 500}, coin | {"id": "y", "market_cap_rank": 2**70}]
    rows += [coin | {"id": "z", "image": "i" * 9_000, "market_cap": 10**29, "price_change_24h": "1E-999999"}]
    feed, _ = a_feed(CoinGeckoSource, {"/coins/markets": rows})
    page = await feed.top(1)
    assert [(c.id, c.image, c.change_24h) for c in page.coins] == [("bitcoin", None, None), ("z", None, None)]


async def test_a_body_nested_beyond_all_bounds_is_an_answer_that_failed() -> None:
    body = b'{"error":[],"result":{"XXBTZUSD":' + DEEP + b',"last":"1"}}'
    row = b'{"error":[],"result":{"XXBTZUSD":[["1","1",%s,"b","l","",7]],"last":%s}}'
    for raw in (body, row % (b"1700000000", DEEP), row % (b"1700000000", b"5"), b"\xff", b""):
        feed, _ = a_feed(KrakenFeed, {"/Trades": raw, "/AssetPairs": raw})
        with pytest.raises(UpstreamUnavailable):
            await feed.trades("BTC/USD", Gap("BTC-USD", 1, 9, GAP.from_us, GAP.to_us))
        with pytest.raises(UpstreamUnavailable):
            await feed.instruments()


@pytest.mark.parametrize("at", ["NaN", "Infinity", "1e999999", "-1", "1e30"])
async def test_kraken_a_trade_at_no_time_costs_only_itself(at: str) -> None:
    rows = [["1", "1", at, "b", "l", "", 1], ["1", "1", "1700000000.5", "b", "l", "", 2]]
    feed, _ = a_feed(KrakenFeed, {"/Trades": {"error": [], "result": {"XXBTZUSD": rows, "last": "5"}}})
    found = await feed.trades("BTC/USD", GAP)
    assert [(t.trade_id, t.event_us) for t in found] == [(2, 1_700_000_000_500_000)]


@pytest.mark.parametrize("at", [2**70, -(2**70), 10**17, 4_102_444_800_000])
async def test_a_candle_that_opens_at_no_time_costs_only_itself(at: int) -> None:
    def row(open_ms: int) -> list[Any]:
        return [open_ms, "1", "2", "0.5", "1.5", "10", open_ms, "15", 3, "4"]

    feed, _ = a_feed(BinanceFeed, {"/klines": [row(at), row(1_696_118_400_000)]})
    found = await feed.candles("BTCUSDT", "BTC-USDT", "1M", 0, 4_000_000_000_000)
    assert [c.open_time for c in found] == [1_696_118_400_000]


async def test_an_answer_without_a_single_row_that_can_be_read_is_no_empty_history() -> None:
    feed, _ = a_feed(BinanceFeed, {"/klines": [["x"], {"open": 1}]})
    with pytest.raises(NonsenseError):
        await feed.candles("BTCUSDT", "BTC-USDT", "1m", 0, 4_000_000_000_000)


@pytest.mark.parametrize(("used", "corrected"), [("17", [17.0]), ("²", []), ("9" * 400, []), ("-1", [])])
async def test_a_used_weight_that_is_no_number_corrects_nothing(used: str, corrected: list[float]) -> None:
    feed, quota = a_feed(BinanceFeed, {"/klines": []}, used)
    assert await feed.candles("BTCUSDT", "BTC-USDT", "1m", 0, 4_000_000_000_000) == []
    assert quota.corrected == corrected


NOW = "Sat, 28 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("status", "told", "seconds"),
    [
        (429, "7", 7.0),
        (418, "120.5", 120.5),
        (429, "Sat, 28 Nov 2026 10:02:30 GMT", 150.0),
        (429, "Sat, 28 Nov 2026 09:00:00 GMT", DEFAULT_BLOCK_SECONDS),
        (429, "Sat, 28 Nov 2026 10:02:30", DEFAULT_BLOCK_SECONDS),
        (429, "", DEFAULT_BLOCK_SECONDS),
        (418, "", BAN_SECONDS),
        (429, "NaN", DEFAULT_BLOCK_SECONDS),
        (429, "1e300", DEFAULT_BLOCK_SECONDS),
        (418, "-5", BAN_SECONDS),
        (429, "soon", DEFAULT_BLOCK_SECONDS),
        (429, "9" * 500, DEFAULT_BLOCK_SECONDS),
    ],
)
async def test_a_wait_is_obeyed_as_it_is_told_and_nonsense_is_a_minute(
    status: int, told: str, seconds: float
) -> None:
    quota = Generous()
    answer = httpx.Response(status, headers={"Retry-After": told, "Date": NOW})
    http = VenueHttp("v", "http://venue", quota, transport=httpx.MockTransport(lambda _: answer))
    with pytest.raises(UpstreamUnavailable) as refused:
        await http.get("/x", msgspec.Raw)
    assert (quota.blocked, refused.value.retry_after_seconds) == ([seconds], seconds)


class Drip(httpx.AsyncByteStream):
    """A body that never ends: a byte now and then, or megabytes at once."""

    def __init__(self, part: bytes, pause: float) -> None:
        self.sent = 0
        self._part, self._pause = part, pause

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += len(self._part)
            yield self._part
            await asyncio.sleep(self._pause)


@pytest.mark.parametrize(("part", "pause"), [(b" ", 0.01), (b" " * 4_000_000, 0.0)])
async def test_an_answer_without_end_is_cut(part: bytes, pause: float) -> None:
    drip = Drip(part, pause)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=drip))
    http = VenueHttp("v", "http://venue", Generous(), timeout_seconds=0.1, transport=transport)
    if pause == 0:
        http._whole_seconds = 30.0  # the size ends it, not the time
    with pytest.raises(UpstreamUnavailable):
        await asyncio.wait_for(http.get("/x", msgspec.Raw), 20)
    assert drip.sent < 80_000_000
