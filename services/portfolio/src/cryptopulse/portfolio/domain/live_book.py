"""A watched book that is valued again and again: what did not move is kept, what many books share is worked out once.

The figures are those of `valuation.value_book` at the same prices, digit by digit, under the same snapshot id; a property
test holds the two together. Callers run under the money context of 60 digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Final, NamedTuple

from cryptopulse.portfolio.domain.money import HUNDRED, ONE, ZERO
from cryptopulse.portfolio.domain.valuation import (
    MATERIAL_UNPRICED,
    Position,
    Quote,
    largest_remainder,
    price_before,
    snapshot_part,
)

Printer = Callable[[Decimal], str]
_NOT_SEEN: Final = -1


class PriceSlot:
    """The price of one asset in one base currency, shared by all books that hold it; `changes` counts its moves."""

    __slots__ = ("_state", "asset", "base", "changes", "coin_id", "diff", "mark", "price", "text", "users")

    def __init__(self, asset: str, coin_id: str | None, base: str) -> None:
        self.asset = asset
        self.coin_id = coin_id
        self.base = base
        self.users = 0
        self.changes = 0
        self.price: Decimal | None = None
        self.diff: Decimal | None = None
        """What the price moved in 24 hours; None when unknown."""
        self.text: str | None = None
        self.mark = b""
        """The asset's part of the snapshot id; empty without a quote."""
        self._state: object = None

    def show(self, quote: Quote | None, base_quote: Quote | None, print_: Printer) -> None:
        """Take the newest quote in USD, and that of the base currency unless it is the dollar."""
        state = (_state_of(quote), _state_of(base_quote))
        if state == self._state:
            return
        self._state = state
        self.changes += 1
        price, before = self._prices(quote, base_quote)
        self.price = price
        self.diff = None if price is None or before is None else price - before
        self.text = None if price is None else print_(price)
        self.mark = b"" if quote is None else snapshot_part(self.asset, quote)

    def _prices(self, quote: Quote | None, base_quote: Quote | None) -> tuple[Decimal | None, Decimal | None]:
        if self.asset == self.base:
            return ONE, ONE
        if quote is None or quote.stale:
            return None, None
        before = price_before(quote)
        if self.base == "USD":
            return quote.price, before
        if base_quote is None or base_quote.stale or not base_quote.price:
            return None, None
        rate_before = price_before(base_quote)
        return quote.price / base_quote.price, (
            before / rate_before if before is not None and rate_before else None
        )


def _state_of(quote: Quote | None) -> object:
    return None if quote is None else (quote.price, quote.epoch, quote.seq, quote.stale, quote.change_24h_pct)


class _Line:
    """One held asset of a book with its value at the price that was seen last."""

    __slots__ = ("asset", "change", "cost", "printed", "quantity", "seen", "slot", "text", "value")

    def __init__(self, position: Position, slot: PriceSlot, print_: Printer) -> None:
        self.asset = position.asset
        self.quantity = _short(position.quantity)
        self.cost = _short(position.cost)
        self.text = print_(position.quantity)
        self.slot = slot
        self.seen = _NOT_SEEN
        self.value: Decimal | None = None
        self.change: Decimal | None = None
        self.printed: dict[str, str | None] = {}

    def refresh(self, print_: Printer) -> None:
        """Value again at the slot's price."""
        slot = self.slot
        self.seen = slot.changes
        price = slot.price
        if price is None:
            self.value = self.change = None
            value_text = unrealised_text = None
        else:
            value = self.value = self.quantity * price
            self.change = None if slot.diff is None else self.quantity * slot.diff
            value_text, unrealised_text = print_(value), print_(value - self.cost)
        self.printed = {
            "asset": self.asset, "quantity": self.text, "price": slot.text, "value": value_text,
            "unrealised_pnl": unrealised_text,
        }  # fmt: skip


class LiveFigures(NamedTuple):
    """The totals of a live value; None where they cannot be known. `holdings` are the printed lines, largest first."""

    snapshot_id: str
    value: Decimal | None
    cost: Decimal
    unrealised: Decimal | None
    unrealised_pct: Decimal | None
    change_24h: Decimal | None
    complete: bool
    allocation: dict[str, Decimal]
    holdings: list[dict[str, str | None]]


class LiveBook:
    """The held positions of one watched portfolio. `slots` are those of the positions in order, then of the base currency."""

    __slots__ = ("_by_name", "_cost", "_lines", "_print", "slots")

    def __init__(self, positions: Sequence[Position], slots: Sequence[PriceSlot], print_: Printer) -> None:
        self.slots = tuple(slots)
        self._print = print_
        lines = [_Line(position, slot, print_) for position, slot in zip(positions, slots, strict=False)]
        self._lines = sorted(
            lines, key=attrgetter("asset")
        )  # so that a stable sort by value breaks ties by name
        self._cost = sum((line.cost for line in self._lines), ZERO)
        by_asset = {slot.asset: slot for slot in slots}
        self._by_name = [by_asset[name] for name in sorted(by_asset)]

    def snapshot_id(self) -> str:
        """The id of the prices that the slots show: as `valuation.snapshot_id`."""
        return hashlib.blake2b(b"".join([slot.mark for slot in self._by_name]), digest_size=10).hexdigest()

    def value(self, snapshot: str) -> LiveFigures:
        """Everything at the prices that the slots show; `snapshot` is their id, which the caller has looked at."""
        value = change = ZERO
        priced: list[_Line] = []
        unpriced: list[_Line] = []
        known_change = False
        for line in self._lines:
            if line.seen != line.slot.changes:
                line.refresh(self._print)
            worth = line.value
            if worth is None:
                unpriced.append(line)
                continue
            priced.append(line)
            value += worth
            if line.change is not None:
                known_change = True
                change += line.change
        priced.sort(key=_by_value, reverse=True)
        complete = not unpriced
        known = complete or bool(priced)
        cost = self._cost
        priced_cost = cost if complete else sum((line.cost for line in priced), ZERO)
        material = not complete and cost > 0 and (cost - priced_cost) > cost * MATERIAL_UNPRICED
        unrealised = value - priced_cost
        return LiveFigures(
            snapshot_id=snapshot,
            value=value if known else None,
            cost=cost,
            unrealised=unrealised if known else None,
            unrealised_pct=unrealised / priced_cost * HUNDRED
            if known and priced_cost and not material
            else None,
            change_24h=change if known_change else None,
            complete=complete,
            allocation=largest_remainder([(line.asset, line.value) for line in priced if line.value], value),
            holdings=[line.printed for line in priced] + [line.printed for line in unpriced],
        )


_by_value: Final = attrgetter("value")


def _short(value: Decimal) -> Decimal:
    """Without zeros at the end, which would make every product longer; never with a positive exponent."""
    normal = value.normalize()
    exponent = normal.as_tuple().exponent
    return normal.quantize(ONE) if isinstance(exponent, int) and exponent > 0 else normal
