"""The bounded buffer between a reader and the bus, per shard: trades as they are, quotes newest-wins, then bars."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from cryptopulse.common.contracts.ticks import Conflated, Quote, ReferencePrice, Trade

ZERO = Decimal(0)


@dataclass(slots=True)
class _Bar:
    first: Trade
    last: Trade
    high: Decimal
    low: Decimal
    volume: Decimal = ZERO
    quote_volume: Decimal = ZERO
    taker_buy_volume: Decimal = ZERO
    trades: int = 0

    def add(self, trade: Trade) -> None:
        self.last = trade
        self.high = max(self.high, trade.price)
        self.low = min(self.low, trade.price)
        self.volume += trade.size
        self.quote_volume += trade.price * trade.size
        if trade.side == "buy":
            self.taker_buy_volume += trade.size
        self.trades += 1

    def row(self) -> Conflated:
        return Conflated(
            symbol=self.first.symbol,
            first_id=self.first.trade_id,
            last_id=self.last.trade_id,
            open=self.first.price,
            high=self.high,
            low=self.low,
            close=self.last.price,
            volume=self.volume,
            quote_volume=self.quote_volume,
            taker_buy_volume=self.taker_buy_volume,
            trades=self.trades,
            first_event_us=self.first.event_us,
            last_event_us=self.last.event_us,
            received_us=self.last.received_us,
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """What one message will carry."""

    trades: list[Trade]
    quotes: list[Quote]
    references: list[ReferencePrice]
    conflated: list[Conflated]

    def __len__(self) -> int:
        return len(self.trades) + len(self.quotes) + len(self.references) + len(self.conflated)


class TickBuffer:
    """Ticks of one shard that wait for the bus.

    Up to `limit` trades wait as they are. Beyond, a trade folds into its symbol's bar of its minute: labelled,
    counted in `conflated_trades`, never silent. Once a symbol has bars its trades keep folding until they are taken,
    so that bars and trades stay in order. Quotes and reference prices keep the newest only.
    """

    __slots__ = (
        "_bars",
        "_limit",
        "_quotes",
        "_references",
        "conflated_quotes",
        "conflated_trades",
        "trades",
    )

    def __init__(self, limit: int) -> None:
        self.trades: list[Trade] = []
        self._limit = limit
        self._quotes: dict[str, Quote] = {}
        self._references: dict[str, ReferencePrice] = {}
        self._bars: dict[tuple[str, int], _Bar] = {}
        self.conflated_trades = 0
        self.conflated_quotes = 0

    def add_trade(self, trade: Trade) -> None:
        """Keep a trade; never blocks, never grows beyond the limit."""
        if len(self.trades) < self._limit and not self._bars:
            self.trades.append(trade)
            return
        self.conflated_trades += 1
        key = (trade.symbol, trade.event_us // 60_000_000)
        bar = self._bars.get(key)
        if bar is None:
            bar = self._bars[key] = _Bar(trade, trade, trade.price, trade.price)
        bar.add(trade)

    def add_quote(self, quote: Quote) -> None:
        """Keep the newest quote of a symbol."""
        if quote.symbol in self._quotes:
            self.conflated_quotes += 1
        self._quotes[quote.symbol] = quote

    def add_reference(self, reference: ReferencePrice) -> None:
        """Keep the newest reference price of a coin."""
        self._references[reference.coin_id] = reference

    def take(self, most: int, *, quotes: bool = True) -> Taken:
        """The next `most` trades, and with the last of them everything else; `quotes` False leaves quotes waiting."""
        trades, self.trades = self.trades[:most], self.trades[most:]
        taken_quotes: list[Quote] = []
        if quotes and self._quotes:
            taken_quotes = list(self._quotes.values())
            self._quotes = {}
        references = list(self._references.values())
        self._references = {}
        bars: list[Conflated] = []
        if self._bars and not self.trades:
            bars = [bar.row() for bar in self._bars.values()]
            self._bars = {}
        return Taken(trades, taken_quotes, references, bars)

    @property
    def has_urgent(self) -> bool:
        """True when something other than quotes waits."""
        return bool(self.trades or self._bars or self._references)

    @property
    def has_quotes(self) -> bool:
        """True when quotes wait."""
        return bool(self._quotes)

    @property
    def depth(self) -> int:
        """How many trades wait as they are."""
        return len(self.trades)
