"""The coins that CoinGecko lists, and their figures at a moment: prices, caps, ranks, changes, charts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tools.venue_sim.market.assets import COINS, Asset, asset_of
from tools.venue_sim.market.prices import EPOCH_DAY, MINUTES, PriceModel

Usd = Callable[[str, int], float | None]

DAY_US: Final = 86_400_000_000
MINUTE_US: Final = 60_000_000
# Symbols are not unique on CoinGecko: this coin shares Bitcoin's.
_SHOWN_SYMBOLS: Final = {"BATCAT": "btc"}

# Prices of the other currencies in USD; coins take theirs from the market.
FIAT: Final[dict[str, float]] = {
    "usd": 1.0, "eur": 1.085, "gbp": 1.3, "jpy": 0.0066, "chf": 1.15, "cad": 0.72, "aud": 0.66, "cny": 0.14,
    "inr": 0.0119, "brl": 0.174, "krw": 0.00072, "try": 0.029, "pln": 0.25, "sek": 0.094, "nok": 0.091, "sgd": 0.76,
}  # fmt: skip
CRYPTO_QUOTES: Final = ("btc", "eth", "ltc", "bch", "bnb", "eos", "xrp", "xlm", "link", "dot", "sol")
VS_CURRENCIES: Final = (*CRYPTO_QUOTES, *FIAT, "bits", "sats")


@dataclass(frozen=True, slots=True)
class Coin:
    """One listed coin."""

    asset: Asset
    symbol: str

    @property
    def coin_id(self) -> str:
        """CoinGecko's id."""
        return self.asset.coin_id

    def image(self, size: str) -> str:
        """Address of its picture."""
        return f"https://coin-images.coingecko.com/coins/images/{self.asset.image}/{size}/{self.coin_id}.png?1696501400"


@dataclass(frozen=True, slots=True)
class Figures:
    """A coin at a moment, in USD; `price` is None for a coin without data."""

    price: float
    before_hour: float
    before_day: float
    before_week: float
    high: float
    low: float
    market_cap: float
    volume: float
    updated_us: int


def rounded(value: float) -> float | int:
    """A price with the figures CoinGecko gives: whole numbers when large, six figures else."""
    return round(value) if abs(value) >= 10_000 else float(f"{value:.6g}")


class CoinCatalogue:
    """All coins with their figures; values stand still for `cache_seconds`, as they do behind CoinGecko's cache."""

    def __init__(self, model: PriceModel, usd: Usd, cache_seconds: float, extra: list[Asset]) -> None:
        self._model = model
        self._usd = usd
        self._cache_us = max(1, int(cache_seconds * 1e6))
        listed = [
            Coin(asset, _SHOWN_SYMBOLS.get(asset.symbol, asset.symbol.lower())) for asset in (*COINS, *extra)
        ]
        self.coins: dict[str, Coin] = {coin.coin_id: coin for coin in listed}
        self._figures: tuple[int, dict[str, Figures]] = (-1, {})
        self._ranked: tuple[int, list[Coin]] = (-1, [])

    def figures(self, coin: Coin, now_us: int) -> Figures:
        """The coin's figures; computed once for each cache period."""
        at_us = now_us // self._cache_us * self._cache_us
        if self._figures[0] != at_us:
            self._figures = (at_us, {})
        known = self._figures[1].get(coin.coin_id)
        if known is None:
            known = self._figures[1][coin.coin_id] = self._compute(coin, at_us)
        return known

    def _compute(self, coin: Coin, at_us: int) -> Figures:
        asset = coin.asset
        price = self._usd(asset.symbol, at_us) or asset.price
        day = self.path(coin, at_us - DAY_US, at_us, 15)
        volume = (
            asset.volume_usd
            * 3.2
            * float(self._model.activity(at_us // DAY_US)[at_us // MINUTE_US % MINUTES])
        )
        return Figures(
            price=price,
            before_hour=self.at(coin, at_us - 3_600_000_000),
            before_day=self.at(coin, at_us - DAY_US),
            before_week=self.at(coin, at_us - 7 * DAY_US),
            high=max(price, float(day.max())),
            low=min(price, float(day.min())),
            market_cap=price * asset.supply,
            volume=volume,
            updated_us=at_us,
        )

    def at(self, coin: Coin, at_us: int) -> float:
        """Price in USD at a past moment."""
        minute = max(at_us // MINUTE_US, EPOCH_DAY * MINUTES)
        return float(np.exp(self._model.minute_logs(coin.asset.symbol, minute // MINUTES)[minute % MINUTES]))

    def path(self, coin: Coin, start_us: int, end_us: int, step_minutes: int) -> NDArray[np.float64]:
        """Prices in USD from start to end, every `step_minutes`."""
        first, last = max(start_us // MINUTE_US, EPOCH_DAY * MINUTES), end_us // MINUTE_US
        wanted = np.arange(first, last + 1, step_minutes)
        prices = np.empty(len(wanted))
        for day in range(int(first // MINUTES), int(last // MINUTES) + 1):
            inside = (wanted >= day * MINUTES) & (wanted < (day + 1) * MINUTES)
            prices[inside] = np.exp(
                self._model.minute_logs(coin.asset.symbol, day)[wanted[inside] - day * MINUTES]
            )
        return prices

    def rate(self, currency: str, now_us: int) -> float | None:
        """Price of a quote currency in USD."""
        if currency in FIAT:
            return FIAT[currency]
        if currency == "bits":
            return (self._usd("BTC", now_us) or 1.0) / 1e6
        if currency == "sats":
            return (self._usd("BTC", now_us) or 1.0) / 1e8
        if currency in CRYPTO_QUOTES:
            return self._usd(currency.upper(), now_us) or asset_of(currency.upper()).price
        return None

    def ranked(self, now_us: int) -> list[Coin]:
        """Every coin by its market cap at the last full hour, the largest first."""
        hour = now_us // 3_600_000_000
        if self._ranked[0] != hour:
            at_us = hour * 3_600_000_000
            caps = {coin.coin_id: self.at(coin, at_us) * coin.asset.supply for coin in self.coins.values()}
            self._ranked = (hour, sorted(self.coins.values(), key=lambda coin: -caps[coin.coin_id]))
        return list(self._ranked[1])


def iso(at_us: int) -> str:
    """A moment as CoinGecko writes it."""
    text = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def percent(now: float, before: float) -> float:
    """Change in percent."""
    return (now / before - 1) * 100 if before else 0.0


def market_row(
    coin: Coin, figures: Figures, rank: int, rate: float, changes: dict[str, float]
) -> dict[str, Any]:
    """A row of `/coins/markets` in the currency with this rate."""
    asset = coin.asset
    price, before = figures.price / rate, figures.before_day / rate
    cap, cap_before = figures.market_cap / rate, before * asset.supply
    top, bottom = price * 1.6, price * 0.02
    row = {
        "id": coin.coin_id,
        "symbol": coin.symbol,
        "name": asset.name,
        "image": coin.image("large"),
        "current_price": rounded(price),
        "market_cap": round(cap),
        "market_cap_rank": rank,
        "fully_diluted_valuation": round(price * (asset.max_supply or asset.supply)),
        "total_volume": round(figures.volume / rate),
        "high_24h": rounded(figures.high / rate),
        "low_24h": rounded(figures.low / rate),
        "price_change_24h": price - before,
        "price_change_percentage_24h": round(percent(price, before), 5),
        "market_cap_change_24h": cap - cap_before,
        "market_cap_change_percentage_24h": round(percent(cap, cap_before), 5),
        "circulating_supply": asset.supply,
        "total_supply": asset.supply,
        "max_supply": asset.max_supply,
        "ath": rounded(top),
        "ath_change_percentage": round(percent(price, top), 5),
        "ath_date": "2024-03-14T07:10:36.635Z",
        "atl": rounded(bottom),
        "atl_change_percentage": round(percent(price, bottom), 5),
        "atl_date": "2013-07-06T00:00:00.000Z",
        "roi": None,
        "last_updated": iso(figures.updated_us),
        "market_cap_rank_with_rehypothecated": rank,
    }
    return row | {f"price_change_percentage_{name}_in_currency": value for name, value in changes.items()}
