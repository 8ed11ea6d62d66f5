"""Returns and risk of a portfolio over a window, from day ends, closes and the live value of today."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import FieldError, Invalid
from cryptopulse.portfolio.application.ports import (
    AssetRef,
    Books,
    CloseReader,
    Coin,
    CoinCatalogue,
    Portfolio,
    PriceReader,
)
from cryptopulse.portfolio.application.replay import days_of
from cryptopulse.portfolio.domain.book import DAY_US, DayEnd
from cryptopulse.portfolio.domain.money import HUNDRED, ONE, ZERO, money_context
from cryptopulse.portfolio.domain.returns import (
    EPOCH,
    DayReturn,
    Known,
    MoneyWeighted,
    annualised,
    average_invested,
    date_of,
    linked,
    money_weighted,
    on_average_invested,
    time_weighted,
)
from cryptopulse.portfolio.domain.risk import Drawdown, calmar, max_drawdown, sharpe, sortino, volatility
from cryptopulse.portfolio.domain.series import CARRY_DAYS, Series, daily_series, day_ends_by_asset

MAX_DAYS: Final = 366 * 30
MAX_BASKET: Final = 10
WINDOWS: Final = {"1d": 1, "7d": 7, "30d": 30, "90d": 90, "365d": 365}


@dataclass(frozen=True, slots=True)
class Span:
    """What was asked for: a named window, or days (inclusive) that replace its ends."""

    window: str = "all"
    from_day: int | None = None
    to_day: int | None = None


@dataclass(frozen=True, slots=True)
class Track:
    """A book's daily series with its linked returns; `start` is the value at the end of the day before the first."""

    portfolio: Portfolio
    series: Series
    start: Decimal | None
    days: list[DayReturn]
    asset_starts: dict[str, Decimal]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What a basket did over the same days."""

    name: str
    twr: Known
    excess: Known


@dataclass(frozen=True, slots=True)
class Performance:
    """All figures of a window; fractions, None with a reason."""

    portfolio: Portfolio
    from_day: int
    to_day: int
    start_value: Decimal
    end_value: Decimal | None
    net_flow: Decimal
    pnl: Decimal | None
    twr: Known
    twr_annualised: Known
    money: MoneyWeighted
    roai: Known
    average_invested: Decimal
    simple: Known
    drawdown: Drawdown | None
    volatility: Known
    sharpe: Known
    sortino: Known
    calmar: Known
    best_day: Known
    worst_day: Known
    contributions: list[tuple[str, Decimal]]
    benchmark: Benchmark | None
    complete: bool
    warnings: list[str]
    gap_days: int


class Performer:
    """Computes performance on request; nothing is stored, closes of finished days are kept by their reader."""

    def __init__(
        self, books: Books, prices: PriceReader, closes: CloseReader, catalogue: CoinCatalogue, clock: Clock
    ) -> None:
        self._books = books
        self._prices = prices
        self._closes = closes
        self._catalogue = catalogue
        self._clock = clock

    async def track(self, owner_id: str, portfolio_id: int, span: Span) -> Track:
        """The daily series of a window, which begins at the first funding at the earliest."""
        async with self._books.unit(owner_id, readonly=True) as unit:
            portfolio = await unit.portfolio(portfolio_id)
            segments = await unit.segments(portfolio_id)
            coins = {coin.asset: coin for coin in await unit.coins(portfolio_id)}
        ends = day_ends_by_asset([end for _, segment in segments for end in days_of(segment)])
        today = self._clock.now_us() // DAY_US
        first, last = _days(span, ends, today)
        closes, rates = await self._all_closes(portfolio, ends, coins, first - 1, last, today)
        series = daily_series(ends, closes, first - 1, last, rates)
        start = series.values[0]
        values = list(zip(range(first, last + 1), series.values[1:], strict=True))
        starts = {asset.asset: asset.values[0] or ZERO for asset in series.assets}
        days = linked(values, series.flows, before=start or ZERO)
        return Track(portfolio, series, start, days, starts)

    async def _all_closes(
        self,
        portfolio: Portfolio,
        ends: Mapping[str, Sequence[DayEnd]],
        coins: Mapping[str, Coin],
        first: int,
        last: int,
        today: int,
    ) -> tuple[dict[str, dict[int, Decimal]], dict[int, Decimal] | None]:
        refs = [AssetRef(asset, coins[asset].coin_id if asset in coins else None) for asset in ends]
        base = portfolio.base_currency
        if base != "USD" and base not in ends:
            refs.append(AssetRef(base))
        closes = await self._with_today(refs, first - CARRY_DAYS, last, today)
        if base == "USD":
            return closes, None
        return closes, closes.get(base, {})

    async def _with_today(
        self, refs: Sequence[AssetRef], first: int, last: int, today: int
    ) -> dict[str, dict[int, Decimal]]:
        """Closes of finished days and, for today, the live price."""
        found = await self._closes.daily(refs, first, min(last, today - 1))
        closes: dict[str, dict[int, Decimal]] = {asset: dict(days) for asset, days in found.items()}
        if last >= today:
            for asset, quote in (await self._prices.latest(refs)).items():
                if not quote.stale:
                    closes.setdefault(asset, {})[today] = quote.price
        return closes

    async def performance(
        self,
        owner_id: str,
        portfolio_id: int,
        span: Span,
        *,
        benchmark: str | None = None,
        risk_free: float = 0.0,
    ) -> Performance:
        """Every figure of the window. Raises `NotFound`, `Invalid` for a window without days or an unknown benchmark."""
        basket = self._basket(benchmark) if benchmark else []
        track = await self.track(owner_id, portfolio_id, span)
        with money_context():
            twr = time_weighted(track.days) if _is_whole(track) else None
            compared = await self._benchmark(benchmark or "", basket, track, twr) if basket else None
            return _figures(track, twr, compared, risk_free)

    def _basket(self, text: str) -> list[tuple[AssetRef, Decimal]]:
        """`BTC` or `BTC:60,ETH:40`: assets with positive weights, which are scaled to 1."""
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts or len(parts) > MAX_BASKET:
            raise _bad_benchmark(f"name 1 to {MAX_BASKET} assets")
        basket: list[tuple[AssetRef, Decimal]] = []
        for part in parts:
            name, colon, weight_text = part.partition(":")
            try:
                weight = Decimal(weight_text) if colon else ONE
            except InvalidOperation as error:
                raise _bad_benchmark(f"{weight_text!r:.20} is not a weight") from error
            if not weight.is_finite() or not 0 < weight <= 10**6:
                raise _bad_benchmark("weights are greater than 0")
            coin = self._catalogue.resolve(name)
            if coin is None:
                raise _bad_benchmark(f"{name!r:.40} is not a known asset")
            basket.append((AssetRef(coin.asset, coin.coin_id), weight))
        return basket

    async def _benchmark(
        self, name: str, basket: Sequence[tuple[AssetRef, Decimal]], track: Track, twr: Decimal | None
    ) -> Benchmark:
        """Bought once at the close before the window and held, in the portfolio's base currency."""
        base = track.portfolio.base_currency
        first, last = track.series.first, track.series.last
        refs = [ref for ref, _ in basket] + ([] if base == "USD" else [AssetRef(base)])
        closes = await self._with_today(refs, first, last, self._clock.now_us() // DAY_US)
        total = sum((weight for _, weight in basket), ZERO)
        growth = ZERO
        rates = {} if base == "USD" else closes.get(base, {})
        for ref, weight in basket:
            known = closes.get(ref.asset, {})
            start, end = known.get(first), known.get(last)
            if base != "USD":
                at_start, at_end = rates.get(first), rates.get(last)
                start = start / at_start if start is not None and at_start else None
                end = end / at_end if end is not None and at_end else None
            if start is None or end is None or not start:
                return Benchmark(name, Known(None, f"no-close-of-{ref.asset}"), Known(None, "no-benchmark"))
            growth += weight / total * (end / start)
        result = growth - ONE
        excess = Known(None, "no-return") if twr is None else Known(float(twr - result))
        return Benchmark(name, Known(float(result)), excess)


def _bad_benchmark(detail: str) -> Invalid:
    return Invalid(f"benchmark: {detail}.", errors=(FieldError("benchmark", "invalid", detail),))


def _days(span: Span, ends: Mapping[str, Sequence[DayEnd]], today: int) -> tuple[int, int]:
    funded = min((records[0].day for records in ends.values() if records), default=today)
    last = min(span.to_day if span.to_day is not None else today, today)
    if span.from_day is not None:
        first = span.from_day
    elif span.window in WINDOWS:
        first = last - WINDOWS[span.window] + 1
    elif span.window == "ytd":
        first = (date_of(last).replace(month=1, day=1) - EPOCH).days
    else:
        first = funded
    first = max(first, funded)
    if span.from_day is not None and span.from_day > last:
        raise Invalid(
            "from lies after to.",
            code="empty-window",
            errors=(FieldError("from", "empty-window", "say an earlier day"),),
        )
    first = min(first, last)
    if last - first > MAX_DAYS:
        raise Invalid(f"A window has at most {MAX_DAYS} days.", code="window-too-long")
    return first, last


def _is_whole(track: Track) -> bool:
    """False when a value that the linking rests on is unknown at an end of the window."""
    return bool(track.days) and track.start is not None and track.days[-1].value is not None


def _figures(track: Track, twr: Decimal | None, benchmark: Benchmark | None, risk_free: float) -> Performance:
    series, days = track.series, track.days
    first, last = series.first + 1, series.last
    length = last - first + 1
    flows = {day: flow for day, flow in series.flows.items() if day >= first}
    net_flow = sum(flows.values(), ZERO)
    start = track.start or ZERO
    end = days[-1].value if days else None
    whole = _is_whole(track)
    pnl = end - start - net_flow if whole and end is not None else None
    returns = [float(day.result) for day in days if day.result is not None]
    fall = max_drawdown(returns) if returns and twr is not None else None
    annual = annualised(twr, length)
    average = average_invested(_clipped(series.invested, first), first, last + 1)
    inflow = sum((flow for flow in flows.values() if flow > 0), ZERO) + start
    known = [day for day in days if day.result is not None]
    unknown = Known(None, "value-unknown")
    return Performance(
        portfolio=track.portfolio, from_day=first, to_day=last, start_value=start, end_value=end, net_flow=net_flow,
        pnl=pnl, twr=Known(float(twr)) if twr is not None else unknown, twr_annualised=annual,
        money=_money(track, flows, start, end) if whole else MoneyWeighted(unknown, unknown),
        roai=_fraction(None if pnl is None else on_average_invested(pnl, average), pnl),
        average_invested=average,
        simple=_fraction(pnl / inflow if pnl is not None and inflow > 0 else None, pnl),
        drawdown=fall, volatility=volatility(returns), sharpe=sharpe(returns, risk_free),
        sortino=sortino(returns, risk_free),
        calmar=calmar(annual, fall.depth) if fall is not None else unknown,
        best_day=Known(max(returns)) if known else unknown, worst_day=Known(min(returns)) if known else unknown,
        contributions=_contributions(track, first), benchmark=benchmark,
        complete=not series.left_out and all(day.value is not None for day in days),
        warnings=[f"no-closes: {asset} is left out with its flows" for asset in series.left_out]
        + [f"zero-base: value changed without capital on day {day.day}" for day in _odd(days)],
        gap_days=len({day for asset in series.assets for day in asset.carried if day >= first}),
    )  # fmt: skip


def _fraction(value: Decimal | None, pnl: Decimal | None) -> Known:
    if value is not None:
        return Known(float(value))
    return Known(None, "value-unknown" if pnl is None else "no-capital")


def _clipped(steps: Sequence[tuple[int, Decimal]], first: int) -> list[tuple[int, Decimal]]:
    """Steps from the window's first day on, with what was invested when it began."""
    before = [invested for day, invested in steps if day < first]
    return ([(first, before[-1])] if before else []) + [
        (day, invested) for day, invested in steps if day >= first
    ]


def _money(track: Track, flows: Mapping[int, Decimal], start: Decimal, end: Decimal | None) -> MoneyWeighted:
    """Investor's view: the opening value and what is put in are negative, what is taken out and the close positive."""
    seen = {day: -flow for day, flow in flows.items()}
    opening = track.series.first
    if start:
        seen[opening] = seen.get(opening, ZERO) - start
    if end:
        seen[track.series.last] = seen.get(track.series.last, ZERO) + end
    return money_weighted(seen)


def _contributions(track: Track, first: int) -> list[tuple[str, Decimal]]:
    """Per asset: value at the end - value at the start - what was put in; unknown ends are left out."""
    found = []
    for asset in track.series.assets:
        end = asset.values[-1]
        if end is None:
            continue
        flow = sum((amount for day, amount in asset.flows.items() if day >= first), ZERO)
        gain = end - track.asset_starts[asset.asset] - flow
        if gain or end:
            found.append((asset.asset, gain))
    return sorted(found, key=lambda item: (-abs(item[1]), item[0]))


def _odd(days: Sequence[DayReturn]) -> list[DayReturn]:
    """Days on which value appeared without capital: a return of 0 is then a choice, and said."""
    previous: Decimal | None = ZERO
    odd = []
    for day in days:
        if day.value is None:
            continue
        if not previous and day.flow <= 0 and day.value - max(day.flow, ZERO) > 0:
            odd.append(day)
        previous = day.value
    return odd[:10]


def percent_of(part: Decimal, whole: Decimal | None) -> Decimal | None:
    """A part in percent of a whole."""
    with money_context():
        return part / whole * HUNDRED if whole else None
