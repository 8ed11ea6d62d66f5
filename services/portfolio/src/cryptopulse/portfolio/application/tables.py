"""CSV that leaves: our own transaction format, lossless, and the realised-gains report; safe to open in a spreadsheet.

A text that a spreadsheet would take for a formula (`=`, `+`, `-`, `@`, also in full width, tab or a line's end at its
beginning) gets an apostrophe in front; the importer of our own format takes exactly that one off again, so the round trip
is lossless.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from cryptopulse.common.contracts.http.amounts import printed_amount
from cryptopulse.portfolio.application.gains import Gains
from cryptopulse.portfolio.application.ports import Recorded

OWN_COLUMNS: Final = (
    "id", "timestamp", "type", "asset", "quantity", "price", "currency", "counter_asset", "counter_quantity", "fee",
    "fee_asset", "account", "note", "to_account", "total", "fx_rate", "fee_value", "cost_basis", "acquired_at",
    "external_id", "allow_uncovered", "price_source", "coin_id", "coin_name", "coin_symbol",
)  # fmt: skip
GAIN_COLUMNS: Final = (
    "disposed_at", "acquired_at", "asset", "quantity", "proceeds", "cost", "gain", "term", "kind", "disposal_id",
    "lot_id", "account",
)  # fmt: skip
DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_GUARDED: Final = (*DANGEROUS, "'")


def safe(text: str) -> str:
    """A free text that no spreadsheet takes for a formula; a text that begins with an apostrophe gets one more."""
    return f"'{text}" if text.startswith(_GUARDED) else text


def unsafe(text: str) -> str:
    """What `safe` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_GUARDED) else text


def time_text(at_us: int | None) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    if at_us is None:
        return ""
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(microsecond=at_us % 1_000_000)
    return at.isoformat().replace("+00:00", "Z")


def _number(value: Decimal | None) -> str:
    return "" if value is None else printed_amount(value)


def _line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue()


def transactions_csv(recorded: Iterable[Recorded]) -> Iterator[str]:
    """Our own format, a line at a time."""
    yield _line(OWN_COLUMNS)
    for item in recorded:
        yield transaction_line(item)


def transaction_line(item: Recorded) -> str:
    """One transaction in our own format."""
    tx, coin = item.transaction, item.coin
    return _line(
        [
            str(item.id), time_text(tx.at_us), tx.kind, safe(tx.asset), _number(tx.quantity), _number(tx.price),
            safe(tx.currency or ""), safe(tx.counter_asset or ""), _number(tx.counter_quantity), _number(tx.fee),
            safe(tx.fee_asset or ""), safe(tx.account), safe(tx.note or ""), safe(tx.to_account or ""),
            _number(tx.total), _number(tx.fx_rate), _number(tx.fee_value if tx.fee else None), _number(tx.cost_basis),
            time_text(tx.acquired_us), safe(tx.external_id or ""), "true" if tx.allow_uncovered else "",
            safe(tx.price_source), safe(coin.coin_id or ""), safe(coin.name or ""), safe(coin.symbol or ""),
        ]
    )  # fmt: skip


def gains_csv(gains: Gains) -> Iterator[str]:
    """The report of realised gains, a line per matched lot; losses are numbers, so they keep their sign."""
    yield _line(GAIN_COLUMNS)
    for item in gains.gains:
        match = item.match
        yield _line(
            [
                time_text(match.at_us), time_text(match.acquired_us), safe(match.asset), _number(match.quantity),
                _number(match.proceeds), _number(match.cost), _number(item.gain), "long" if item.long_term else "short",
                match.kind, f"{match.seq}#fee" if match.fee_leg else str(match.seq), safe(match.lot), safe(match.account),
            ]
        )  # fmt: skip
