"""Kraken's frames and REST rows to our values: pure and exact. Kraken names the taker's side itself; XBT is BTC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Raw

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Instrument
from cryptopulse.common.contracts.intervals import Interval, next_open
from cryptopulse.common.contracts.ticks import SNAPSHOT, Quote, Trade
from cryptopulse.common.contracts.values import Side, ValueRefusedError, checked_decimal, symbol_of
from cryptopulse.ingestor.adapters.kraken import messages as wire
from cryptopulse.ingestor.domain.numbers import POSITIVE, exact
from cryptopulse.ingestor.domain.output import ControlAnswer, Output
from cryptopulse.ingestor.domain.rows import RowRefused, ascending, believed, believed_row
from cryptopulse.ingestor.domain.times import FIRST_US, LAST_US, from_rfc3339

VENUE: Final = "kraken"
SIDES: Final[dict[str, Side]] = {"buy": "buy", "sell": "sell", "b": "buy", "s": "sell"}
OWN_NAMES: Final = {"XBT": "BTC", "XDG": "DOGE"}

_decode_envelope = msgspec.json.Decoder(wire.Envelope).decode
_decode_trades = msgspec.json.Decoder(list[wire.TradeRow]).decode
_decode_tickers = msgspec.json.Decoder(list[wire.TickerRow]).decode


class KrakenParser:
    """Reads one connection's frames. Gathers what the venue confirmed, pair by pair, into the full list."""

    def __init__(self, names: Mapping[str, str], out: Output) -> None:
        self._names = names
        self._out = out
        self._confirmed: set[str] = set()

    def parse(self, frame: bytes, received_us: int) -> None:
        """Hand on what one text frame says. Never raises: what is not understood is handed on as refused."""
        try:
            envelope = _decode_envelope(frame)
            if envelope.channel == "trade":
                self._trades(envelope, received_us)
            elif envelope.channel == "ticker":
                self._tickers(envelope, received_us)
            elif envelope.channel in ("heartbeat", "status") or envelope.method == "pong":
                self._out.heartbeat(None, None)
            elif envelope.method:
                self._answer(envelope)
            else:
                self._out.refused("unknown_event", frame, envelope.channel)
        except KeyError as error:
            self._out.refused("unknown_symbol", frame, f"symbol {error}")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._out.refused("malformed", frame, str(error))
        except ValueRefusedError as error:
            self._out.refused("bad_time" if "time" in str(error) else "bad_number", frame, str(error))

    def _trades(self, envelope: wire.Envelope, received_us: int) -> None:
        flags = SNAPSHOT if envelope.type == "snapshot" else 0
        found = [
            Trade(
                self._names[row.symbol],
                row.trade_id,
                checked_decimal(str(row.price)),
                checked_decimal(str(row.qty)),
                SIDES.get(row.side, "unknown"),
                from_rfc3339(row.timestamp),
                received_us,
                flags,
            )
            for row in _decode_trades(envelope.data)
        ]
        found.sort(key=lambda trade: trade.trade_id)
        self._out.trades(found)

    def _tickers(self, envelope: wire.Envelope, received_us: int) -> None:
        for row in _decode_tickers(envelope.data):
            self._out.quote(
                Quote(
                    self._names[row.symbol],
                    checked_decimal(str(row.bid)),
                    checked_decimal(str(row.bid_qty), zero_allowed=True),
                    checked_decimal(str(row.ask)),
                    checked_decimal(str(row.ask_qty), zero_allowed=True),
                    from_rfc3339(row.timestamp) if row.timestamp else received_us,
                    received_us,
                )
            )

    def _answer(self, envelope: wire.Envelope) -> None:
        result = envelope.result
        if not envelope.success or result is None:
            detail = f"{envelope.symbol} {envelope.error or ''}".strip()
            self._out.control(ControlAnswer("rejected", detail=detail[:200]))
            return
        stream = f"{result.channel}:{result.symbol}"
        if envelope.method == "unsubscribe":
            self._confirmed.discard(stream)
        else:
            self._confirmed.add(stream)
        self._out.control(ControlAnswer("subscribed", streams=frozenset(self._confirmed)))


def instruments(pairs: Iterable[Raw], refused: RowRefused) -> list[Instrument]:
    """The product list; `native` is the name that the socket uses (`BTC/USD`)."""
    return believed(pairs, wire.AssetPair, _instrument, refused)


def _instrument(row: wire.AssetPair) -> Instrument | None:
    base, slash, quote = row.wsname.partition("/")
    if not slash:
        return None
    base, quote = OWN_NAMES.get(base, base), OWN_NAMES.get(quote, quote)
    return Instrument(
        venue=VENUE,
        symbol=symbol_of(base, quote),
        native=f"{base}/{quote}",
        status="trading" if row.status == "online" else "halted",
        price_increment=checked_decimal(row.tick_size) if row.tick_size else None,
        size_increment=Decimal(1).scaleb(-row.lot_decimals),
    )


def volumes(pairs: Mapping[str, Raw], tickers: Mapping[str, Raw], refused: RowRefused) -> dict[str, Decimal]:
    """Base volume of 24 hours times its average price, by symbol, of the pairs that have a ticker."""
    found: dict[str, Decimal] = {}
    for key in tickers.keys() & pairs.keys():
        instrument = believed_row(pairs[key], wire.AssetPair, _instrument, refused)
        volume = believed_row(tickers[key], wire.DayTicker, _quote_volume, refused)
        if instrument is not None and volume is not None:
            found[instrument.symbol] = volume
    return found


def _quote_volume(row: wire.DayTicker) -> Decimal:
    return exact(row.v[1]) * exact(row.p[1])


def rest_trades(rows: Iterable[Raw], symbol: str, received_us: int, refused: RowRefused) -> list[Trade]:
    """Trades of `Trades`, ascending."""

    def trade(row: wire.RestTrade) -> Trade:
        if not (row.at_s.is_finite() and FIRST_US // 1_000_000 <= row.at_s < LAST_US // 1_000_000):
            raise ValueRefusedError(f"{row.at_s:.3e} is no time between 2010 and 2100")
        price, size = POSITIVE.exact(row.price), POSITIVE.exact(row.volume)
        side = SIDES.get(row.side, "unknown")
        return Trade(symbol, row.trade_id, price, size, side, int(row.at_s * 1_000_000), received_us)

    return sorted(believed(rows, wire.RestTrade, trade, refused), key=lambda trade: trade.trade_id)


def candles(
    rows: Iterable[Raw], symbol: str, interval: Interval, from_ms: int, before_ms: int, refused: RowRefused
) -> list[Candle]:
    """Closed candles with trades, ascending; flat rows are left out. `quote_volume` is the venue's VWAP times volume."""

    def candle(row: wire.Bar) -> Candle | None:
        open_ms = row.at_s * 1_000
        if row.count == 0 or open_ms < from_ms or next_open(open_ms, interval) > before_ms:
            return None
        volume = exact(row.volume)
        return Candle(
            symbol=symbol,
            source=VENUE,
            interval=interval,
            open_time=open_ms,
            open=POSITIVE.exact(row.open),
            high=POSITIVE.exact(row.high),
            low=POSITIVE.exact(row.low),
            close=POSITIVE.exact(row.close),
            volume=volume,
            quote_volume=volume * exact(row.vwap),
            trades=row.count,
            taker_buy_volume=Decimal(0),
        )

    return ascending(believed(rows, wire.Bar, candle, refused))
