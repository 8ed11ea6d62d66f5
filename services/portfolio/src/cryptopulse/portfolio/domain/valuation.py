"""What a book is worth at one snapshot of prices: one arithmetic for HTTP answers and live values.

An unknown or stale price is None, never 0: totals cover priced assets and say that they are not complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from cryptopulse.portfolio.domain.money import HUNDRED, ONE, ZERO, money_context

MATERIAL_UNPRICED: Final = Decimal("0.01")
"""Percentages are None when unpriced assets hold more than this part of all cost."""
DUST_PART: Final = Decimal("0.001")
"""A holding below this part of the value is neither the best nor the worst."""


@dataclass(frozen=True, slots=True)
class Position:
    """One asset of a book, as stored; money in the base currency, sums since the beginning."""

    asset: str
    quantity: Decimal
    cost: Decimal
    bare: Decimal
    realised: Decimal = ZERO
    income: Decimal = ZERO
    fees: Decimal = ZERO
    fees_separate: Decimal = ZERO
    removed: Decimal = ZERO
    flow_in: Decimal = ZERO
    flow_out: Decimal = ZERO
    coin_id: str | None = None
    coin_name: str | None = None
    coin_symbol: str | None = None
    accounts: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quote:
    """The newest price of an asset in USD. `stale` ones are known but not used. `seq` and `epoch` name the update."""

    price: Decimal
    age_ms: int
    stale: bool = False
    status: str = "ok"
    change_24h_pct: Decimal | None = None
    epoch: int = 0
    seq: int = 0
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Valued:
    """A holding with its value; None where it cannot be known."""

    position: Position
    price: Decimal | None
    quote: Quote | None
    value: Decimal | None
    unrealised: Decimal | None
    unrealised_pct: Decimal | None
    change_24h: Decimal | None
    change_24h_pct: Decimal | None


@dataclass(frozen=True, slots=True)
class Sums:
    """The totals of a book."""

    value: Decimal | None
    cost: Decimal
    unrealised: Decimal | None
    unrealised_pct: Decimal | None
    realised: Decimal
    income: Decimal
    fees: Decimal
    fees_separate: Decimal
    removed: Decimal
    total_pnl: Decimal | None
    total_return_pct: Decimal | None
    paid_in: Decimal
    change_24h: Decimal | None
    change_24h_pct: Decimal | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Valuation:
    """Holdings, totals and the name of the price snapshot behind them."""

    holdings: list[Valued]
    sums: Sums
    snapshot_id: str
    unpriced: list[str]
    stale: list[tuple[str, int]]
    simulated: bool


def value_book(positions: Iterable[Position], quotes: Mapping[str, Quote], base_currency: str) -> Valuation:
    """Value positions with prices in USD, expressed in `base_currency` at our own rate of it."""
    with money_context():
        listed = list(positions)
        rate, rate_before = _rate(quotes, base_currency)
        held = [position for position in listed if position.quantity]
        valued = [_value(position, quotes, base_currency, rate, rate_before) for position in held]
        valued.sort(key=lambda item: (item.value is None, -(item.value or ZERO), item.position.asset))
        used = {item.position.asset: item.quote for item in valued if item.quote is not None}
        if base_currency != "USD" and base_currency in quotes:
            used[base_currency] = quotes[base_currency]
        return Valuation(
            holdings=valued,
            sums=_sums(listed, valued),
            snapshot_id=snapshot_id(used),
            unpriced=[item.position.asset for item in valued if item.value is None],
            stale=[
                (item.position.asset, item.quote.age_ms // 1000)
                for item in valued
                if item.quote is not None and item.quote.stale
            ],
            simulated=any(quote.simulated for quote in used.values()),
        )


def snapshot_id(quotes: Mapping[str, Quote]) -> str:
    """The same prices, the same id: a hash over asset, price, update and staleness."""
    parts = b"".join([snapshot_part(asset, quotes[asset]) for asset in sorted(quotes)])
    return hashlib.blake2b(parts, digest_size=10).hexdigest()


def snapshot_part(asset: str, quote: Quote) -> bytes:
    """What one asset puts into a snapshot id."""
    return f"{asset}|{quote.price}|{quote.epoch}|{quote.seq}|{quote.stale:d};".encode()


def _rate(quotes: Mapping[str, Quote], base_currency: str) -> tuple[Decimal | None, Decimal | None]:
    """USD per unit of the base currency, now and 24 hours ago; None when unknown."""
    if base_currency == "USD":
        return ONE, ONE
    quote = quotes.get(base_currency)
    if quote is None or quote.stale or not quote.price:
        return None, None
    return quote.price, price_before(quote)


def price_before(quote: Quote) -> Decimal | None:
    """The price 24 hours ago, None when unknown."""
    if quote.change_24h_pct is None or quote.change_24h_pct <= -HUNDRED:
        return None
    return quote.price / (ONE + quote.change_24h_pct / HUNDRED)


def _value(
    position: Position,
    quotes: Mapping[str, Quote],
    base: str,
    rate: Decimal | None,
    rate_before: Decimal | None,
) -> Valued:
    quote = quotes.get(position.asset)
    if position.asset == base:
        price: Decimal | None = ONE
        before: Decimal | None = ONE
    elif quote is None or quote.stale or rate is None:
        price = before = None
    else:
        price = quote.price / rate if rate != ONE else quote.price
        usd_before = price_before(quote)
        before = usd_before / rate_before if usd_before is not None and rate_before else None
    if price is None:
        return Valued(position, None, quote, None, None, None, None, None)
    value = position.quantity * price
    unrealised = value - position.cost
    change = None if before is None else position.quantity * (price - before)
    return Valued(
        position=position,
        price=price,
        quote=quote,
        value=value,
        unrealised=unrealised,
        unrealised_pct=unrealised / position.cost * HUNDRED if position.cost else None,
        change_24h=change,
        change_24h_pct=None if not before else (price / before - ONE) * HUNDRED,
    )


def _sums(positions: Sequence[Position], valued: Sequence[Valued]) -> Sums:
    priced = [item for item in valued if item.value is not None]
    complete = len(priced) == len(valued)
    cost = sum((item.position.cost for item in valued), ZERO)
    priced_cost = sum((item.position.cost for item in priced), ZERO)
    value = sum((item.value or ZERO for item in priced), ZERO)
    known = complete or bool(priced)
    material = not complete and cost > 0 and (cost - priced_cost) > cost * MATERIAL_UNPRICED
    realised = sum((p.realised for p in positions), ZERO)
    income = sum((p.income for p in positions), ZERO)
    separate = sum((p.fees_separate for p in positions), ZERO)
    paid_in = sum((p.flow_in for p in positions), ZERO)
    unrealised = value - priced_cost
    total = realised + unrealised + income - separate
    change, before = _change(priced)
    return Sums(
        value=value if known else None,
        cost=cost,
        unrealised=unrealised if known else None,
        unrealised_pct=unrealised / priced_cost * HUNDRED if known and priced_cost and not material else None,
        realised=realised,
        income=income,
        fees=sum((p.fees for p in positions), ZERO),
        fees_separate=separate,
        removed=sum((p.removed for p in positions), ZERO),
        total_pnl=total if known else None,
        total_return_pct=total / paid_in * HUNDRED if known and paid_in and not material else None,
        paid_in=paid_in,
        change_24h=change,
        change_24h_pct=change / before * HUNDRED if change is not None and before and not material else None,
        complete=complete,
    )


def _change(priced: Sequence[Valued]) -> tuple[Decimal | None, Decimal]:
    """The sum of q * (p - p24) over assets with both prices, and the sum of q * p24 that it is a part of."""
    known = [item for item in priced if item.change_24h is not None and item.value is not None]
    if not known:
        return None, ZERO
    change = sum((item.change_24h or ZERO for item in known), ZERO)
    now = sum((item.value or ZERO for item in known), ZERO)
    return change, now - change


def allocation(parts: Mapping[str, Decimal], digits: int = 2) -> dict[str, Decimal]:
    """Percentages of positive parts by largest remainder: the printed figures sum to exactly 100."""
    with money_context():
        return largest_remainder(list(parts.items()), sum(parts.values(), ZERO), digits)


def largest_remainder(
    parts: Sequence[tuple[str, Decimal]], total: Decimal, digits: int = 2
) -> dict[str, Decimal]:
    """As `allocation`, of parts whose sum is known, under the caller's money context; ties go by name."""
    if total <= 0:
        return {}
    unit = ONE.scaleb(-digits)
    units = missing = HUNDRED.scaleb(digits)
    wholes: dict[str, Decimal] = {}
    remainders: list[tuple[Decimal, str]] = []
    for name, part in parts:
        wholes[name], remainder = divmod(part * units, total)
        missing -= wholes[name]
        remainders.append((-remainder, name))
    if missing:
        remainders.sort()
        for _, name in remainders[: int(missing)]:
            wholes[name] += ONE
    return {name: whole * unit for name, whole in wholes.items()}


def best_and_worst(valuation: Valuation) -> tuple[Valued | None, Valued | None]:
    """By unrealised percent of cost; zero cost, unpriced and dust left out; ties by larger amount, then name."""
    total = valuation.sums.value or ZERO
    candidates = [
        item
        for item in valuation.holdings
        if item.unrealised_pct is not None and item.value is not None and item.value >= total * DUST_PART
    ]
    if not candidates:
        return None, None

    def strength(item: Valued) -> tuple[Decimal, Decimal]:
        assert item.unrealised_pct is not None
        assert item.unrealised is not None
        return item.unrealised_pct, abs(item.unrealised)

    by_name = sorted(candidates, key=lambda item: item.position.asset)
    best = max(by_name, key=strength)
    worst = min(by_name, key=lambda item: (strength(item)[0], -strength(item)[1]))
    return best, worst
