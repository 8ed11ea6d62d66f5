"""Coinbase: the current export and the older ones, which differ in names of columns and in their preamble."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from cryptopulse.portfolio.application.imports.reading import (
    Line,
    Options,
    Outcome,
    RowError,
    amount,
    amount_or_none,
    asset_name,
    exchanged,
    time_us,
)
from cryptopulse.portfolio.application.worth import Draft
from cryptopulse.portfolio.domain.transactions import FIAT, Kind

BUYS: Final = frozenset({"buy", "advanced trade buy", "advance trade buy"})
SELLS: Final = frozenset({"sell", "advanced trade sell", "advance trade sell", "card spend"})
INCOME: Final[dict[str, Kind]] = {
    "staking income": "staking", "rewards income": "reward", "reward income": "reward", "inflation reward": "staking",
    "learning reward": "reward", "coinbase earn": "reward", "interest payout": "interest",
}  # fmt: skip
MOVES: Final[dict[str, Kind]] = {
    "send": "withdraw", "receive": "deposit", "deposit": "deposit", "withdrawal": "withdraw", "subscription": "fee",
}  # fmt: skip
INTERNAL: Final = re.compile(r"^(pro|exchange) (deposit|withdrawal)$|staking transfer|unstaking")
_CONVERTED: Final = re.compile(r"Converted ([\d.,]+) (\S+) to ([\d.,]+) (\S+)")


def transactions(lines: Iterable[Line], options: Options) -> Iterator[Outcome]:
    """A row per transaction; fees include the spread, and the total is subtotal plus or minus them."""
    for line in lines:
        try:
            yield _row(line, options)
        except RowError as error:
            yield Outcome(line.number, error=str(error))


def _row(line: Line, options: Options) -> Outcome:
    kind = line["transaction type"].lower()
    if INTERNAL.search(kind):
        return Outcome(line.number, ignored="moved within Coinbase")
    at_us = time_us(line["timestamp"])
    asset = asset_name(line["asset"])
    quantity = abs(amount(line["quantity transacted"], "quantity"))
    currency = line.first("price currency", "spot price currency") or _named_currency(line)
    price = amount_or_none(
        line.first("price at transaction", "spot price at transaction", "usd spot price at transaction"),
        "price",
    )
    subtotal = amount_or_none(line.first("subtotal", "usd subtotal"), "subtotal")
    fee = amount_or_none(line.first("fees and/or spread", "fees", "usd fees"), "fees")
    fee = abs(fee) if fee else None
    more: dict[str, Any] = {
        "at_us": at_us, "account": options.account or "Coinbase", "note": line["notes"] or None, "custom_asset": True,
        "external_id": f"coinbase:{line['id']}" if line["id"] else None,
    }  # fmt: skip
    paid: dict[str, Any] = {"fee": fee, "fee_asset": currency if fee else None}
    worth: dict[str, Any] = {
        "total": abs(subtotal) if subtotal else None,
        "price": None if subtotal else price,
        "currency": currency,
    }
    if kind in BUYS or kind in SELLS:
        if worth["total"] is None and price is None:
            raise RowError("neither subtotal nor price is given")
        return Outcome(
            line.number,
            (
                Draft(
                    kind="buy" if kind in BUYS else "sell",
                    asset=asset,
                    quantity=quantity,
                    **worth,
                    **paid,
                    **more,
                ),
            ),
        )
    if kind in INCOME:
        return Outcome(
            line.number, (Draft(kind=INCOME[kind], asset=asset, quantity=quantity, **worth, **more),)
        )
    if kind == "convert":
        found = _CONVERTED.search(line["notes"])
        if found is None:
            raise RowError("the notes do not say what it was converted to")
        into, got = asset_name(found[4].rstrip(".")), amount(found[3])
        draft = exchanged(
            more.pop("at_us"),
            asset,
            quantity,
            into,
            got,
            **{k: v for k, v in more.items() if k != "custom_asset"},
        )
        if draft.kind == "trade" and worth["total"] is not None:
            draft = replace(draft, total=worth["total"], currency=currency, **paid)
        return Outcome(line.number, (draft,))
    moved = MOVES.get(kind)
    if moved is None:
        raise RowError(f"transaction type {line['transaction type']!r:.60} is not known")
    given: dict[str, Any] = {} if asset in FIAT else worth
    return Outcome(line.number, (Draft(kind=moved, asset=asset, quantity=quantity, **given, **more),))


def _named_currency(line: Line) -> str:
    """The oldest exports name the currency in their columns only."""
    if "usd spot price at transaction" in line.cells:
        return "USD"
    raise RowError("the currency of the price is missing")
