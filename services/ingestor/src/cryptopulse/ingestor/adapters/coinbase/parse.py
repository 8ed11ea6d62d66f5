"""Coinbase Advanced Trade's frames and REST rows to our values: pure, exact, the maker's side turned into the taker's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Raw

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Instrument, InstrumentStatus
from cryptopulse.common.contracts.intervals import Interval, next_open
from cryptopulse.common.contracts.ticks import SNAPSHOT, Quote, Trade
from cryptopulse.common.contracts.values import Side, ValueRefusedError, symbol_of
from cryptopulse.ingestor.adapters.coinbase import messages as wire
from cryptopulse.ingestor.domain.numbers import NOT_NEGATIVE, POSITIVE, exact
from cryptopulse.ingestor.domain.output import ControlAnswer, Output, RefusalReason
from cryptopulse.ingestor.domain.rows import RowRefused, ascending, believed
from cryptopulse.ingestor.domain.times import from_ms_or_us, from_rfc3339

VENUE: Final = "coinbase"
TAKER: Final[dict[str, Side]] = {"BUY": "sell", "SELL": "buy", "buy": "sell", "sell": "buy"}
"""The venue names the side of the order that was resting; the taker was on the other one."""

_decode_envelope = msgspec.json.Decoder(wire.Envelope).decode
_decode_trades = msgspec.json.Decoder(list[wire.TradesEvent]).decode
_decode_tickers = msgspec.json.Decoder(list[wire.TickerEvent]).decode
_decode_subscriptions = msgspec.json.Decoder(list[wire.SubscriptionsEvent]).decode


class CoinbaseParser:
    """Reads one connection's frames. Holds the connection's sequence number, nothing else."""

    def __init__(self, names: Mapping[str, str], out: Output) -> None:
        self._names = names
        self._out = out
        self._next = -1

    def parse(self, frame: bytes, received_us: int) -> None:
        """Hand on what one text frame says. Never raises: what is not understood is handed on as refused."""
        try:
            envelope = _decode_envelope(frame)
            self._in_sequence(envelope.sequence_num)
            match envelope.channel:
                case "market_trades":
                    for event in _decode_trades(envelope.events):
                        self._trades(event, frame, received_us)
                case "ticker" | "ticker_batch":
                    for ticker in _decode_tickers(envelope.events):
                        self._tickers(ticker, envelope.timestamp, frame, received_us)
                case "heartbeats":
                    self._out.heartbeat(None, None)
                case "subscriptions":
                    self._subscriptions(envelope)
                case _:
                    self._other(envelope, frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._out.refused("malformed", frame, str(error))
        except ValueRefusedError as error:
            self._out.refused(reason_of(error), frame, str(error))

    def _in_sequence(self, number: int) -> None:
        if number < 0:
            return
        if number > self._next > 0:
            self._out.sequence_hole(number - self._next)
        self._next = number + 1

    def _trades(self, event: wire.TradesEvent, frame: bytes, received_us: int) -> None:
        flags = SNAPSHOT if event.type == "snapshot" else 0
        found = []
        for row in reversed(event.trades):
            try:
                found.append(trade_of(row, self._names[row.product_id], received_us, flags))
            except KeyError:
                self._out.refused("unknown_symbol", frame, row.product_id)
            except ValueRefusedError as error:
                self._out.refused(reason_of(error), frame, str(error))
        found.sort(key=lambda trade: trade.trade_id)
        self._out.trades(found)

    def _tickers(self, event: wire.TickerEvent, at: str, frame: bytes, received_us: int) -> None:
        for row in event.tickers:
            if not (row.best_bid and row.best_ask):
                continue
            symbol = self._names.get(row.product_id)
            if symbol is None:
                self._out.refused("unknown_symbol", frame, row.product_id)
                continue
            self._out.quote(
                Quote(
                    symbol,
                    POSITIVE.exact(row.best_bid),
                    NOT_NEGATIVE.exact(row.best_bid_quantity or "0"),
                    POSITIVE.exact(row.best_ask),
                    NOT_NEGATIVE.exact(row.best_ask_quantity or "0"),
                    from_rfc3339(at) if at else received_us,
                    received_us,
                )
            )

    def _subscriptions(self, envelope: wire.Envelope) -> None:
        streams = {
            f"{channel}:{name}"
            for event in _decode_subscriptions(envelope.events)
            for channel, names in event.subscriptions.items()
            for name in names
            if channel != "heartbeats"
        }
        self._out.control(ControlAnswer("subscribed", streams=frozenset(streams)))

    def _other(self, envelope: wire.Envelope, frame: bytes) -> None:
        if envelope.type == "error":
            self._out.control(ControlAnswer("rejected", detail=envelope.message[:200]))
        else:
            self._out.refused("unknown_event", frame, envelope.channel or envelope.type)


def trade_of(row: wire.TradeRow, symbol: str, received_us: int, flags: int = 0) -> Trade:
    """One trade. Raises `ValueRefusedError` for a bad id, number or time."""
    if not (row.trade_id.isascii() and row.trade_id.isdigit()) or len(row.trade_id) > 18:
        raise ValueRefusedError(f"{row.trade_id!r:.40} is no trade id")
    return Trade(
        symbol,
        int(row.trade_id),
        POSITIVE.exact(row.price),
        POSITIVE.exact(row.size),
        TAKER.get(row.side, "unknown"),
        from_rfc3339(row.time),
        received_us,
        flags,
    )


def reason_of(error: ValueRefusedError) -> RefusalReason:
    """The counted reason of a refused value."""
    return "bad_time" if "time" in str(error) else "bad_number"


def instruments(answer: wire.Products, refused: RowRefused) -> list[Instrument]:
    """The spot products. An alias (BTC-USDC of BTC-USD) is left out: its data would be those of another quote."""
    return believed(answer.products, wire.Product, _instrument, refused)


def _instrument(row: wire.Product) -> Instrument | None:
    if row.product_type != "SPOT" or row.alias:
        return None
    return Instrument(
        venue=VENUE,
        symbol=symbol_of(row.base_currency_id, row.quote_currency_id),
        native=row.product_id,
        status=_status(row),
        price_increment=exact(row.price_increment) if row.price_increment else None,
        size_increment=exact(row.base_increment) if row.base_increment else None,
    )


def volumes(answer: wire.Products, refused: RowRefused) -> dict[str, Decimal]:
    """The volume of a day in quote units by symbol, where the venue tells it."""

    def volume(row: wire.Product) -> tuple[str, Decimal] | None:
        instrument = _instrument(row)
        if instrument is None or not row.approximate_quote_24h_volume:
            return None
        return instrument.symbol, exact(row.approximate_quote_24h_volume)

    return dict(believed(answer.products, wire.Product, volume, refused))


def _status(row: wire.Product) -> InstrumentStatus:
    if row.status == "delisted":
        return "delisted"
    if row.trading_disabled or row.is_disabled or row.cancel_only or row.status != "online":
        return "halted"
    return "trading"


def rest_trades(rows: Iterable[Raw], symbol: str, received_us: int, refused: RowRefused) -> list[Trade]:
    """Trades of the REST ticker, in the venue's order."""
    return believed(rows, wire.TradeRow, lambda row: trade_of(row, symbol, received_us), refused)


def candles(
    rows: Iterable[Raw], symbol: str, interval: Interval, from_ms: int, before_ms: int, refused: RowRefused
) -> list[Candle]:
    """Closed candles ascending, each once, that open at or after `from_ms`.

    The venue gives neither counts nor quote volumes: `trades` is 0, `quote_volume` the typical price times volume.
    """

    def candle(row: wire.CandleRow) -> Candle | None:
        open_ms = from_ms_or_us(int(exact(row.start)) * 1_000) // 1_000
        if open_ms < from_ms or next_open(open_ms, interval) > before_ms:
            return None
        volume, close = exact(row.volume), POSITIVE.exact(row.close)
        high, low = POSITIVE.exact(row.high), POSITIVE.exact(row.low)
        return Candle(
            symbol=symbol,
            source=VENUE,
            interval=interval,
            open_time=open_ms,
            open=POSITIVE.exact(row.open),
            high=high,
            low=low,
            close=close,
            volume=volume,
            quote_volume=volume * (high + low + close) / 3,
            trades=0,
            taker_buy_volume=exact("0"),
        )

    return ascending(believed(rows, wire.CandleRow, candle, refused))
