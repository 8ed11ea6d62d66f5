"""CoinGecko's answers, path by path."""

from __future__ import annotations

from typing import Any, Final

from tools.venue_sim.faults.engine import VenueFaults
from tools.venue_sim.market.market import Market
from tools.venue_sim.net.messages import Request
from tools.venue_sim.venues.coingecko.catalogue import (
    DAY_US,
    VS_CURRENCIES,
    Coin,
    CoinCatalogue,
    Figures,
    iso,
    market_row,
    percent,
    rounded,
)
from tools.venue_sim.venues.coingecko.charts import Charts, CoinGeckoError, whole

_PERIODS: Final = {"1h": 3_600_000_000, "24h": DAY_US, "7d": 7 * DAY_US, "14d": 14 * DAY_US, "30d": 30 * DAY_US,
                   "200d": 200 * DAY_US, "1y": 365 * DAY_US}  # fmt: skip


class CoinGeckoRest:
    """Every endpoint below `/api/v3/`."""

    def __init__(self, market: Market, catalogue: CoinCatalogue, faults: VenueFaults) -> None:
        self._market = market
        self._catalogue = catalogue
        self._faults = faults
        self._charts = Charts(market, catalogue, lambda request: self._vs(request)[1])

    async def answer(self, path: str, request: Request) -> Any:
        """The JSON value of a path."""
        fixed = {
            "ping": self._ping,
            "simple/price": self._simple_price,
            "simple/supported_vs_currencies": lambda _: list(VS_CURRENCIES),
            "coins/list": self._list,
            "coins/markets": self._markets,
            "search": self._search,
            "search/trending": self._trending,
            "global": self._global,
        }
        if path in fixed:
            return fixed[path](request)
        parts = path.split("/")
        if parts[0] == "coins" and len(parts) >= 2:
            coin = self._catalogue.coins.get(parts[1])
            if coin is None or self._listed_as_absent(coin):
                raise CoinGeckoError(404, "coin not found")
            details = {
                "": self._details,
                "ohlc": self._charts.ohlc,
                "market_chart": self._charts.chart,
                "market_chart/range": self._charts.chart_range,
            }
            found = details.get("/".join(parts[2:]))
            if found is not None:
                return found(coin, request)
        raise CoinGeckoError(404, "Incorrect path. Please check https://docs.coingecko.com/")

    # -- parameters

    @property
    def _now(self) -> int:
        return self._market.now_us()

    def _rate(self, currency: str) -> float:
        rate = self._catalogue.rate(currency.lower(), self._now)
        if rate is None:
            raise CoinGeckoError(422, "Invalid vs_currency")
        return rate

    def _vs(self, request: Request) -> tuple[str, float]:
        currency = request.query.get("vs_currency", "")
        if not currency:
            raise CoinGeckoError(422, "Missing parameter vs_currency")
        return currency.lower(), self._rate(currency)

    def _fault_ids(self, kind: str) -> set[str]:
        return {
            str(coin_id)
            for fault in self._faults.other
            if fault.kind == kind and self._faults.hit(fault)
            for coin_id in fault.params.get("ids", self._catalogue.coins)
        }

    def _listed_as_absent(self, coin: Coin) -> bool:
        return coin.coin_id in self._fault_ids("coin_absent")

    # -- endpoints

    @staticmethod
    def _ping(_: Request) -> Any:
        return {"gecko_says": "(V3) To the Moon!"}

    def _simple_price(self, request: Request) -> Any:
        ids, currencies = request.values("ids"), [name.lower() for name in request.values("vs_currencies")]
        if not currencies:
            raise CoinGeckoError(422, "Missing parameter vs_currencies")
        if not ids:
            wanted = {symbol.lower() for symbol in request.values("symbols")}
            ids = [coin.coin_id for coin in self._catalogue.coins.values() if coin.symbol in wanted]
        absent, empty, null = (self._fault_ids(kind) for kind in ("coin_absent", "coin_empty", "coin_null"))
        answer: dict[str, dict[str, Any]] = {}
        for coin_id in ids:
            coin = self._catalogue.coins.get(coin_id)
            if coin is None or coin_id in absent:
                continue
            row: dict[str, Any] = {}
            if coin_id not in empty:
                figures = self._catalogue.figures(coin, self._now)
                for currency in currencies:
                    row |= self._simple_fields(figures, currency, request)
                if request.query.get("include_last_updated_at") == "true":
                    row["last_updated_at"] = figures.updated_us // 1_000_000
            answer[coin_id] = dict.fromkeys(row) if coin_id in null else row
        return answer

    def _simple_fields(self, figures: Figures, currency: str, request: Request) -> dict[str, Any]:
        rate = self._catalogue.rate(currency, self._now)
        if rate is None:
            return {}
        row: dict[str, Any] = {currency: rounded(figures.price / rate)}
        if request.query.get("include_market_cap") == "true":
            row[f"{currency}_market_cap"] = figures.market_cap / rate
        if request.query.get("include_24hr_vol") == "true":
            row[f"{currency}_24h_vol"] = figures.volume / rate
        if request.query.get("include_24hr_change") == "true":
            row[f"{currency}_24h_change"] = percent(figures.price, figures.before_day)
        return row

    def _list(self, request: Request) -> Any:
        if request.query.get("status") == "inactive":
            return []
        rows = []
        for coin in sorted(self._catalogue.coins.values(), key=lambda coin: coin.coin_id):
            row: dict[str, Any] = {"id": coin.coin_id, "symbol": coin.symbol, "name": coin.asset.name}
            if request.query.get("include_platform") == "true":
                row["platforms"] = {}
            rows.append(row)
        return rows

    def _markets(self, request: Request) -> Any:
        _, rate = self._vs(request)
        now = self._now
        ranked = self._catalogue.ranked(now)
        ranks = {coin.coin_id: rank for rank, coin in enumerate(ranked, 1)}
        ids = request.values("ids")
        absent, null = self._fault_ids("coin_absent"), self._fault_ids("coin_null")
        chosen = [coin for coin in ranked if (not ids or coin.coin_id in ids) and coin.coin_id not in absent]
        order = request.query.get("order", "market_cap_desc")
        if order.startswith("volume"):
            chosen.sort(key=lambda coin: self._catalogue.figures(coin, now).volume)
        elif order.startswith("id"):
            chosen.sort(key=lambda coin: coin.coin_id)
        elif order == "market_cap_asc":
            chosen.reverse()
        if order in {"volume_desc", "id_desc"}:
            chosen.reverse()
        size = min(max(whole(request, "per_page", 100), 1), 250)
        page = max(whole(request, "page", 1), 1)
        periods = [period for period in request.values("price_change_percentage") if period in _PERIODS]
        rows = []
        for coin in chosen[(page - 1) * size : page * size]:
            figures = self._catalogue.figures(coin, now)
            changes = {
                period: percent(figures.price, self._catalogue.at(coin, now - _PERIODS[period]))
                for period in periods
            }
            row = market_row(coin, figures, ranks[coin.coin_id], rate, changes)
            if request.query.get("sparkline") == "true":
                week = self._catalogue.path(coin, now - 7 * DAY_US, now, 60)
                row["sparkline_in_7d"] = {"price": (week / rate).tolist()}
            if coin.coin_id in null:
                row |= {
                    "current_price": None,
                    "market_cap": None,
                    "market_cap_rank": None,
                    "total_volume": None,
                }
            rows.append(row)
        return rows

    def _details(self, coin: Coin, _: Request) -> Any:
        now = self._now
        figures = self._catalogue.figures(coin, now)
        rank = [one.coin_id for one in self._catalogue.ranked(now)].index(coin.coin_id) + 1
        row = market_row(coin, figures, rank, 1.0, {})
        rates = {currency: self._rate(currency) for currency in ("btc", "eur", "usd")}

        def in_all(value: float) -> dict[str, float | int]:
            return {currency: rounded(value / rate) for currency, rate in rates.items()}

        return {
            "id": coin.coin_id,
            "symbol": coin.symbol,
            "name": coin.asset.name,
            "web_slug": coin.coin_id,
            "asset_platform_id": None,
            "platforms": {"": ""},
            "detail_platforms": {"": {"decimal_place": None, "contract_address": ""}},
            "categories": ["Cryptocurrency"],
            "preview_listing": False,
            "public_notice": None,
            "additional_notices": [],
            "description": {"en": f"{coin.asset.name} in a simulated market."},
            "links": {"homepage": [""], "subreddit_url": "", "repos_url": {"github": [], "bitbucket": []}},
            "image": {size: coin.image(size) for size in ("thumb", "small", "large")},
            "country_origin": "",
            "genesis_date": None,
            "market_cap_rank": rank,
            "market_data": {
                "current_price": in_all(figures.price),
                "roi": None,
                "market_cap": in_all(figures.market_cap),
                "market_cap_rank": rank,
                "fully_diluted_valuation": in_all(
                    figures.price * (coin.asset.max_supply or coin.asset.supply)
                ),
                "total_volume": in_all(figures.volume),
                "high_24h": in_all(figures.high),
                "low_24h": in_all(figures.low),
                "price_change_24h": row["price_change_24h"],
                "price_change_percentage_24h": row["price_change_percentage_24h"],
                "price_change_percentage_7d": percent(figures.price, figures.before_week),
                "market_cap_change_24h": row["market_cap_change_24h"],
                "market_cap_change_percentage_24h": row["market_cap_change_percentage_24h"],
                "total_supply": coin.asset.supply,
                "max_supply": coin.asset.max_supply,
                "circulating_supply": coin.asset.supply,
                "last_updated": iso(figures.updated_us),
            },
            "tickers": [],
            "last_updated": iso(figures.updated_us),
        }

    def _search(self, request: Request) -> Any:
        wanted = request.query.get("query", "").strip().lower()
        ranked = self._catalogue.ranked(self._now)
        coins = [
            {
                "id": coin.coin_id,
                "name": coin.asset.name,
                "api_symbol": coin.coin_id,
                "symbol": coin.symbol.upper(),
                "market_cap_rank": rank,
                "thumb": coin.image("thumb"),
                "large": coin.image("large"),
            }
            for rank, coin in enumerate(ranked, 1)
            if wanted
            and (wanted in coin.coin_id or wanted in coin.symbol or wanted in coin.asset.name.lower())
        ]
        return {"coins": coins[:25], "exchanges": [], "icos": [], "categories": [], "nfts": []}

    def _trending(self, _: Request) -> Any:
        now = self._now
        ranked = self._catalogue.ranked(now)
        ranks = {coin.coin_id: rank for rank, coin in enumerate(ranked, 1)}
        moved = sorted(ranked, key=lambda coin: -abs(self._change(coin, now)))[:15]
        btc = self._rate("btc")
        items = []
        for score, coin in enumerate(moved):
            figures = self._catalogue.figures(coin, now)
            items.append(
                {
                    "id": coin.coin_id,
                    "coin_id": coin.asset.image,
                    "name": coin.asset.name,
                    "symbol": coin.symbol.upper(),
                    "market_cap_rank": ranks[coin.coin_id],
                    "thumb": coin.image("standard"),
                    "small": coin.image("small"),
                    "large": coin.image("large"),
                    "slug": coin.coin_id,
                    "price_btc": figures.price / btc,
                    "score": score,
                    "data": {
                        "price": figures.price,
                        "price_btc": f"{figures.price / btc:.20f}",
                        "price_change_percentage_24h": {"usd": self._change(coin, now)},
                        "market_cap": f"${figures.market_cap:,.0f}",
                        "market_cap_btc": str(figures.market_cap / btc),
                        "total_volume": f"${figures.volume:,.0f}",
                        "total_volume_btc": str(figures.volume / btc),
                        "sparkline": f"https://www.coingecko.com/coins/{coin.asset.image}/sparkline.svg",
                        "content": None,
                    },
                }
            )
        return {"coins": [{"item": item} for item in items], "nfts": [], "categories": []}

    def _change(self, coin: Coin, now: int) -> float:
        figures = self._catalogue.figures(coin, now)
        return percent(figures.price, figures.before_day)

    def _global(self, _: Request) -> Any:
        now = self._now
        every = [(coin, self._catalogue.figures(coin, now)) for coin in self._catalogue.coins.values()]
        cap = sum(figures.market_cap for _, figures in every)
        volume = sum(figures.volume for _, figures in every)
        before = sum(figures.before_day * coin.asset.supply for coin, figures in every)
        rates = {currency: self._rate(currency) for currency in ("btc", "eth", "eur", "usd")}
        largest = sorted(every, key=lambda entry: -entry[1].market_cap)[:10]
        return {
            "data": {
                "active_cryptocurrencies": len(every),
                "upcoming_icos": 0,
                "ongoing_icos": 0,
                "ended_icos": 3376,
                "markets": 4,
                "total_market_cap": {currency: cap / rate for currency, rate in rates.items()},
                "total_volume": {currency: volume / rate for currency, rate in rates.items()},
                "market_cap_percentage": {
                    coin.symbol: figures.market_cap / cap * 100 for coin, figures in largest
                },
                "market_cap_change_percentage_24h_usd": percent(cap, before),
                "updated_at": now // 1_000_000,
            }
        }
