"""Rows of the schema as values of the application, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import repeat
from typing import Any, Final

from cryptopulse.portfolio.application.ports import Coin, Portfolio, Recorded, Segment
from cryptopulse.portfolio.domain.postings import Posting
from cryptopulse.portfolio.domain.transactions import Transaction
from cryptopulse.portfolio.domain.valuation import Position

PORTFOLIO: Final = (
    "id, owner_id, name, base_currency, method, cash_mode, lot_scope, fees_in_cost_basis, holding_period_days, "
    "is_default, version, transaction_count, created_at, updated_at"
)
TRANSACTION_FIELDS: Final = (
    "kind", "at_us", "asset", "quantity", "account", "price", "currency", "total", "fx_rate", "value", "price_source",
    "counter_asset", "counter_quantity", "fee_asset", "fee", "fee_value", "cost_basis", "acquired_us", "to_account",
    "note", "external_id", "fingerprint", "allow_uncovered",
)  # fmt: skip
REVISION_COLUMNS: Final = (
    "portfolio_id",
    "id",
    "revision",
    "owner_id",
    "voided",
    "created_us",
    *TRANSACTION_FIELDS,
)
LEG_COLUMNS: Final = (
    "portfolio_id", "owner_id", "at_us", "rank", "seq", "leg", "op", "kind", "asset", "account", "quantity", "value",
    "fee", "flow", "target", "acquired_us", "uncovered_ok",
)  # fmt: skip
CURRENT_COLUMNS: Final = (
    "portfolio_id", "id", "revision", "owner_id", "at_us", "asset", "kind", "account", "external_id", "fingerprint",
)  # fmt: skip


def portfolio_of(row: Mapping[str, Any]) -> Portfolio:
    """A row of `portfolio`."""
    return Portfolio(**dict(row))


def transaction_row(transaction: Transaction) -> tuple[Any, ...]:
    """The values of `TRANSACTION_FIELDS`."""
    return tuple(getattr(transaction, name) for name in TRANSACTION_FIELDS)


def recorded_of(row: Mapping[str, Any]) -> Recorded:
    """A row of `transaction_revision` joined with `asset` (`coin_id`, `coin_name`, `coin_symbol`)."""
    return Recorded(
        id=row["id"],
        revision=row["revision"],
        transaction=Transaction(**{name: _trimmed(row[name]) for name in TRANSACTION_FIELDS}),
        voided=row["voided"],
        created_us=row["created_us"],
        coin=Coin(row["asset"], row["coin_id"], row["coin_name"], row["coin_symbol"]),
    )


def _trimmed(value: Any) -> Any:
    """Postgres pads NUMERIC(60,24) with zeros; the value without them."""
    if isinstance(value, Decimal):
        normal = value.normalize()
        exponent = normal.as_tuple().exponent
        return normal.quantize(Decimal(1)) if isinstance(exponent, int) and exponent > 0 else normal
    return value


def leg_row(portfolio_id: int, owner_id: str, posting: Posting) -> tuple[Any, ...]:
    """The values of `LEG_COLUMNS`."""
    return (portfolio_id, owner_id, *posting)


def position_of(row: Mapping[str, Any]) -> Position:
    """A row of `position` joined with `asset`."""
    return Position(
        asset=row["asset"],
        quantity=row["quantity"],
        cost=row["cost"],
        bare=row["bare"],
        realised=row["realised"],
        income=row["income"],
        fees=row["fees"],
        fees_separate=row["fees_separate"],
        removed=row["removed"],
        flow_in=row["flow_in"],
        flow_out=row["flow_out"],
        coin_id=row["coin_id"],
        coin_name=row["coin_name"],
        coin_symbol=row["coin_symbol"],
        accounts={name: Decimal(text) for name, text in row["accounts"].items()},
    )


def segment_of(row: Mapping[str, Any]) -> Segment:
    """A row of `segment`."""
    return Segment(
        no=row["no"],
        postings=row["postings"],
        last_key=(row["last_at_us"], row["last_rank"], row["last_seq"], row["last_leg"]),
        matches=row["matches"],
        days=row["days"],
        state=row["state"],
        sums=row["sums"],
    )


def postings_of_arrays(row: Mapping[str, Any]) -> list[Posting]:
    """Legs that came as one array per column, decimals as text: far cheaper to read than ten thousand rows.

    A column that is the same in all of them came as that one value.
    """
    if row["at_us"] is None:
        return []
    count = len(row["at_us"])
    columns = (
        row["at_us"], row["rank"], row["seq"], row["leg"],
        *(_column(row[name], count) for name in ("op", "kind", "asset", "account")),
        *(_decimals(row[name].split(" ")) for name in ("quantity", "value", "fee", "flow")),
        *(_column(row[name], count) for name in ("target", "acquired_us", "uncovered_ok")),
    )  # fmt: skip
    return list(map(_posting, zip(*columns, strict=False)))


_posting: Final = partial(tuple.__new__, Posting)
"""`Posting._make` without its check of the length, which the columns have."""


def _column(values: Sequence[Any], count: int) -> Iterable[Any]:
    return values if len(values) == count else repeat(values[0], count)


def _decimals(texts: Sequence[str]) -> list[Decimal]:
    """Each different text is read once where many are alike, as fees are."""
    different = set(texts)
    if 2 * len(different) > len(texts):
        return list(map(Decimal, texts))
    known = {text: Decimal(text) for text in different}
    return [known[text] for text in texts]
