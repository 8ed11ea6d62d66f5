"""Coinbase Exchange's frames and REST rows to our values: pure, exact, the maker's side turned into the taker's."""

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
from cryptopulse.common.contracts.values import Side, ValueRefusedError, checked_decimal, symbol_of
from cryptopulse.ingestor.adapters.coinbase_exchange import messages as wire
from cryptopulse.ingestor.domain.numbers import NOT_NEGATIVE, POSITIVE
from cryptopulse.ingestor.domain.output import ControlAnswer, Output
from cryptopulse.ingestor.domain.rows import RowRefused, ascending, believed
from cryptopulse.ingestor.domain.times import from_rfc3339

VENUE: Final = "coinbase"
TAKER: Final[dict[str, Side]] = {"buy": "sell", "sell": "buy"}

_decode_event = msgspec.json.Decoder(wire.Event).decode
_decode_subscriptions = msgspec.json.Decoder(wire.Subscriptions).decode


class ExchangeParser:
    """Reads one connection's frames; keeps no state."""

    def __init__(self, names: Mapping[str, str], out: Output) -> None:
        self._names = names
        self._out = out

    def parse(self, frame: bytes, received_us: int) -> None:
        """Hand on what one text frame says. Never raises: what is not understood is handed on as refused."""
        try:
            event = _decode_event(frame)
            match event.type:
                case "match" | "last_match":
                    self._match(event, received_us)
                case "ticker":
                    self._ticker(event, received_us)
                case "heartbeat":
                    self._out.heartbeat(self._names[event.product_id], event.last_trade_id)
                case "subscriptions":
                    self._subscriptions(frame)
                case "error":
                    detail = f"{event.message}: {event.reason}".strip(": ")
                    self._out.control(ControlAnswer("rejected", detail=detail[:200]))
                case _:
                    self._out.refused("unknown_event", frame, event.type)
        except KeyError as error:
            self._out.refused("unknown_symbol", frame, f"symbol {error}")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._out.refused("malformed", frame, str(error))
        except ValueRefusedError as error:
            self._out.refused("bad_time" if "time" in str(error) else "bad_number", frame, str(error))

    def _match(self, event: wire.Event, received_us: int) -> None:
        self._out.trade(
            Trade(
                self._names[event.product_id],
                event.trade_id,
                POSITIVE.exact(event.price),
                POSITIVE.exact(event.size),
                TAKER.get(event.side, "unknown"),
                from_rfc3339(event.time),
                received_us,
                SNAPSHOT if event.type == "last_match" else 0,
            )
        )

    def _ticker(self, event: wire.Event, received_us: int) -> None:
        """The best bid and ask; the ticker's own trade is merged from several, so it is no tape."""
        if not (event.best_bid and event.best_ask):
            return
        self._out.quote(
            Quote(
                self._names[event.product_id],
                POSITIVE.exact(event.best_bid),
                NOT_NEGATIVE.exact(event.best_bid_size or "0"),
                POSITIVE.exact(event.best_ask),
                NOT_NEGATIVE.exact(event.best_ask_size or "0"),
                from_rfc3339(event.time) if event.time else received_us,
                received_us,
            )
        )

    def _subscriptions(self, frame: bytes) -> None:
        channels = _decode_subscriptions(frame).channels
        streams = frozenset(f"{channel.name}:{name}" for channel in channels for name in channel.product_ids)
        self._out.control(ControlAnswer("subscribed", streams=streams))


def instruments(rows: Iterable[Raw], refused: RowRefused) -> list[Instrument]:
    """The product list."""
    return believed(rows, wire.Product, _instrument, refused)


def _instrument(row: wire.Product) -> Instrument:
    return Instrument(
        venue=VENUE,
        symbol=symbol_of(row.base_currency, row.quote_currency),
        native=row.id,
        status=_status(row),
        price_increment=checked_decimal(row.quote_increment) if row.quote_increment else None,
        size_increment=checked_decimal(row.base_increment) if row.base_increment else None,
    )


def _status(row: wire.Product) -> InstrumentStatus:
    if row.status == "delisted":
        return "delisted"
    return "halted" if row.trading_disabled or row.cancel_only or row.status != "online" else "trading"


def rest_trades(rows: Iterable[Raw], symbol: str, received_us: int, refused: RowRefused) -> list[Trade]:
    """Trades of the REST list, in the venue's order."""

    def trade(row: wire.RestTrade) -> Trade:
        return Trade(
            symbol,
            row.trade_id,
            POSITIVE.exact(row.price),
            POSITIVE.exact(row.size),
            TAKER.get(row.side, "unknown"),
            from_rfc3339(row.time),
            received_us,
        )

    return believed(rows, wire.RestTrade, trade, refused)


def candles(
    rows: Iterable[Raw], symbol: str, interval: Interval, from_ms: int, before_ms: int, refused: RowRefused
) -> list[Candle]:
    """Closed candles ascending, each once, that open at or after `from_ms` (the venue may send earlier ones).

    The venue gives neither counts nor quote volumes: `trades` is 0, `quote_volume` the typical price times volume.
    """

    def candle(row: wire.Bar) -> Candle | None:
        open_ms = row.at_s * 1_000
        if open_ms < from_ms or next_open(open_ms, interval) > before_ms:
            return None
        low, high, opened, close = (checked_decimal(str(v)) for v in (row.low, row.high, row.open, row.close))
        volume = checked_decimal(str(row.volume), zero_allowed=True)
        return Candle(
            symbol=symbol,
            source=VENUE,
            interval=interval,
            open_time=open_ms,
            open=opened,
            high=high,
            low=low,
            close=close,
            volume=volume,
            quote_volume=volume * (high + low + close) / 3,
            trades=0,
            taker_buy_volume=Decimal(0),
        )

    return ascending(believed(rows, wire.Bar, candle, refused))
