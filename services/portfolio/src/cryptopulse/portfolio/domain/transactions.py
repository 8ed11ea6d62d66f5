"""A transaction, valued in the base currency, and the postings that it means. Rules of cash, fees and flows live here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from cryptopulse.portfolio.domain.money import ZERO
from cryptopulse.portfolio.domain.postings import INCOME_KINDS, RANK, Posting

Kind = Literal[
    "buy", "sell", "trade", "deposit", "withdraw", "transfer", "transfer_in", "transfer_out",
    "staking", "interest", "airdrop", "mining", "reward", "income",
    "fee", "gift", "lost", "split", "rename",
]  # fmt: skip
CashMode = Literal["implicit", "explicit"]

FIAT: Final = frozenset(
    {
        "USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "NZD", "SEK", "NOK",
        "DKK", "PLN", "CZK", "HUF", "RON", "BGN", "TRY", "BRL", "MXN", "ARS",
        "ZAR", "INR", "IDR", "KRW", "SGD", "HKD", "CNY", "TWD", "THB", "PHP",
        "VND", "MYR", "AED", "SAR", "ILS", "UAH", "RUB", "NGN", "KES",
    }
)  # fmt: skip
USD_STABLE: Final = frozenset({"USDT", "USDC", "BUSD", "FDUSD", "DAI", "TUSD", "USDP", "PYUSD"})


class TransactionRefusedError(ValueError):
    """A transaction that means nothing; `field` names what to mend and the text says how."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One revision of a transaction. Quantities positive; `value`, `fee_value`, `cost_basis` in the base currency.

    `value` is the main leg's worth (quantity * price) at the time, fees left out. `total` is the same in `currency`.
    """

    kind: Kind
    at_us: int
    asset: str
    quantity: Decimal
    account: str = "main"
    price: Decimal | None = None
    currency: str | None = None
    total: Decimal | None = None
    fx_rate: Decimal | None = None
    value: Decimal = ZERO
    price_source: str = "given"
    counter_asset: str | None = None
    counter_quantity: Decimal | None = None
    fee_asset: str | None = None
    fee: Decimal | None = None
    fee_value: Decimal = ZERO
    cost_basis: Decimal | None = None
    acquired_us: int | None = None
    to_account: str | None = None
    note: str | None = None
    external_id: str | None = None
    fingerprint: str | None = None
    allow_uncovered: bool = False


CLOCK_SLACK_US: Final = 5 * 60 * 1_000_000
"""How far ahead of ours a client's clock may run."""
NEEDS_VALUE: Final = (
    frozenset({"buy", "sell", "trade", "deposit", "withdraw", "transfer_in", "transfer_out", "gift"})
    | INCOME_KINDS
)
"""Kinds whose worth at the time matters for cost, income or flows."""


def check(transaction: Transaction, now_us: int) -> None:
    """Refuse what means nothing; raises `TransactionRefusedError`."""
    kind = transaction.kind
    if kind == "split":
        if transaction.counter_quantity is None:
            raise TransactionRefusedError(
                "counter_quantity", "a split says counter_quantity new units for quantity old ones"
            )
    elif kind == "trade" and (not transaction.counter_asset or transaction.counter_quantity is None):
        raise TransactionRefusedError(
            "counter_asset", "a trade says what is received: counter_asset and counter_quantity"
        )
    elif kind == "rename" and (
        not transaction.counter_asset or transaction.counter_asset == transaction.asset
    ):
        raise TransactionRefusedError("counter_asset", "a rename says the other asset it becomes")
    elif kind == "transfer" and (not transaction.to_account or transaction.to_account == transaction.account):
        raise TransactionRefusedError(
            "to_account", "a transfer says another account; transfer_out leaves the portfolio"
        )
    _check_numbers(transaction)
    if transaction.kind == "trade" and transaction.asset == transaction.counter_asset:
        raise TransactionRefusedError("counter_asset", "a trade has two different assets")
    if transaction.at_us > now_us + CLOCK_SLACK_US:
        raise TransactionRefusedError("timestamp", "the time lies in the future")
    if transaction.acquired_us is not None and transaction.acquired_us > transaction.at_us:
        raise TransactionRefusedError("acquired_at", "acquired_at lies after the transaction")


def _check_numbers(transaction: Transaction) -> None:
    for name in ("quantity", "counter_quantity"):
        number = getattr(transaction, name)
        if number is not None and number <= 0:
            raise TransactionRefusedError(
                name, f"{name} must be greater than 0; the type gives the direction"
            )
    for name in ("price", "total", "fee", "cost_basis", "fx_rate"):
        number = getattr(transaction, name)
        if number is not None and number < 0:
            raise TransactionRefusedError(name, f"{name} must not be negative")


def postings_of(transaction: Transaction, seq: int, cash_mode: CashMode) -> tuple[Posting, ...]:
    """The effects on single assets, in the base currency.

    Implicit cash: fiat is not kept, a buy is an inflow of its cost and a sale an outflow of its net proceeds. Explicit
    cash: money is an asset like others, and only deposits, withdrawals and transfers with outside are flows.
    """
    at_us = transaction.at_us
    return tuple(
        Posting._make((at_us, RANK[row[0]], seq, leg, *row))
        for leg, row in enumerate(_legs(transaction, cash_mode))
    )


_Leg = tuple[
    str, str, str, str, Decimal, Decimal, Decimal, Decimal, str | None, int | None, bool
]  # op, kind, asset, account, quantity, value, fee, flow, target, acquired_us, uncovered_ok


def _legs(tx: Transaction, mode: CashMode) -> Iterator[_Leg]:
    kind = tx.kind
    if kind in {"buy", "sell"}:
        yield from _bought_or_sold(tx, mode)
    elif kind == "trade":
        yield from _traded(tx, mode)
    elif kind in INCOME_KINDS or kind in {"deposit", "transfer_in"}:
        yield from _arrived(tx, mode)
    elif kind in {"withdraw", "transfer_out", "gift", "lost"}:
        yield from _left(tx, mode)
    elif kind == "transfer":
        if _kept(tx.asset, mode):
            yield _leg(tx, "M", "transfer", tx.asset, tx.quantity, ZERO, target=tx.to_account)
        yield from _expense(tx, mode)
    elif kind == "fee":
        if _kept(tx.asset, mode):
            yield _leg(tx, "D", "fee", tx.asset, tx.quantity, tx.value)
        else:
            yield _leg(tx, "F", "fee", tx.asset, tx.quantity, tx.value, flow=tx.value)
    elif kind == "split":
        yield _leg(tx, "S", kind, tx.asset, tx.counter_quantity or tx.quantity, tx.quantity)
    else:
        new = tx.counter_quantity or tx.quantity
        yield _leg(tx, "N", kind, tx.asset, new, tx.quantity, target=tx.counter_asset)


def _kept(asset: str, mode: CashMode) -> bool:
    return mode == "explicit" or asset not in FIAT


def _leg(
    tx: Transaction, op: str, kind: str, asset: str, quantity: Decimal, value: Decimal,
    *, fee: Decimal = ZERO, flow: Decimal = ZERO, target: str | None = None, acquired_us: int | None = None,
) -> _Leg:  # fmt: skip
    return (op, kind, asset, tx.account, quantity, value, fee, flow, target, acquired_us, tx.allow_uncovered)


def _bought_or_sold(tx: Transaction, mode: CashMode) -> Iterator[_Leg]:
    bought = tx.kind == "buy"
    flow = tx.value + tx.fee_value if bought else tx.fee_value - tx.value
    yield _leg(
        tx, "A" if bought else "D", tx.kind, tx.asset, tx.quantity, tx.value, fee=tx.fee_value, flow=flow
    )
    if mode == "explicit" and tx.currency and tx.total:
        side, sign = ("D", -1) if bought else ("A", 1)
        yield _leg(tx, side, "cash", tx.currency, tx.total, tx.value, flow=sign * tx.value)
    yield from _paid_fee(tx, mode)


def _traded(tx: Transaction, mode: CashMode) -> Iterator[_Leg]:
    assert tx.counter_asset is not None
    assert tx.counter_quantity is not None
    away, into = _kept(tx.asset, mode), _kept(tx.counter_asset, mode)
    if away:
        fee = ZERO if into else tx.fee_value
        yield _leg(tx, "D", "trade", tx.asset, tx.quantity, tx.value, fee=fee, flow=fee - tx.value)
    if into:
        yield _leg(
            tx, "A", "trade", tx.counter_asset, tx.counter_quantity, tx.value,
            fee=tx.fee_value, flow=tx.value + tx.fee_value,
        )  # fmt: skip
    yield from _paid_fee(tx, mode)


def _paid_fee(tx: Transaction, mode: CashMode) -> Iterator[_Leg]:
    """The units that paid the fee leave at market value; that value is in the main leg already."""
    if not tx.fee or not tx.fee_asset:
        return
    settled_outside = mode == "implicit" and (tx.fee_asset in FIAT or tx.fee_asset == tx.currency)
    if not settled_outside:
        yield _leg(tx, "D", "fee_leg", tx.fee_asset, tx.fee, tx.fee_value, flow=-tx.fee_value)


def _expense(tx: Transaction, mode: CashMode) -> Iterator[_Leg]:
    """A fee that belongs to no cost or proceeds: units spent at market value, an expense of its own."""
    if not tx.fee or not tx.fee_asset:
        return
    if _kept(tx.fee_asset, mode):
        yield _leg(tx, "D", "fee_expense", tx.fee_asset, tx.fee, tx.fee_value)
    else:
        yield _leg(tx, "F", "fee_expense", tx.fee_asset, tx.fee, tx.fee_value, flow=tx.fee_value)


def _arrived(tx: Transaction, mode: CashMode) -> Iterator[_Leg]:
    if not _kept(tx.asset, mode):
        yield from _expense(tx, mode)
        return
    cost = tx.value if tx.cost_basis is None else tx.cost_basis
    inflow = ZERO if tx.kind in INCOME_KINDS else tx.value
    yield _leg(
        tx, "A", tx.kind, tx.asset, tx.quantity, cost,
        fee=tx.fee_value, flow=inflow + tx.fee_value, acquired_us=tx.acquired_us,
    )  # fmt: skip
    yield from _paid_fee(tx, mode)


def _left(tx: Transaction, mode: CashMode) -> Iterator[_Leg]:
    if _kept(tx.asset, mode):
        flow = ZERO if tx.kind == "lost" else -tx.value
        yield _leg(tx, "R", tx.kind, tx.asset, tx.quantity, tx.value, flow=flow)
    yield from _expense(tx, mode)
