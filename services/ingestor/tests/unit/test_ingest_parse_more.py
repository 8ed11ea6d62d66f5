"""Coinbase Exchange and Kraken: recorded frames and official candles."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.ticks import Quote, Trade
from cryptopulse.ingestor.adapters.coinbase_exchange.parse import ExchangeParser
from cryptopulse.ingestor.adapters.coinbase_exchange.parse import candles as exchange_candles
from cryptopulse.ingestor.adapters.kraken import messages as kraken_wire
from cryptopulse.ingestor.adapters.kraken import parse as kraken
from cryptopulse.ingestor.domain.ordering import TradeGuard
from cryptopulse.ingestor.domain.output import ControlAnswer

NOW = 1_723_161_254_087_896


def not_refused(row: bytes, why: str) -> None:
    raise AssertionError(f"{row!r}: {why}")


class Guarded:
    """An output behind a gap guard, as in the service."""

    def __init__(self) -> None:
        self.guard = TradeGuard()
        self.passed: list[Trade] = []
        self.quotes: list[Quote] = []
        self.answers: list[ControlAnswer] = []
        self.refusals: Counter[str] = Counter()
        self.last_ids: dict[str, int] = {}

    def trade(self, trade: Trade, /) -> None:
        self.passed += [trade] if self.guard.offer(trade) else self.guard.settle(trade)

    def trades(self, trades: Any, /) -> None:
        for trade in trades:
            self.trade(trade)

    def quote(self, quote: Quote, /) -> None:
        self.quotes.append(quote)

    def heartbeat(self, symbol: str | None, last_trade_id: int | None, /) -> None:
        if symbol is not None and last_trade_id is not None:
            self.last_ids[symbol] = last_trade_id

    def control(self, answer: ControlAnswer, /) -> None:
        self.answers.append(answer)

    def sequence_hole(self, missing: int, /) -> None:
        raise AssertionError(missing)

    def refused(self, reason: Any, frame: bytes, detail: str, /) -> None:
        self.refusals[reason] += 1


def test_exchange_every_recorded_match_comes_out_once_with_the_takers_side(shared_data: Path) -> None:
    out = Guarded()
    products = ["SKL-USD", "YFI-BTC", "DASH-BTC", "CRV-EUR", "SKL-GBP"]
    parser = ExchangeParser({name: name for name in products}, out)
    matches: dict[tuple[str, int], dict[str, Any]] = {}
    tickers: dict[tuple[str, int], str] = {}
    with gzip.open(shared_data / "recordings" / "coinbase_exchange_ws" / "products_a.txt.gz", "rt") as lines:
        for line in lines:
            stamp, _, text = line.strip().partition(": ")
            message = json.loads(text)
            parser.parse(text.encode(), int(float(stamp) * 1e6))
            if message["type"] in ("match", "last_match"):
                matches[message["product_id"], message["trade_id"]] = message
            if message["type"] == "ticker":
                tickers[message["product_id"], message["trade_id"]] = message["side"]
    assert {(t.symbol, t.trade_id) for t in out.passed} == set(matches)
    assert len(out.passed) == len(matches)
    for trade in out.passed:
        raw = matches[trade.symbol, trade.trade_id]
        assert trade.side == {"buy": "sell", "sell": "buy"}[raw["side"]]
        assert (str(trade.price), str(trade.size)) == (raw["price"], raw["size"])
    # the ticker names the taker's side of the same trade: an independent witness
    shared = [t for t in out.passed if (t.symbol, t.trade_id) in tickers]
    assert len(shared) > 30
    assert all(t.side == tickers[t.symbol, t.trade_id] for t in shared)
    assert len(out.quotes) == 73


def test_exchange_a_last_match_that_repeats_as_a_match_is_one_trade() -> None:
    out = Guarded()
    parser = ExchangeParser({"BTC-USD": "BTC-USD"}, out)
    row = {
        "trade_id": 5,
        "side": "buy",
        "size": "1",
        "price": "2",
        "product_id": "BTC-USD",
        "time": "2021-04-17T16:43:29Z",
    }
    for kind in ("last_match", "match"):
        parser.parse(json.dumps(row | {"type": kind}).encode(), NOW)
    assert [t.trade_id for t in out.passed] == [5]
    parser.parse(b'{"type":"heartbeat","product_id":"BTC-USD","last_trade_id":9}', NOW)
    assert out.last_ids == {"BTC-USD": 9}


def test_exchange_candles_have_low_before_high_and_open() -> None:
    rows = msgspec.json.decode(b"[[120,9.5,12.5,10.1,11.25,3.5],[60,1,2,1,2,0.1]]", type=list[msgspec.Raw])
    (candle,) = exchange_candles(rows, "BTC-USD", "1m", 120_000, 10**13, not_refused)
    assert (candle.open, candle.high, candle.low, candle.close) == (
        Decimal("10.1"), Decimal("12.5"), Decimal("9.5"), Decimal("11.25"),
    )  # fmt: skip


def _folded(trades: list[Trade]) -> dict[int, tuple[Decimal, Decimal, Decimal, Decimal, Decimal, int]]:
    minutes: dict[int, list[Trade]] = {}
    for trade in trades:
        minutes.setdefault(trade.event_us // 60_000_000 * 60_000, []).append(trade)
    return {
        at: (
            part[0].price,
            max(t.price for t in part),
            min(t.price for t in part),
            part[-1].price,
            sum((t.size for t in part), Decimal(0)),
            len(part),
        )
        for at, part in minutes.items()
    }


def test_kraken_trades_fold_into_the_venues_own_candles(shared_data: Path) -> None:
    folder = shared_data / "recordings" / "kraken_rest"

    def rows(name: str) -> list[msgspec.Raw]:
        answer = msgspec.json.decode(gzip.decompress((folder / name).read_bytes()), type=kraken_wire.Answer)
        return msgspec.json.decode(answer.result["XBTUSDT"], type=list[msgspec.Raw])

    trades = kraken.rest_trades(rows("trades_XBTUSDT.json.gz"), "BTC-USDT", NOW, not_refused)
    bars = rows("ohlc_1m_XBTUSDT.json.gz")
    official = {c.open_time: c for c in kraken.candles(bars, "BTC-USDT", "1m", 0, 10**13, not_refused)}
    ids = [t.trade_id for t in trades]
    assert ids == list(range(ids[0], ids[0] + 399))
    folded = _folded(trades)
    complete = sorted(folded)[1:-1]
    assert len(complete) >= 100
    for at in complete:
        bar: Candle = official[at]
        assert folded[at] == (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trades)


def test_kraken_frames_are_exact_and_confirmations_add_up() -> None:
    out = Guarded()
    parser = kraken.KrakenParser({"BTC/USD": "BTC-USD"}, out)
    trade = b'{"symbol":"BTC/USD","side":"sell","price":70000.1,"qty":0.00012345,"trade_id":%d,"timestamp":"2025-11-10T17:23:53.971744Z"}'
    for frame in (
        b'{"channel":"heartbeat"}',
        b'{"method":"subscribe","result":{"channel":"trade","symbol":"BTC/USD"},"success":true,"req_id":1}',
        b'{"method":"subscribe","result":{"channel":"ticker","symbol":"BTC/USD"},"success":true,"req_id":2}',
        b'{"method":"subscribe","error":"Currency pair not supported XYZ/USD","success":false,"symbol":"XYZ/USD"}',
        b'{"channel":"trade","type":"update","data":[' + trade % 2 + b"," + trade % 1 + b"]}",
        b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":1.5,"bid_qty":0,"ask":2e0,"ask_qty":1}]}',
    ):
        parser.parse(frame, NOW)
    assert [(t.trade_id, t.side, str(t.price), str(t.size)) for t in out.passed] == [
        (1, "sell", "70000.1", "0.00012345"),
        (2, "sell", "70000.1", "0.00012345"),
    ]
    assert [a.kind for a in out.answers] == ["subscribed", "subscribed", "rejected"]
    assert out.answers[1].streams == {"trade:BTC/USD", "ticker:BTC/USD"}
    assert out.quotes[0].bid == Decimal("1.5")


def test_kraken_old_names_become_the_common_ones() -> None:
    pairs = [
        msgspec.Raw(b'{"altname":"XBTUSD","wsname":"XBT/USD","tick_size":"0.1"}'),
        msgspec.Raw(b'{"altname":"XDGUSD","wsname":"XDG/USD","status":"cancel_only"}'),
    ]
    found = kraken.instruments(pairs, not_refused)
    assert [(i.symbol, i.native, i.status) for i in found] == [
        ("BTC-USD", "BTC/USD", "trading"),
        ("DOGE-USD", "DOGE/USD", "halted"),
    ]
