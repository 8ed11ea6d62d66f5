"""CoinGecko's answers in our data: its field names, JSON numbers, times as it writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.contracts.values import plain
from cryptopulse.gateway.domain.price_body import inverse_free_ratio
from cryptopulse.gateway.domain.seed import iso, number

CURRENCIES: Final = ("usd", "usdt", "usdc", "eur", "btc", "eth")
OHLC_INTERVALS: Final = ((2, "30m"), (30, "4h"), (10_000, "1d"))
"""Days and the candle that CoinGecko answers with: to 2 days 30 minutes, to 30 days 4 hours; beyond, ours are daily."""
CHART_INTERVALS: Final = ((1, "5m"), (90, "1h"), (10_000, "1d"))


def interval_for(days: float, table: Sequence[tuple[int, str]]) -> str:
    """The interval of a span."""
    return next(interval for limit, interval in table if days <= limit)


def shown(value: Decimal | None) -> Any:
    """A decimal as a JSON number."""
    return None if value is None else number(plain(value))


def in_currency(value: Decimal | None, rate: Decimal | None) -> Decimal | None:
    """An amount in USD in a currency worth `rate` USD."""
    if value is None or rate is None or not rate:
        return None
    return value if rate == 1 else inverse_free_ratio(value, rate)


def price_of(coin: Coin, update: PriceUpdate | None) -> Decimal | None:
    """Our price of a coin, else CoinGecko's own as last heard."""
    return update.price if update is not None else coin.price


def simple(
    coin: Coin, update: PriceUpdate | None, rates: Mapping[str, Decimal | None], wanted: Mapping[str, bool]
) -> dict[str, Any]:
    """One coin of `/simple/price`."""
    row: dict[str, Any] = {}
    price = price_of(coin, update)
    change = update.change_24h_pct if update is not None else coin.change_24h_pct
    for currency, rate in rates.items():
        row[currency] = shown(in_currency(price, rate))
        if wanted.get("include_market_cap"):
            row[f"{currency}_market_cap"] = shown(in_currency(coin.market_cap, rate))
        if wanted.get("include_24hr_vol"):
            row[f"{currency}_24h_vol"] = shown(in_currency(coin.volume_24h, rate))
        if wanted.get("include_24hr_change"):
            row[f"{currency}_24h_change"] = shown(change)
    if wanted.get("include_last_updated_at"):
        row["last_updated_at"] = _updated_us(coin, update) // 1_000_000
    return row


def _updated_us(coin: Coin, update: PriceUpdate | None) -> int:
    return update.event_us if update is not None else coin.updated_us or 0


def market(coin: Coin, update: PriceUpdate | None, rate: Decimal | None) -> dict[str, Any]:
    """One coin of `/coins/markets`."""
    change = update.change_24h_pct if update is not None else coin.change_24h_pct
    updated = _updated_us(coin, update)
    return {
        "id": coin.id,
        "symbol": coin.symbol.lower(),
        "name": coin.name,
        "image": coin.image,
        "current_price": shown(in_currency(price_of(coin, update), rate)),
        "market_cap": shown(in_currency(coin.market_cap, rate)),
        "market_cap_rank": coin.market_cap_rank,
        "fully_diluted_valuation": None,
        "total_volume": shown(in_currency(coin.volume_24h, rate)),
        "high_24h": shown(in_currency(update.high_24h if update else None, rate)),
        "low_24h": shown(in_currency(update.low_24h if update else None, rate)),
        "price_change_24h": shown(in_currency(coin.change_24h, rate)),
        "price_change_percentage_24h": shown(change),
        "circulating_supply": shown(coin.circulating_supply),
        "total_supply": None,
        "max_supply": None,
        "last_updated": iso(updated // 1_000) if updated else None,
    }


def ohlc(rows: Sequence[Mapping[str, Any]], ends: Sequence[int]) -> list[list[Any]]:
    """Candles as CoinGecko's lists; its time is the end of the candle."""
    return [
        [end, *(number(row[name]) for name in ("open", "high", "low", "close"))]
        for row, end in zip(rows, ends, strict=True)
    ]


def chart(rows: Sequence[Mapping[str, Any]], supply: Decimal | None) -> dict[str, Any]:
    """Closes, capitalisations (at today's supply) and volumes as pairs of time and value."""
    prices, caps, volumes = [], [], []
    for row in rows:
        at = row["open_time"]
        close = Decimal(row["close"])
        prices.append([at, number(row["close"])])
        caps.append([at, None if supply is None else shown(close * supply)])
        volumes.append([at, number(row["quote_volume"])])
    return {"prices": prices, "market_caps": caps, "total_volumes": volumes}


def search_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One coin of `/search`."""
    thumb = row.get("thumb")
    return {
        "id": row["id"],
        "name": row["name"],
        "api_symbol": row["id"],
        "symbol": str(row["symbol"]).upper(),
        "market_cap_rank": row.get("market_cap_rank"),
        "thumb": thumb,
        "large": thumb,
    }


def whole_market(
    coins: Sequence[Coin], rates: Mapping[str, Decimal | None], updated_s: int
) -> dict[str, Any]:
    """`/global`: sums over the coins that we know, and their shares."""
    cap = sum((coin.market_cap for coin in coins if coin.market_cap is not None), Decimal(0))
    volume = sum((coin.volume_24h for coin in coins if coin.volume_24h is not None), Decimal(0))
    top = sorted((coin for coin in coins if coin.market_cap), key=lambda coin: -(coin.market_cap or 0))[:10]
    shares = {
        coin.symbol.lower(): shown(inverse_free_ratio(100 * coin.market_cap, cap))
        for coin in top
        if coin.market_cap is not None and cap
    }
    return {
        "data": {
            "active_cryptocurrencies": len(coins),
            "upcoming_icos": 0,
            "ongoing_icos": 0,
            "ended_icos": 0,
            "markets": None,
            "total_market_cap": {name: shown(in_currency(cap, rate)) for name, rate in rates.items()},
            "total_volume": {name: shown(in_currency(volume, rate)) for name, rate in rates.items()},
            "market_cap_percentage": shares,
            "market_cap_change_percentage_24h_usd": None,
            "updated_at": updated_s,
        }
    }
