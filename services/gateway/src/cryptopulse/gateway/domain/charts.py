"""Candles in the forms that chart libraries and spreadsheets read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptopulse.gateway.domain.seed import number

FIELDS: Final = (
    "open_time", "open", "high", "low", "close", "volume", "quote_volume", "trades", "taker_buy_volume", "closed",
    "complete", "revision",
)  # fmt: skip

Bar = Mapping[str, Any]


def columns(page: Mapping[str, Any]) -> dict[str, Any]:
    """A page of candles as one list per field, in the order of the rows."""
    rows: Sequence[Bar] = page["data"]
    return {**page, "data": {name: [row[name] for row in rows] for name in FIELDS}}


def csv(page: Mapping[str, Any]) -> str:
    """A page as CSV with a header line. Every cell is a number or a truth value: nothing that a spreadsheet could run."""
    lines = [",".join(FIELDS)]
    lines += [",".join(_cell(row[name]) for name in FIELDS) for row in page["data"]]
    return "\r\n".join(lines) + "\r\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def lightweight(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A page as Lightweight Charts takes it: unique ascending times in seconds, JSON numbers, `value` the volume."""
    found: dict[int, dict[str, Any]] = {}
    for row in page["data"]:
        at = row["open_time"] // 1_000
        prices = {name: number(row[name]) for name in ("open", "high", "low", "close")}
        found[at] = {"time": at, **prices, "value": number(row["volume"])}
    return [found[at] for at in sorted(found)]
