"""A CoinGecko-compatible read API under `/coingecko/api/v3`: an existing client needs only another base URL."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from pydantic import BaseModel, ConfigDict, Field, RootModel
from starlette.responses import Response

from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.intervals import next_open
from cryptopulse.common.contracts.prices import PriceUpdate
from cryptopulse.common.errors import Invalid, NotFound, Refused
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import coingecko
from cryptopulse.gateway.entrypoints.http.candles import bars
from cryptopulse.gateway.entrypoints.http.operations import Call, Handler, Operation, json_response

BASE: Final = "/coingecko/api/v3"
PAGE: Final = 1_000
DAY_MS: Final = 86_400_000
DAYS_MAX: Final = 10_000.0
"""More days are as many: there is nothing before them."""
_YES: Final = frozenset({"true", "1", "yes"})


class GeckoAnswer(RootModel[dict[str, Any] | list[Any]]):
    """An answer in CoinGecko's shape."""


class _Query(BaseModel):
    model_config = ConfigDict(extra="ignore")


class SimpleQuery(_Query):
    """Coins and currencies."""

    ids: str = Field("", max_length=8_000, examples=["bitcoin,ethereum"])
    symbols: str = Field("", max_length=8_000)
    vs_currencies: str = Field("usd", max_length=200)
    include_market_cap: str = Field("false", max_length=10)
    include_24hr_vol: str = Field("false", max_length=10)
    include_24hr_change: str = Field("false", max_length=10)
    include_last_updated_at: str = Field("false", max_length=10)


class MarketsQuery(_Query):
    """Which coins, in which currency, order and page."""

    vs_currency: str = Field("usd", max_length=20)
    ids: str = Field("", max_length=8_000)
    order: str = Field("market_cap_desc", max_length=40)
    per_page: int = Field(100, ge=1, le=250)
    page: int = Field(1, ge=1, le=100_000)


class RangeQuery(_Query):
    """A currency and a span."""

    vs_currency: str = Field("usd", max_length=20)
    days: str = Field("1", max_length=10, examples=["7"], description="A number of days, or `max`.")


class FindQuery(_Query):
    """A text."""

    query: str = Field("", max_length=64)


def _price(use: UseCases, coin: Coin) -> PriceUpdate | None:
    """Our consolidated price, when the asset is this coin."""
    try:
        found = use.market.resolve(coin.id)
    except Refused:
        return None
    return use.market.usd(found.base) if found.coin_id == coin.id else None


def _rate(use: UseCases, currency: str) -> Decimal | None:
    """What one unit of a currency is worth in USD; None when we cannot say."""
    if currency == "usd":
        return Decimal(1)
    found = use.market.usd(currency.upper())
    return None if found is None else found.price


def _rates(use: UseCases, text: str) -> dict[str, Decimal | None]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()][:20]
    return {name: _rate(use, name) for name in names if name in coingecko.CURRENCIES}


def _coin(use: UseCases, ident: str) -> Coin:
    found = use.market.resolver().coin(ident.strip().lower())
    if found is None:
        raise NotFound("coin not found", code="coin-not-found")
    return found


def _one_rate(use: UseCases, currency: str) -> Decimal:
    rate = _rate(use, currency.lower()) if currency.lower() in coingecko.CURRENCIES else None
    if rate is None:
        raise Invalid(
            f"invalid vs_currency: one of {', '.join(coingecko.CURRENCIES)}", code="invalid-currency"
        )
    return rate


async def get_ping(_use: UseCases, _call: Call) -> Response:
    """Alive."""
    return json_response({"gecko_says": "(V3) To the Moon!"})


async def get_simple_price(use: UseCases, call: Call) -> Response:
    """Prices by coin id; a coin that nobody knows is left out, as CoinGecko does."""
    query = call.query_model(SimpleQuery)
    rates = _rates(use, query.vs_currencies)
    wanted = {
        name: getattr(query, name).lower() in _YES
        for name in SimpleQuery.model_fields
        if name.startswith("include_")
    }
    answer: dict[str, Any] = {}
    for ident in [part.strip().lower() for part in query.ids.split(",") if part.strip()][:250]:
        coin = use.market.resolver().coin(ident)
        if coin is not None:
            answer[ident] = coingecko.simple(coin, _price(use, coin), rates, wanted)
    for symbol in [part.strip().upper() for part in query.symbols.split(",") if part.strip()][:250]:
        ident = use.market.catalogue.asset_coins.get(symbol, "")
        coin = use.market.resolver().coin(ident) if ident else None
        if coin is not None:
            answer[symbol.lower()] = coingecko.simple(coin, _price(use, coin), rates, wanted)
    return json_response(answer)


async def get_currencies(use: UseCases, _call: Call) -> Response:
    """The currencies that we can say prices in now."""
    return json_response([name for name in coingecko.CURRENCIES if _rate(use, name) is not None])


async def list_coins(use: UseCases, _call: Call) -> Response:
    """All coins."""
    coins = use.market.catalogue.coins
    rows = [{"id": coin.id, "symbol": coin.symbol.lower(), "name": coin.name} for coin in coins]
    return json_response(sorted(rows, key=lambda row: row["id"]))


async def list_markets(use: UseCases, call: Call) -> Response:
    """Coins with their market data."""
    query = call.query_model(MarketsQuery)
    rate = _one_rate(use, query.vs_currency)
    wanted = {part.strip().lower() for part in query.ids.split(",") if part.strip()}
    coins = [coin for coin in use.market.catalogue.coins if not wanted or coin.id in wanted]
    start = (query.page - 1) * query.per_page
    page = _ordered(coins, query.order)[start : start + query.per_page]
    return json_response([coingecko.market(coin, _price(use, coin), rate) for coin in page])


def _ordered(coins: Sequence[Coin], order: str) -> list[Coin]:
    field, _, direction = order.rpartition("_")
    if field == "id":
        return sorted(coins, key=lambda coin: coin.id, reverse=direction == "desc")
    name = "volume_24h" if field == "volume" else "market_cap"
    known = [coin for coin in coins if getattr(coin, name) is not None]
    known.sort(key=lambda coin: getattr(coin, name), reverse=direction != "asc")
    return [*known, *(coin for coin in coins if getattr(coin, name) is None)]


def _span(days: str) -> float:
    if days == "max":
        return 3_650.0
    try:
        value = float(days)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise Invalid("days is a number above 0, or max", code="invalid-days")
    return min(value, DAYS_MAX)


async def _rows(use: UseCases, call: Call, coin: Coin, days: float, interval: str) -> list[dict[str, Any]]:
    found = use.market.resolve(coin.id)
    to_ms = use.clock.now_ms()
    from_ms = max(0, to_ms - round(days * DAY_MS))
    rows: list[dict[str, Any]] = []
    while to_ms > from_ms and len(rows) < 10 * PAGE:
        if rows:  # a page more costs what one of candles costs
            await use.limits.count(call.identity, call.address, "reads", PAGE / 500)
        page = await bars(use, call.identity, f"{found.base}-USD", interval=interval, limit=PAGE, to_ms=to_ms)
        fresh = [row for row in page if row["open_time"] >= from_ms]
        rows = fresh + rows
        if len(fresh) < PAGE:
            break
        to_ms = fresh[0]["open_time"]
    return rows


async def get_ohlc(use: UseCases, call: Call) -> Response:
    """Candles of a coin."""
    query = call.query_model(RangeQuery)
    coin = _coin(use, call.params["coin_id"])
    _usd_only(query.vs_currency)
    days = _span(query.days)
    interval = coingecko.interval_for(days, coingecko.OHLC_INTERVALS)
    rows = await _rows(use, call, coin, days, interval)
    now = use.clock.now_ms()
    ends = [min(now, next_open(row["open_time"], interval)) for row in rows]
    return json_response(coingecko.ohlc(rows, ends))


async def get_market_chart(use: UseCases, call: Call) -> Response:
    """Closes, capitalisations and volumes of a coin."""
    query = call.query_model(RangeQuery)
    coin = _coin(use, call.params["coin_id"])
    _usd_only(query.vs_currency)
    days = _span(query.days)
    interval = coingecko.interval_for(days, coingecko.CHART_INTERVALS)
    rows = await _rows(use, call, coin, days, interval)
    return json_response(coingecko.chart(rows, coin.circulating_supply))


def _usd_only(currency: str) -> None:
    if currency.lower() != "usd":
        raise Invalid("history is kept in usd: say vs_currency=usd", code="invalid-currency")


async def get_coin(use: UseCases, call: Call) -> Response:
    """One coin with its market data."""
    coin = _coin(use, call.params["coin_id"])
    update = _price(use, coin)
    row = coingecko.market(coin, update, Decimal(1))
    amounts = {
        name: {"usd": row[name]}
        for name in ("current_price", "market_cap", "total_volume", "high_24h", "low_24h")
    }
    rest = {
        name: row[name]
        for name in ("price_change_24h", "price_change_percentage_24h", "circulating_supply", "last_updated")
    }
    image = {"thumb": coin.image, "small": coin.image, "large": coin.image}
    head = {"id": coin.id, "symbol": coin.symbol.lower(), "name": coin.name, "image": image}
    return json_response(
        {**head, "market_cap_rank": coin.market_cap_rank, "market_data": {**amounts, **rest}}
    )


async def get_search(use: UseCases, call: Call) -> Response:
    """Search coins."""
    text = call.query_model(FindQuery).query.strip()
    rows: list[Any] = []
    if text:
        query = urlencode({"q": text, "limit": 25})
        answer = await use.services.call(
            "indicators", "GET", "/coins/search", identity=call.identity, query=query
        )
        rows = orjson.loads(answer.body)["coins"] if answer.status == 200 else []
    coins = [coingecko.search_row(row) for row in rows]
    return json_response({"coins": coins, "exchanges": [], "icos": [], "categories": [], "nfts": []})


async def get_trending(use: UseCases, call: Call) -> Response:
    """What trends on our market."""
    answer = await use.services.call(
        "indicators", "GET", "/market/trending", identity=call.identity, query="limit=15"
    )
    rows = orjson.loads(answer.body)["data"] if answer.status == 200 else []
    found = []
    for score, row in enumerate(rows):
        ident = use.market.catalogue.asset_coins.get(row["symbol"].partition("-")[0], "")
        coin = use.market.resolver().coin(ident) if ident else None
        if coin is not None:
            item = {"id": coin.id, "coin_id": score, "name": coin.name, "symbol": coin.symbol.upper(),
                    "market_cap_rank": coin.market_cap_rank, "thumb": coin.image, "small": coin.image, "large": coin.image,
                    "slug": coin.id, "score": score}  # fmt: skip
            found.append({"item": item})
    return json_response({"coins": found, "nfts": [], "categories": []})


async def get_global(use: UseCases, _call: Call) -> Response:
    """The whole market."""
    rates = {name: rate for name in coingecko.CURRENCIES if (rate := _rate(use, name)) is not None}
    return json_response(
        coingecko.whole_market(use.market.catalogue.coins, rates, use.clock.now_ms() // 1_000)
    )


def _op(
    path: str, name: str, summary: str, handler: Handler, *, query: type | None = None, cost: float = 1
) -> Operation:
    errors = (401, 404, 422, 429, 503)
    return Operation(
        RouteSpec("GET", f"{BASE}{path}", f"gecko_{name}", summary, None, cost, None, GeckoAnswer, query=query,
                  tags=("coingecko",), errors=errors),
        handler,
    )  # fmt: skip


OPERATIONS: Final = (
    _op("/ping", "get_ping", "Alive", get_ping),
    _op("/simple/price", "get_simple_price", "Prices by coin id", get_simple_price, query=SimpleQuery),
    _op("/simple/supported_vs_currencies", "list_currencies", "Currencies", get_currencies),
    _op("/coins/list", "list_coins", "All coins", list_coins, cost=5),
    _op("/coins/markets", "list_markets", "Coins with market data", list_markets, query=MarketsQuery, cost=2),
    _op("/coins/{coin_id}", "get_coin", "One coin", get_coin),
    _op("/coins/{coin_id}/ohlc", "get_ohlc", "Candles of a coin", get_ohlc, query=RangeQuery, cost=2),
    _op("/coins/{coin_id}/market_chart", "get_market_chart", "Prices of a coin over time", get_market_chart, query=RangeQuery, cost=3),
    _op("/search", "search_coins", "Search coins", get_search, query=FindQuery),
    _op("/search/trending", "get_trending", "What trends", get_trending),
    _op("/global", "get_global", "The whole market", get_global),
)  # fmt: skip
