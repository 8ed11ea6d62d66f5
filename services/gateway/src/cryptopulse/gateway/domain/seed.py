"""The second seed's shapes, translated from ours: JSON numbers without a float between, its names and its messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

DEFAULT_COINS: Final = ("bitcoin", "ethereum", "solana", "dogecoin", "cardano", "polkadot")


class SeedRefusedError(ValueError):
    """Input that the seed answers with 400 and its text in `error`."""


def number(text: str | None) -> Any:
    """A decimal text as a JSON number, digit for digit; null stays null."""
    return None if text is None else orjson.Fragment(text.encode())


def read_body(body: bytes) -> dict[str, Any]:
    """A JSON object whose numbers are decimals. Raises `SeedRefusedError`."""
    try:
        found = json.loads(body or b"{}", parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise SeedRefusedError("Invalid JSON") from error
    if not isinstance(found, dict):
        raise SeedRefusedError("Invalid JSON: an object is expected")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def portfolio_name(body: Mapping[str, Any]) -> str:
    """The name of a new portfolio. Raises `SeedRefusedError` with the seed's text."""
    name = body.get("name")
    if not isinstance(name, str) or not name.strip():
        raise SeedRefusedError("Portfolio name is required")
    return name.strip()[:200]


def transaction(body: Mapping[str, Any]) -> dict[str, Any]:
    """The seed's new transaction as ours. Unknown fields are ignored."""
    kind = body.get("transaction_type", "buy")
    if kind not in {"buy", "sell"}:
        raise SeedRefusedError("transaction_type must be 'buy' or 'sell'")
    coin = body.get("coin_id")
    if not isinstance(coin, str) or not coin.strip():
        raise SeedRefusedError("coin_id is required")
    coin = coin.strip().lower()
    made: dict[str, Any] = {
        "type": kind,
        "asset": coin[:64],
        "quantity": amount(body, "amount"),
        "price": amount(body, "price_usd"),
        "currency": "USD",
        "coin_id": coin[:100],
    }
    for name, length in (("coin_name", 200), ("coin_symbol", 40)):
        value = body.get(name)
        if isinstance(value, str) and value.strip():
            made[name] = value.strip()[:length]
    return made


def amount(body: Mapping[str, Any], name: str) -> str:
    """A positive decimal, given as a JSON number or text."""
    value = body.get(name)
    if value is None or value == "":
        raise SeedRefusedError(f"{name} is required")
    try:
        found = Decimal(str(value)) if isinstance(value, str | Decimal) else None
    except InvalidOperation:
        found = None
    if found is None or not found.is_finite() or found < 0 or abs(found.adjusted()) > 60:
        raise SeedRefusedError(f"{name} must be a positive number")
    return format(found, "f")


def transaction_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """Our transaction as the seed's T."""
    quantity = Decimal(row["quantity"] or "0")
    price = Decimal(row["price"] or "0")
    total = quantity * price
    return {
        "id": row["id"],
        "coin_id": row.get("coin_id") or str(row["asset"]).lower(),
        "coin_name": row.get("coin_name") or row["asset"],
        "coin_symbol": row.get("coin_symbol") or row["asset"],
        "amount": number(row["quantity"]),
        "price_usd": number(row["price"]),
        "transaction_type": row["type"] if row["type"] in {"buy", "sell"} else _direction(row["type"]),
        "timestamp": row["timestamp"],
        "total_value": number(format(total, "f")),
    }


def _direction(kind: str) -> str:
    """Kinds that the seed does not know, by what they do to the holding."""
    return "sell" if kind in {"withdraw", "transfer_out", "fee", "gift", "lost"} else "buy"


def portfolio_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """Our portfolio as the seed's P."""
    return {
        "id": row["id"],
        "name": row["name"],
        "created_at": row["created_at"],
        "transaction_count": row["transaction_count"],
        "transactions": [transaction_view(item) for item in row.get("transactions") or []],
    }


def metrics(holdings: Mapping[str, Any]) -> dict[str, Any]:
    """The seed's M from our holdings: value and cost of what is held, their difference, best and worst, shares."""
    totals = holdings["totals"]
    shares: dict[str, Any] = {}
    for row in holdings["holdings"]:
        share = row.get("allocation_pct")
        if share is not None and Decimal(share) > 0:
            shares[row.get("coin_name") or row["asset"]] = number(share)
    return {
        "total_value": number(totals["value"] or "0"),
        "total_cost": number(totals["cost"]),
        "total_profit_loss": number(totals["unrealised_pnl"] or "0"),
        "profit_loss_percentage": number(totals["unrealised_pnl_pct"] or "0"),
        "best_performer": performer(holdings.get("best_performer")),
        "worst_performer": performer(holdings.get("worst_performer")),
        "asset_allocation": shares,
        "complete": holdings["complete"],
    }


def performer(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """One performer, or null."""
    if row is None:
        return None
    return {
        "coin_id": row.get("coin_id") or str(row["asset"]).lower(),
        "coin_name": row.get("coin_name") or row["asset"],
        "coin_symbol": row.get("coin_symbol") or row["asset"],
        "profit_loss_percentage": number(row["profit_loss_percentage"]),
        "profit_loss": number(row["profit_loss"]),
    }


def coin_match(row: Mapping[str, Any]) -> dict[str, Any]:
    """One search result."""
    return {name: row.get(name) for name in ("id", "name", "symbol", "thumb", "market_cap_rank")}


def coin_price(row: Mapping[str, Any]) -> dict[str, Any]:
    """One coin's price."""
    updated = row.get("last_updated")
    return {
        "id": row["id"],
        "symbol": row["symbol"],
        "name": row["name"],
        "current_price": number(row.get("current_price")),
        "price_change_24h": number(row.get("price_change_24h")),
        "price_change_percentage_24h": number(row.get("price_change_percentage_24h")),
        "market_cap": number(row.get("market_cap")),
        "volume_24h": number(row.get("volume_24h")),
        "last_updated": None if updated is None else iso(updated),
        "stale": row.get("stale", False),
        "age_ms": row.get("age_ms"),
        "status": row.get("status"),
        "simulated": row.get("simulated", False),
    }


def iso(at_ms: int) -> str:
    """Milliseconds as RFC 3339 in UTC."""
    return (
        datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
