"""Binance's frames and REST rows to our values: pure, exact, with the taker's side (step 2 of the route)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Raw

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Instrument, InstrumentStatus
from cryptopulse.common.contracts.intervals import Interval, next_open
from cryptopulse.common.contracts.ticks import Quote, Trade
from cryptopulse.common.contracts.values import ValueRefusedError, symbol_of
from cryptopulse.ingestor.adapters.binance import messages as wire
from cryptopulse.ingestor.domain.numbers import NOT_NEGATIVE, POSITIVE, exact
from cryptopulse.ingestor.domain.output import ControlAnswer, Output, RefusalReason
from cryptopulse.ingestor.domain.quota import PoolRule, Unit
from cryptopulse.ingestor.domain.rows import RowRefused, ascending, believed
from cryptopulse.ingestor.domain.times import FIRST_US, LAST_US, from_ms_or_us

VENUE: Final = "binance"
_MS_LIMIT: Final = LAST_US // 1_000
_FIRST_MS: Final = FIRST_US // 1_000
_PERIODS: Final = {"SECOND": 1, "MINUTE": 60, "HOUR": 3_600, "DAY": 86_400}
_STATUS: Final[dict[str, InstrumentStatus]] = {
    "TRADING": "trading",
    "HALT": "halted",
    "BREAK": "halted",
    "CANCEL_ONLY": "halted",
    "END_OF_DAY": "halted",
}

_decode_trade = msgspec.json.Decoder(wire.TradeEvent).decode
_decode_combined_trade = msgspec.json.Decoder(wire.CombinedTrade).decode
_decode_book = msgspec.json.Decoder(wire.BookTickerEvent).decode
_decode_combined_book = msgspec.json.Decoder(wire.CombinedBookTicker).decode
_decode_header = msgspec.json.Decoder(wire.Header).decode
_decode_event = msgspec.json.Decoder(wire.EventName).decode
_decode_streams = msgspec.json.Decoder(list[str]).decode


class BinanceParser:
    """Reads one connection's frames, raw or combined. `names` maps the venue's names to canonical symbols."""

    def __init__(self, names: Mapping[str, str], out: Output) -> None:
        self._names = names
        self._out = out
        self._price = POSITIVE.exact
        self._size = NOT_NEGATIVE.exact

    def parse(self, frame: bytes, received_us: int) -> None:
        """Hand on what one text frame says. Never raises: what is not understood is handed on as refused."""
        try:
            head = frame[:80]
            combined = head.startswith(b'{"stream"')
            if combined and b'@trade"' in head:
                self._trade(_decode_combined_trade(frame).data, received_us)
            elif combined and b'@bookTicker"' in head:
                self._quote(_decode_combined_book(frame).data, received_us)
            elif head.startswith(b'{"e":"trade"'):
                self._trade(_decode_trade(frame), received_us)
            elif head.startswith(b'{"u":'):
                self._quote(_decode_book(frame), received_us)
            else:
                self._other(frame, received_us)
        except KeyError as error:
            self._out.refused("unknown_symbol", frame, f"symbol {error}")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._out.refused("malformed", frame, str(error))
        except ValueRefusedError as error:
            self._out.refused(_reason(error), frame, str(error))

    def _trade(self, event: wire.TradeEvent, received_us: int) -> None:
        at = event.T
        at_us = at * 1_000 if _FIRST_MS <= at < _MS_LIMIT else from_ms_or_us(at)
        self._out.trade(
            Trade(
                self._names[event.s],
                event.t,
                self._price(event.p),
                self._price(event.q),
                "sell" if event.m else "buy",
                at_us,
                received_us,
            )
        )

    def _quote(self, event: wire.BookTickerEvent, received_us: int) -> None:
        self._out.quote(
            Quote(
                self._names[event.s],
                self._price(event.b),
                self._size(event.B),
                self._price(event.a),
                self._size(event.A),
                received_us,
                received_us,
            )
        )

    def _other(self, frame: bytes, received_us: int) -> None:
        header = _decode_header(frame)
        inner = bytes(header.data)
        name = header.e or (_decode_event(inner).e if inner.startswith(b"{") else "")
        if name == "trade":
            self._trade(_decode_trade(inner if header.stream else frame), received_us)
        elif header.stream.endswith("@bookTicker"):
            self._quote(_decode_book(inner), received_us)
        elif name == "serverShutdown":
            self._out.control(ControlAnswer("shutdown", detail="serverShutdown"))
        elif name or header.stream:
            self._out.refused("unknown_event", frame, name or header.stream)
        elif header.error is not None or header.code is not None:
            text = header.error.msg if header.error is not None else header.msg
            self._out.control(ControlAnswer("rejected", _request(header.id), detail=text))
        elif header.id is not None:
            self._answer(header)
        else:
            self._out.refused("unknown_event", frame, "neither event nor answer")

    def _answer(self, header: wire.Header) -> None:
        result = bytes(header.result)
        if result.startswith(b"["):
            streams = frozenset(_decode_streams(result))
            self._out.control(ControlAnswer("subscribed", _request(header.id), streams))
        else:
            self._out.control(ControlAnswer("acknowledged", _request(header.id)))


def _request(given: int | str | None) -> int | None:
    return given if isinstance(given, int) else None


def _reason(error: ValueRefusedError) -> RefusalReason:
    return "bad_time" if "time" in str(error) else "bad_number"


def instruments(info: wire.ExchangeInfo, refused: RowRefused) -> list[Instrument]:
    """The product list; rows whose names are not of our form (non-ASCII, too long) are refused."""
    return believed(info.symbols, wire.SymbolInfo, _instrument, refused)


def _instrument(row: wire.SymbolInfo) -> Instrument:
    return Instrument(
        venue=VENUE,
        symbol=symbol_of(row.base_asset, row.quote_asset),
        native=row.symbol,
        status=_STATUS.get(row.status, "unknown"),
        price_increment=_increment(row.filters, "PRICE_FILTER"),
        size_increment=_increment(row.filters, "LOT_SIZE"),
    )


def _increment(filters: Iterable[wire.Filter], kind: str) -> Decimal | None:
    for one in filters:
        text = one.tick_size or one.step_size
        if one.filter_type == kind and text:
            value = exact(text)
            return value.normalize() if value else None
    return None


def pools(info: wire.ExchangeInfo, share: float, refused: RowRefused) -> list[PoolRule]:
    """The budgets that the venue states, cut to the `share` of them that we use."""
    units: dict[str, Unit] = {"REQUEST_WEIGHT": "weight", "RAW_REQUESTS": "call"}

    def pool(limit: wire.RateLimit) -> PoolRule | None:
        if limit.rate_limit_type not in units or limit.interval not in _PERIODS:
            return None
        return PoolRule(
            name=limit.rate_limit_type.lower(),
            capacity=max(1, int(limit.limit * share)),
            period_seconds=float(_PERIODS[limit.interval] * limit.interval_num),
            unit=units[limit.rate_limit_type],
        )

    return believed(info.rate_limits, wire.RateLimit, pool, refused)


def volumes(rows: Iterable[Raw], listed: Mapping[str, str], refused: RowRefused) -> dict[str, Decimal]:
    """The volume of a day in quote units by symbol, of the `listed` products (the venue's name -> symbol)."""

    def volume(row: wire.DayVolume) -> tuple[str, Decimal] | None:
        symbol = listed.get(row.symbol)
        return (symbol, exact(row.quote_volume)) if symbol is not None else None

    return dict(believed(rows, wire.DayVolume, volume, refused))


def rest_trades(rows: Iterable[Raw], symbol: str, received_us: int, refused: RowRefused) -> list[Trade]:
    """Trades of `/historicalTrades` and `/trades`, ascending."""

    def trade(row: wire.RestTrade) -> Trade:
        return Trade(
            symbol,
            row.id,
            POSITIVE.exact(row.price),
            POSITIVE.exact(row.qty),
            "sell" if row.is_buyer_maker else "buy",
            from_ms_or_us(row.time),
            received_us,
        )

    return sorted(believed(rows, wire.RestTrade, trade, refused), key=lambda trade: trade.trade_id)


def candles(
    rows: Iterable[Raw], symbol: str, interval: Interval, closed_before_ms: int, refused: RowRefused
) -> list[Candle]:
    """Closed candles of `/klines`, ascending, each once; the open one and flat rows without trades are left out."""

    def candle(row: wire.Kline) -> Candle | None:
        if row.trades == 0 or next_open(row.open_ms, interval) > closed_before_ms:
            return None
        return Candle(
            symbol=symbol,
            source=VENUE,
            interval=interval,
            open_time=row.open_ms,
            open=POSITIVE.exact(row.open),
            high=POSITIVE.exact(row.high),
            low=POSITIVE.exact(row.low),
            close=POSITIVE.exact(row.close),
            volume=exact(row.volume),
            quote_volume=exact(row.quote_volume),
            trades=row.trades,
            taker_buy_volume=exact(row.taker_buy_volume),
        )

    return ascending(believed(rows, wire.Kline, candle, refused))
