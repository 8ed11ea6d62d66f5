"""The venues' parsers: exact, with the taker's side, and nothing a venue sends makes them raise."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptopulse.common.contracts.ticks import SNAPSHOT, Quote, Trade
from cryptopulse.ingestor.adapters.binance import messages as binance_wire
from cryptopulse.ingestor.adapters.binance import parse as binance
from cryptopulse.ingestor.adapters.coinbase import messages as coinbase_wire
from cryptopulse.ingestor.adapters.coinbase import parse as coinbase
from cryptopulse.ingestor.adapters.coingecko import parse as coingecko
from cryptopulse.ingestor.domain.output import ControlAnswer

NOW = 1_723_161_254_087_896
NAMES = {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT", "BTC-USD": "BTC-USD", "ETH-USD": "ETH-USD"}


def not_refused(row: bytes, why: str) -> None:
    raise AssertionError(f"{row!r}: {why}")


class Kept:
    """An output that keeps everything."""

    def __init__(self) -> None:
        self.all: list[Trade] = []
        self.quotes: list[Quote] = []
        self.answers: list[ControlAnswer] = []
        self.refusals: list[tuple[str, str]] = []
        self.beats = 0
        self.holes = 0

    def trade(self, trade: Trade, /) -> None:
        self.all.append(trade)

    def trades(self, trades: Sequence[Trade], /) -> None:
        self.all += trades

    def quote(self, quote: Quote, /) -> None:
        self.quotes.append(quote)

    def heartbeat(self, symbol: str | None, last_trade_id: int | None, /) -> None:
        self.beats += 1

    def control(self, answer: ControlAnswer, /) -> None:
        self.answers.append(answer)

    def sequence_hole(self, missing: int, /) -> None:
        self.holes += missing

    def refused(self, reason: Any, frame: bytes, detail: str, /) -> None:
        self.refusals.append((reason, detail))


def read(frame: object, parser: Any = binance.BinanceParser) -> Kept:
    out = Kept()
    raw = frame if isinstance(frame, bytes) else json.dumps(frame, separators=(",", ":")).encode()
    parser(NAMES, out).parse(raw, NOW)
    return out


def a_binance_trade(**changes: Any) -> dict[str, Any]:
    trade = {
        "e": "trade",
        "E": 1723161255343,
        "s": "BTCUSDT",
        "t": 7,
        "p": "61837.63000000",
        "q": "0.02000000",
    }
    return trade | {"T": 1723161255342, "m": True, "M": True} | changes


def combined(data: dict[str, Any], stream: str = "btcusdt@trade") -> dict[str, Any]:
    return {"stream": stream, "data": data}


def test_binance_every_recorded_trade_comes_out_once_with_its_own_date(shared_data: Path) -> None:
    total = 0
    for name, symbol in (("btcusdt", "BTC-USDT"), ("ethusdt", "ETH-USDT")):
        out, sent = Kept(), []
        parser = binance.BinanceParser(NAMES, out)
        with gzip.open(shared_data / "recordings" / "binance_spot_ws" / f"{name}_20240808.gz", "rb") as lines:
            for line in lines:
                stamp, _, frame = line.strip().partition(b" ")
                if not frame:
                    continue
                parser.parse(frame, int(stamp) // 1_000)
                message = json.loads(frame, parse_float=str)
                if message.get("stream", "").endswith("@trade"):
                    sent.append(message["data"])
        assert len(out.all) == len(sent)
        for trade, raw in zip(out.all, sent, strict=True):
            assert trade.symbol == symbol
            assert (trade.trade_id, str(trade.price), str(trade.size)) == (raw["t"], raw["p"], raw["q"])
            assert trade.side == ("sell" if raw["m"] else "buy")
            assert trade.event_us == raw["T"] * 1_000
        assert {reason for reason, _ in out.refusals} == {"unknown_event"}
        total += len(out.all)
    assert total == 15_863


def test_binance_raw_and_combined_frames_of_any_key_order_read_the_same() -> None:
    data = a_binance_trade()
    turned = dict(reversed(data.items()))
    frames = [data, combined(data), turned, {"data": turned, "stream": "btcusdt@trade"}]
    assert [read(frame).all for frame in frames] == [read(data).all] * 4
    assert read(data).all[0].side == "sell"
    assert read(a_binance_trade(m=False)).all[0].side == "buy"


def test_binance_a_book_ticker_has_no_name_and_no_time() -> None:
    data = {"u": 1, "s": "BTCUSDT", "b": "1.5", "B": "0", "a": "1.6", "A": "2"}
    for frame in (data, combined(data, "btcusdt@bookTicker"), {"data": data, "stream": "btcusdt@bookTicker"}):
        (quote,) = read(frame).quotes
        assert (quote.bid, quote.bid_size, quote.ask) == (Decimal("1.5"), Decimal(0), Decimal("1.6"))
        assert quote.event_us == quote.received_us == NOW


def test_binance_times_in_microseconds_are_believed_and_impossible_ones_refused() -> None:
    assert read(a_binance_trade(T=1723161255342123)).all[0].event_us == 1_723_161_255_342_123
    for at in (0, 1_000, 10**17, -5):
        out = read(a_binance_trade(T=at))
        assert out.all == []
        assert [reason for reason, _ in out.refusals] == ["bad_time"]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"<html>504</html>", "malformed"),
        (b"", "malformed"),
        (b"\xff\xfe\x00", "malformed"),
        (b"[1,2,3]", "malformed"),
        (b'{"stream":"btcusdt@trade","data":{"e":"trade"', "malformed"),
        (b"[" * 100_000, "malformed"),
        (combined(a_binance_trade(p=None)), "malformed"),
        (combined(a_binance_trade(p=["1"])), "malformed"),
        (combined({"e": "trade"}), "malformed"),
        (combined(a_binance_trade(p="NaN")), "bad_number"),
        (combined(a_binance_trade(q="0")), "bad_number"),
        (combined(a_binance_trade(p="1e400")), "bad_number"),
        (combined(a_binance_trade(s="币安人生USDT")), "unknown_symbol"),
        (combined({"e": "24hrTicker", "s": "BTCUSDT"}, "btcusdt@ticker"), "unknown_event"),
        ({"hello": 1}, "unknown_event"),
    ],
)
def test_binance_what_is_not_believed_is_refused_with_its_reason(frame: object, reason: str) -> None:
    out = read(frame)
    assert (out.all, out.quotes) == ([], [])
    assert [r for r, _ in out.refusals] == [reason]


def test_binance_control_answers_are_told_apart() -> None:
    assert read({"result": None, "id": 3}).answers == [ControlAnswer("acknowledged", 3)]
    listed = read({"result": ["btcusdt@trade"], "id": 4}).answers[0]
    assert (listed.kind, listed.streams) == ("subscribed", frozenset({"btcusdt@trade"}))
    refused = read({"error": {"code": 2, "msg": "Invalid request"}, "id": 5}).answers[0]
    assert (refused.kind, refused.request_id, refused.detail) == ("rejected", 5, "Invalid request")
    for frame in (
        {"e": "serverShutdown", "E": 1},
        combined({"e": "serverShutdown", "E": 1}, "!serverShutdown"),
    ):
        assert read(frame).answers[0].kind == "shutdown"


def test_binance_product_list_and_limits_are_read() -> None:
    info = msgspec.json.decode(
        json.dumps(
            {
                "rateLimits": [
                    {
                        "rateLimitType": "REQUEST_WEIGHT",
                        "interval": "MINUTE",
                        "intervalNum": 1,
                        "limit": 6000,
                    },
                    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
                ],
                "symbols": [
                    {
                        "symbol": "BTCUSDT",
                        "status": "TRADING",
                        "baseAsset": "BTC",
                        "quoteAsset": "USDT",
                        "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01000000"}],
                    },
                    {"symbol": "X", "status": "BREAK", "baseAsset": "ABC", "quoteAsset": "USDT"},
                    {"symbol": "Y", "status": "TRADING", "baseAsset": "币安人生", "quoteAsset": "USDT"},
                ],
            }
        ),
        type=binance_wire.ExchangeInfo,
    )
    refused: list[str] = []
    found = binance.instruments(info, lambda row, why: refused.append(why))
    assert [(i.symbol, i.status) for i in found] == [("BTC-USDT", "trading"), ("ABC-USDT", "halted")]
    assert str(found[0].price_increment) == "0.01"
    assert len(refused) == 1
    assert "币安人生" in refused[0]
    assert [(p.name, p.capacity, p.period_seconds) for p in binance.pools(info, 0.7, not_refused)] == [
        ("request_weight", 4200, 60)
    ]


def test_binance_an_open_kline_and_flat_ones_are_left_out() -> None:
    def row(at: int, trades: int) -> list[Any]:
        return [at, "1", "2", "0.5", "1.5", "10", at + 59_999, "15", trades, "4", "6", "0"]

    rows = msgspec.json.decode(
        json.dumps([row(120_000, 3), row(0, 2), row(60_000, 0), row(180_000, 1)]),
        type=list[msgspec.Raw],
    )
    found = binance.candles(rows, "BTC-USDT", "1m", 200_000, not_refused)
    assert [c.open_time for c in found] == [0, 120_000]
    assert (found[0].quote_volume, found[0].taker_buy_volume, found[0].trades) == (Decimal(15), Decimal(4), 2)


def an_advanced(channel: str, events: list[Any], number: int = 0) -> dict[str, Any]:
    return {
        "channel": channel,
        "timestamp": "2026-08-09T21:05:48.228568804Z",
        "sequence_num": number,
        "events": events,
    }


def an_advanced_trade(trade_id: int, side: str = "BUY", **changes: Any) -> dict[str, Any]:
    row = {"product_id": "BTC-USD", "trade_id": str(trade_id), "price": "70000.01", "size": "0.5"}
    return row | {"time": "2026-08-09T21:05:48.1Z", "side": side} | changes


def test_coinbase_trades_come_oldest_first_with_the_takers_side() -> None:
    rows = [an_advanced_trade(9, "SELL"), an_advanced_trade(8), an_advanced_trade(7)]
    out = read(an_advanced("market_trades", [{"type": "snapshot", "trades": rows}]), coinbase.CoinbaseParser)
    assert [(t.trade_id, t.side, t.flags) for t in out.all] == [
        (7, "sell", SNAPSHOT),
        (8, "sell", SNAPSHOT),
        (9, "buy", SNAPSHOT),
    ]
    assert str(out.all[0].price) == "70000.01"


def test_coinbase_one_bad_row_costs_only_itself() -> None:
    rows = [
        an_advanced_trade(9, price="NaN"),
        an_advanced_trade(8, product_id="X-Y"),
        an_advanced_trade(7) | {"trade_id": "z"},
    ]
    rows.append(an_advanced_trade(6))
    out = read(an_advanced("market_trades", [{"type": "update", "trades": rows}]), coinbase.CoinbaseParser)
    assert [t.trade_id for t in out.all] == [6]
    assert sorted(reason for reason, _ in out.refusals) == ["bad_number", "bad_number", "unknown_symbol"]


def test_coinbase_a_lost_heartbeat_is_a_hole_in_the_sequence_and_no_lost_trade() -> None:
    out = Kept()
    parser = coinbase.CoinbaseParser(NAMES, out)
    for number in (0, 1, 3):
        parser.parse(json.dumps(an_advanced("heartbeats", [{}], number)).encode(), NOW)
    assert (out.beats, out.holes, out.all) == (3, 1, [])


def test_coinbase_subscriptions_are_the_full_state() -> None:
    state = {
        "subscriptions": {"market_trades": ["BTC-USD"], "heartbeats": ["heartbeats"], "ticker": ["ETH-USD"]}
    }
    (answer,) = read(an_advanced("subscriptions", [state]), coinbase.CoinbaseParser).answers
    assert answer.streams == {"market_trades:BTC-USD", "ticker:ETH-USD"}


def test_coinbase_an_alias_is_no_market_of_its_own() -> None:
    rows = [
        {
            "product_id": "BTC-USD",
            "base_currency_id": "BTC",
            "quote_currency_id": "USD",
            "price_increment": "0.01",
        },
        {
            "product_id": "BTC-USDC",
            "base_currency_id": "BTC",
            "quote_currency_id": "USDC",
            "alias": "BTC-USD",
        },
        {
            "product_id": "OLD-USD",
            "base_currency_id": "OLD",
            "quote_currency_id": "USD",
            "status": "delisted",
        },
    ]
    products = msgspec.json.decode(json.dumps({"products": rows}), type=coinbase_wire.Products)
    assert [(i.symbol, i.status) for i in coinbase.instruments(products, not_refused)] == [
        ("BTC-USD", "trading"),
        ("OLD-USD", "delisted"),
    ]


def test_coingecko_example_answer_is_read_exactly(shared_data: Path) -> None:
    raw = (shared_data / "recordings" / "coingecko_examples" / "coins_markets.json").read_bytes()
    coins, prices = coingecko.page_of(msgspec.json.decode(raw, type=list[msgspec.Raw]), NOW, not_refused)
    assert (coins[0].id, coins[0].market_cap_rank, prices[0].symbol) == ("bitcoin", 1, "BTC-USD")
    assert str(prices[0].change_24h) == "-747.3360347281705"


def test_coingecko_a_dead_coin_has_no_price_and_never_zero() -> None:
    raw = (
        b'[{"id":"dead","symbol":"ded","current_price":null},{"id":"zero","symbol":"zer","current_price":0},'
    )
    raw += b'{"id":"tiny","symbol":"tny","current_price":5.9e-06}]'
    coins, prices = coingecko.page_of(msgspec.json.decode(raw, type=list[msgspec.Raw]), NOW, not_refused)
    assert [c.id for c in coins] == ["dead", "zero", "tiny"]
    assert [(p.coin_id, p.price) for p in prices] == [("tiny", Decimal("0.0000059"))]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_make_a_parser_raise(frame: bytes) -> None:
    for parser in (binance.BinanceParser, coinbase.CoinbaseParser):
        out = read(frame, parser)
        assert out.all == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("estpqTmbBaAud"), inner, max_size=5)
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["btcusdt@trade", "btcusdt@bookTicker", "x"]))
def test_no_json_makes_a_parser_raise(data: Any, stream: str) -> None:
    read({"stream": stream, "data": data})
    for channel in ("market_trades", "ticker", "subscriptions", "heartbeats", "status"):
        read({"channel": channel, "events": data, "timestamp": "x"}, coinbase.CoinbaseParser)
