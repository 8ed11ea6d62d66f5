"""Bars while they are built: exact sums, folding of trades into minutes and of minutes into longer bars (step 7)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from operator import mul
from typing import Final

import msgspec

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.intervals import MINUTE_MS, Interval, next_open
from cryptopulse.common.contracts.ticks import Conflated, Trade

EXACT: Final = Context(prec=80)
"""Wide enough that sums and products of prices and sizes never round."""
ZERO: Final = Decimal(0)


class Bar(msgspec.Struct, array_like=True):
    """A bar under construction or just closed. `open_time` in ms; `parts` counts the minutes that are in it.

    `first_minute` and `last_minute` are the open times of the first and last minute folded in: they say which
    minute's open and close are the bar's. `volume` in base, `quote_volume` in quote units, all exact.
    `first_second` and `last_second` (since 1970) are those of the runs whose open and close are the bar's, where no ids
    say it. `unsure` counts the minutes of a longer bar that are missing or not complete.
    """

    open_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int
    taker_buy_volume: Decimal
    first_id: int | None = None
    last_id: int | None = None
    complete: bool = True
    revision: int = 0
    parts: int = 1
    first_minute: int = 0
    last_minute: int = 0
    simulated: bool = False
    first_second: int = 0
    last_second: int = 0
    unsure: int = 0

    def candle(self, symbol: str, source: str, interval: Interval, *, closed: bool) -> Candle:
        """The bar as others see it."""
        return Candle(
            symbol=symbol,
            source=source,
            interval=interval,
            open_time=self.open_time,
            open=self.open,
            high=self.high,
            low=self.low,
            close=self.close,
            volume=self.volume,
            quote_volume=self.quote_volume,
            trades=self.trades,
            taker_buy_volume=self.taker_buy_volume,
            first_id=self.first_id,
            last_id=self.last_id,
            closed=closed,
            complete=self.complete,
            revision=self.revision,
            simulated=self.simulated,
        )


class Run(msgspec.Struct, frozen=True, array_like=True):
    """What a run of trades of one second comes to; ids are None where the venue does not number trades.

    Computed once, folded into every bar that the trades belong to. `last_us` is the newest event time.
    """

    minute: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int
    taker_buy_volume: Decimal
    first_id: int | None
    last_id: int | None
    last_us: int


def summarise(trades: Sequence[Trade], minute: int) -> Run:
    """A run of at least one trade of one second of `minute`. The open is that of the lowest id, the close of the highest.

    Must run under `EXACT` (see `decimal.localcontext`) so that sums stay exact.
    """
    first, last = trades[0], trades[-1]
    if len(trades) == 1:
        price, size = first.price, first.size
        taker = size if first.side == "buy" else ZERO
        return Run(
            minute, price, price, price, price, size, price * size, 1, taker, first.trade_id, first.trade_id,
            first.event_us,
        )  # fmt: skip
    if first.trade_id > last.trade_id:
        trades = sorted(trades, key=_trade_id)
        first, last = trades[0], trades[-1]
    prices = [trade.price for trade in trades]
    sizes = [trade.size for trade in trades]
    return Run(
        minute,
        first.price,
        max(prices),
        min(prices),
        last.price,
        sum(sizes, ZERO),
        sum(map(mul, prices, sizes), ZERO),
        len(trades),
        sum([trade.size for trade in trades if trade.side == "buy"], ZERO),
        first.trade_id,
        last.trade_id,
        max(first.event_us, last.event_us),
    )


def merged(runs: Sequence[Run]) -> Run:
    """Runs of one second in the order in which they came, as one: all of them with ids, or none.

    Must run under `EXACT`.
    """
    first, last = runs[0], runs[-1]
    if len(runs) == 1:
        return first
    if first.first_id is not None:
        first, last = min(runs, key=_first_id), max(runs, key=_last_id)
    return Run(
        first.minute,
        first.open,
        max([run.high for run in runs]),
        min([run.low for run in runs]),
        last.close,
        sum([run.volume for run in runs], ZERO),
        sum([run.quote_volume for run in runs], ZERO),
        sum([run.trades for run in runs]),
        sum([run.taker_buy_volume for run in runs], ZERO),
        first.first_id,
        last.last_id,
        max([run.last_us for run in runs]),
    )


def _first_id(run: Run) -> int:
    return run.first_id or 0


def _last_id(run: Run) -> int:
    return run.last_id or 0


def summarise_conflated(row: Conflated) -> Run:
    """What is left of trades that did not fit a bounded buffer, as one run of the second in which it ended."""
    return Run(
        row.last_event_us // 60_000_000 * MINUTE_MS,
        row.open,
        row.high,
        row.low,
        row.close,
        row.volume,
        row.quote_volume,
        row.trades,
        row.taker_buy_volume,
        row.first_id,
        row.last_id,
        row.last_event_us,
    )


def _trade_id(trade: Trade) -> int:
    return trade.trade_id


def bar_of(run: Run, open_time: int, *, simulated: bool) -> Bar:
    """A new minute or second from its first run."""
    second = run.last_us // 1_000_000
    return Bar(
        open_time=open_time,
        open=run.open,
        high=run.high,
        low=run.low,
        close=run.close,
        volume=run.volume,
        quote_volume=run.quote_volume,
        trades=run.trades,
        taker_buy_volume=run.taker_buy_volume,
        first_id=run.first_id,
        last_id=run.last_id,
        first_minute=run.minute,
        last_minute=run.minute,
        simulated=simulated,
        first_second=second,
        last_second=second,
    )


def place_run(bars: list[Bar], run: Run, open_time: int, *, simulated: bool) -> None:
    """Fold a run into its bar among open ones, ascending; a new bar where there is none."""
    for index, bar in enumerate(bars):
        if bar.open_time == open_time:
            fold_run(bar, run)
            return
        if bar.open_time > open_time:
            bars.insert(index, bar_of(run, open_time, simulated=simulated))
            return
    bars.append(bar_of(run, open_time, simulated=simulated))


def fold_run(bar: Bar, run: Run) -> None:
    """Fold a run into its minute or second. Ids decide whose price is the open and the close.

    Without ids the seconds do, within a second arrival: a minute is then the fold of its seconds.
    """
    if bar.trades == 0:
        bar.open, bar.high, bar.low = run.open, run.high, run.low
        bar.first_second = run.last_us // 1_000_000
    else:
        bar.high = max(bar.high, run.high)
        bar.low = min(bar.low, run.low)
    bar.volume += run.volume
    bar.quote_volume += run.quote_volume
    bar.trades += run.trades
    bar.taker_buy_volume += run.taker_buy_volume
    if run.first_id is None or run.last_id is None or bar.first_id is None or bar.last_id is None:
        second = run.last_us // 1_000_000
        if second >= bar.last_second:
            bar.close, bar.last_second = run.close, second
        if second < bar.first_second:
            bar.open, bar.first_second = run.open, second
        bar.first_id = run.first_id if bar.first_id is None else bar.first_id
        bar.last_id = run.last_id if run.last_id is not None else bar.last_id
        return
    if run.first_id < bar.first_id:
        bar.first_id, bar.open = run.first_id, run.open
    if run.last_id > bar.last_id:
        bar.last_id, bar.close = run.last_id, run.close


def reopened(bar: Bar, run: Run) -> Bar:
    """A closed bar with a late run in it, under the next revision."""
    new = msgspec.structs.replace(bar, revision=bar.revision + 1)
    if bar.trades == 0:
        new.first_id, new.last_id = run.first_id, run.last_id
        new.open, new.close = run.open, run.close
    fold_run(new, run)
    return new


def is_whole(bar: Bar, before: Bar | None, *, complete: bool) -> bool:
    """Whether a corrected bar of a venue that numbers its trades without holes has all of them.

    Without the bar before it a late trade proves nothing of the beginning (the first bar of all began amid it): that is
    then as `complete` says.
    """
    if bar.first_id is None or bar.last_id is None:
        return complete
    begins = complete if before is None or before.last_id is None else bar.first_id == before.last_id + 1
    return begins and bar.last_id - bar.first_id + 1 == bar.trades


def flat_bar(minute: int, price: Decimal, *, last_id: int | None, complete: bool, simulated: bool) -> Bar:
    """A quiet minute or second: the price stood still and nothing was traded, as venues' own candles show it."""
    return Bar(
        open_time=minute,
        open=price,
        high=price,
        low=price,
        close=price,
        volume=ZERO,
        quote_volume=ZERO,
        trades=0,
        taker_buy_volume=ZERO,
        last_id=last_id,
        complete=complete,
        first_minute=minute,
        last_minute=minute,
        simulated=simulated,
    )


def start_longer(open_time: int, minute: Bar) -> Bar:
    """A longer bar that begins with this minute (or shorter bar)."""
    return msgspec.structs.replace(minute, open_time=open_time, revision=0, unsure=doubts(minute))


def doubts(bar: Bar) -> int:
    """How many minutes of a bar are not complete, as far as is known: at least one where it is not."""
    return bar.unsure if bar.complete else max(1, bar.unsure)


def fold_bar(longer: Bar, part: Bar) -> None:
    """Fold a later part (a minute, an hour, a day) into a longer bar; parts come oldest first."""
    longer.high = max(longer.high, part.high)
    longer.low = min(longer.low, part.low)
    longer.close = part.close
    longer.volume = EXACT.add(longer.volume, part.volume)
    longer.quote_volume = EXACT.add(longer.quote_volume, part.quote_volume)
    longer.trades += part.trades
    longer.taker_buy_volume = EXACT.add(longer.taker_buy_volume, part.taker_buy_volume)
    longer.first_id = part.first_id if longer.first_id is None else longer.first_id
    longer.last_id = part.last_id if part.last_id is not None else longer.last_id
    longer.unsure = doubts(longer) + doubts(part)
    longer.complete = not longer.unsure
    longer.parts += part.parts
    longer.last_minute = part.last_minute
    longer.simulated = longer.simulated or part.simulated


def correct_part(longer: Bar, old: Bar | None, new: Bar) -> None:
    """Replace what minute `old` gave to a longer bar by `new` (a late trade only widens a minute).

    It is complete again as soon as the last of its minutes is.
    """
    longer.high = max(longer.high, new.high)
    longer.low = min(longer.low, new.low)
    if new.open_time <= longer.first_minute:
        longer.open, longer.first_minute = new.open, new.open_time
        longer.first_id = new.first_id if new.first_id is not None else longer.first_id
    if new.open_time >= longer.last_minute:
        longer.close, longer.last_minute = new.close, new.open_time
        longer.last_id = new.last_id if new.last_id is not None else longer.last_id
    longer.volume = EXACT.add(longer.volume, EXACT.subtract(new.volume, old.volume if old else ZERO))
    longer.quote_volume = EXACT.add(
        longer.quote_volume, EXACT.subtract(new.quote_volume, old.quote_volume if old else ZERO)
    )
    longer.taker_buy_volume = EXACT.add(
        longer.taker_buy_volume, EXACT.subtract(new.taker_buy_volume, old.taker_buy_volume if old else ZERO)
    )
    longer.trades += new.trades - (old.trades if old else 0)
    longer.unsure = max(0, doubts(longer) + doubts(new) - (doubts(old) if old else 0))
    longer.complete = not longer.unsure
    if old is None:
        longer.parts += 1


def minutes_in(open_time: int, interval: str) -> int:
    """How many minutes a bar that opens at `open_time` has."""
    return (next_open(open_time, interval) - open_time) // MINUTE_MS
