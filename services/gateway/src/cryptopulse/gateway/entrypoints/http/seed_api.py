"""The second seed's REST under `/api/`: a thin translation over the portfolio and indicators services, no logic of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, quote, urlencode

import orjson
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from cryptopulse.common.contracts.http.spec import Method, RouteSpec
from cryptopulse.common.errors import CryptoPulseError
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.web.problems import problem_response
from cryptopulse.gateway.application.ports import Answer
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import seed
from cryptopulse.gateway.domain.seed import SeedRefusedError
from cryptopulse.gateway.entrypoints.http.operations import Call, Handler, Operation, json_response

log = get_logger(__name__)

WANTED_SECONDS: Final = 600
IDS_MAX: Final = 100


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow")


class SeedTransaction(_Shape):
    """T: a transaction with JSON numbers."""

    id: int
    coin_id: str
    coin_name: str
    coin_symbol: str
    amount: float
    price_usd: float | None
    transaction_type: Literal["buy", "sell"]
    timestamp: str
    total_value: float


class SeedPortfolio(_Shape):
    """P: a portfolio with its transactions."""

    id: int
    name: str
    created_at: str
    transaction_count: int
    transactions: list[SeedTransaction]


class SeedPortfolios(_Shape):
    """All portfolios of the caller."""

    portfolios: list[SeedPortfolio]


class SeedTransactions(_Shape):
    """Transactions of a portfolio."""

    transactions: list[SeedTransaction]


class SeedMessage(_Shape):
    """What was done."""

    message: str


class SeedPerformer(_Shape):
    """Best or worst."""

    coin_id: str
    coin_name: str
    coin_symbol: str
    profit_loss_percentage: float
    profit_loss: float


class SeedMetrics(_Shape):
    """M: value, cost and profit of what is held."""

    total_value: float
    total_cost: float
    total_profit_loss: float
    profit_loss_percentage: float
    best_performer: SeedPerformer | None
    worst_performer: SeedPerformer | None
    asset_allocation: dict[str, float]


class SeedDebug(_Shape):
    """What the metrics were computed from."""

    transaction_count: int
    coin_ids: list[str]


class SeedAnalytics(_Shape):
    """Metrics of a portfolio."""

    metrics: SeedMetrics
    debug: SeedDebug


class SeedCoin(_Shape):
    """A search result."""

    id: str
    name: str
    symbol: str
    thumb: str | None
    market_cap_rank: int | None


class SeedCoins(_Shape):
    """Search results, best rank first."""

    coins: list[SeedCoin]


class SeedPrice(_Shape):
    """A coin's price; null where it is unknown, never 0."""

    id: str
    symbol: str
    name: str
    current_price: float | None
    price_change_24h: float | None
    price_change_percentage_24h: float | None
    market_cap: float | None
    volume_24h: float | None
    last_updated: str | None


class SeedPrices(_Shape):
    """Prices by coin id."""

    prices: dict[str, SeedPrice]


class NewPortfolio(_Shape):
    """A portfolio's name."""

    name: str


class NewTransaction(_Shape):
    """A purchase or sale; amounts as JSON numbers or texts."""

    coin_id: str
    coin_name: str | None = None
    coin_symbol: str | None = None
    amount: float | str
    price_usd: float | str
    transaction_type: Literal["buy", "sell"] = "buy"


class SearchQuery(BaseModel):
    """What to search for."""

    q: str = ""


class IdsQuery(BaseModel):
    """Comma list of coin ids."""

    ids: str = ""


async def _ask(
    use: UseCases, call: Call, service: str, method: str, path: str, *, query: str = "", body: Any = None
) -> Answer:
    headers = {"content-type": "application/json"} if body is not None else {}
    content = None if body is None else orjson.dumps(body)
    return await use.services.call(
        service, method, path, identity=call.identity, query=query, content=content, headers=headers
    )


def _refusal(request: Request, answer: Answer, missing: str) -> Response:
    """The service's refusal in the seed's words."""
    if answer.status in {404, 422} and _names_path(answer):
        return problem_response(404, request=request, detail=missing)
    problem = orjson.loads(answer.body) if answer.body else {}
    status = 400 if answer.status == 422 else answer.status
    return problem_response(
        status, request=request, detail=problem.get("detail", ""), code=problem.get("code")
    )


def _names_path(answer: Answer) -> bool:
    """True for 404, and for a 422 that is about an id in the path (an id that cannot exist)."""
    if answer.status == 404:
        return True
    faults = orjson.loads(answer.body).get("errors") or []
    return any(fault.get("parameter") in {"portfolio_id", "transaction_id"} for fault in faults)


def _id(call: Call, name: str) -> str:
    return quote(call.params[name], safe="")


def _lenient(handler: Handler) -> Handler:
    """Turn the seed's own refusals into 400 with its text."""

    async def wrapped(use: UseCases, call: Call) -> Response:
        try:
            return await handler(use, call)
        except SeedRefusedError as error:
            return problem_response(400, request=call.request, detail=str(error))

    return wrapped


async def list_portfolios(use: UseCases, call: Call) -> Response:
    """All portfolios with their transactions."""
    rows: list[Any] = []
    cursor: str | None = ""
    while cursor is not None and len(rows) < 1_000:
        more = {"cursor": cursor} if cursor else {}
        query = urlencode({"limit": 200, "include": "transactions", **more})
        answer = await _ask(use, call, "portfolio", "GET", "/portfolios", query=query)
        if answer.status != 200:
            return _refusal(call.request, answer, "Portfolio not found")
        page = orjson.loads(answer.body)
        rows += page["data"]
        cursor = page.get("next_cursor")
    return json_response({"portfolios": [seed.portfolio_view(row) for row in rows]})


async def create_portfolio(use: UseCases, call: Call) -> Response:
    """A new portfolio."""
    name = seed.portfolio_name(seed.read_body(call.body))
    answer = await _ask(use, call, "portfolio", "POST", "/portfolios", body={"name": name})
    if answer.status != 201:
        return _refusal(call.request, answer, "Portfolio not found")
    return json_response(seed.portfolio_view(orjson.loads(answer.body)), 201)


async def get_portfolio(use: UseCases, call: Call) -> Response:
    """One portfolio."""
    path = f"/portfolios/{_id(call, 'portfolio_id')}"
    answer = await _ask(use, call, "portfolio", "GET", path, query="include=transactions")
    if answer.status != 200:
        return _refusal(call.request, answer, "Portfolio not found")
    return json_response(seed.portfolio_view(orjson.loads(answer.body)))


async def delete_portfolio(use: UseCases, call: Call) -> Response:
    """Delete a portfolio."""
    answer = await _ask(use, call, "portfolio", "DELETE", f"/portfolios/{_id(call, 'portfolio_id')}")
    if answer.status >= 300:
        return _refusal(call.request, answer, "Portfolio not found")
    return json_response({"message": "Portfolio deleted"})


async def list_transactions(use: UseCases, call: Call) -> Response:
    """Transactions of a portfolio, newest first."""
    path = f"/portfolios/{_id(call, 'portfolio_id')}/transactions"
    rows: list[Any] = []
    cursor: str | None = ""
    while cursor is not None and len(rows) < 10_000:
        more = {"cursor": cursor} if cursor else {}
        answer = await _ask(use, call, "portfolio", "GET", path, query=urlencode({"limit": 200, **more}))
        if answer.status != 200:
            return _refusal(call.request, answer, "Portfolio not found")
        page = orjson.loads(answer.body)
        rows += page["data"]
        cursor = page.get("next_cursor")
    return json_response({"transactions": [seed.transaction_view(row) for row in rows]})


async def create_transaction(use: UseCases, call: Call) -> Response:
    """Record a purchase or sale; a coin that nobody knows is kept under its own name."""
    body = seed.transaction(seed.read_body(call.body))
    path = f"/portfolios/{_id(call, 'portfolio_id')}/transactions"
    await want(use, call, [body["coin_id"]])
    answer = await _ask(use, call, "portfolio", "POST", path, body=body)
    if answer.status == 422 and _is_unknown_asset(answer):
        answer = await _ask(use, call, "portfolio", "POST", path, body={**body, "custom_asset": True})
    if answer.status != 201:
        return _refusal(call.request, answer, "Portfolio not found")
    return json_response(seed.transaction_view(orjson.loads(answer.body)), 201)


def _is_unknown_asset(answer: Answer) -> bool:
    problem = orjson.loads(answer.body)
    codes = {problem.get("code")} | {fault.get("code") for fault in problem.get("errors") or []}
    return bool(codes & {"unknown-asset", "unknown-symbol", "ambiguous-symbol", "ambiguous-asset"})


async def delete_transaction(use: UseCases, call: Call) -> Response:
    """Delete a transaction."""
    path = f"/portfolios/{_id(call, 'portfolio_id')}/transactions/{_id(call, 'transaction_id')}"
    answer = await _ask(use, call, "portfolio", "DELETE", path)
    if answer.status >= 300:
        return _refusal(call.request, answer, "Transaction not found")
    return json_response({"message": "Transaction deleted"})


async def get_analytics(use: UseCases, call: Call) -> Response:
    """Metrics of a portfolio."""
    path = f"/portfolios/{_id(call, 'portfolio_id')}"
    held = await _ask(use, call, "portfolio", "GET", f"{path}/holdings")
    if held.status != 200:
        return _refusal(call.request, held, "Portfolio not found")
    about = await _ask(use, call, "portfolio", "GET", path)
    if about.status != 200:
        return _refusal(call.request, about, "Portfolio not found")
    holdings = orjson.loads(held.body)
    coins = [row.get("coin_id") or row["asset"].lower() for row in holdings["holdings"]]
    debug = {"transaction_count": orjson.loads(about.body)["transaction_count"], "coin_ids": coins}
    return json_response({"metrics": seed.metrics(holdings), "debug": debug})


async def search_coins(use: UseCases, call: Call) -> Response:
    """Search coins."""
    text = dict(parse_qsl(call.query)).get("q", "").strip()[:64]
    if not text:
        return json_response({"coins": []})
    answer = await _ask(use, call, "indicators", "GET", "/coins/search", query=urlencode({"q": text}))
    if answer.status != 200:
        return _refusal(call.request, answer, "Coin not found")
    return json_response({"coins": [seed.coin_match(row) for row in orjson.loads(answer.body)["coins"]]})


async def coin_prices(use: UseCases, call: Call) -> Response:
    """Prices of coins by id."""
    text = dict(parse_qsl(call.query)).get("ids", "")
    ids = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))[:IDS_MAX]
    if not ids:
        return json_response({"prices": {}})
    prices = await prices_of(use, call, ids)
    return json_response({"prices": {name: seed.coin_price(row) for name, row in prices.items()}})


async def prices_of(use: UseCases, call: Call, ids: list[str]) -> Mapping[str, Any]:
    """Coins with their prices from the indicators service; those without a price are asked for at CoinGecko."""
    answer = await _ask(use, call, "indicators", "GET", "/coins", query=urlencode({"ids": ",".join(ids)}))
    if answer.status != 200:
        return {}
    prices: dict[str, Any] = orjson.loads(answer.body)["prices"]
    absent = [name for name in ids if name not in prices or prices[name].get("current_price") is None]
    await want(use, call, absent)
    return prices


async def want(use: UseCases, call: Call, ids: list[str]) -> None:
    """Have CoinGecko price coins that no connected venue trades; without the ingestor that waits for the next time."""
    unpriced = [name for name in ids if not _is_traded(use, name)]
    if not unpriced:
        return
    try:
        await _ask(
            use,
            call,
            "ingestor",
            "PUT",
            "/wanted",
            body={"coin_ids": unpriced, "ttl_seconds": WANTED_SECONDS},
        )
    except CryptoPulseError as error:
        log.warning("coins could not be asked for", coins=unpriced[:10], error=str(error))


def _is_traded(use: UseCases, coin_id: str) -> bool:
    try:
        return use.market.price(use.market.resolve(coin_id).symbol) is not None
    except CryptoPulseError:
        return False


def _op(
    method: Method,
    path: str,
    name: str,
    summary: str,
    handler: Handler,
    response: type,
    *,
    scope: str | None = None,
    request: type | None = None,
    query: type | None = None,
    status: int = 200,
) -> Operation:
    spec = RouteSpec(
        method,
        f"/api{path}/",
        name,
        summary,
        scope,
        1,
        request,
        response,
        status=status,
        query=query,
        tags=("seed",),
        bucket="reads" if method == "GET" else "writes",
        errors=(400, 401, 403, 404, 409, 413, 415, 429, 503),
    )
    return Operation(
        spec,
        _lenient(handler),
        auth="scope" if scope else "optional",
        aliases=(f"/api{path}",),
    )


_ONE: Final = "/portfolios/{portfolio_id}"
_READ: Final = "portfolio:read"
_WRITE: Final = "portfolio:write"

OPERATIONS: Final = (
    _op("GET", "/portfolios", "seed_list_portfolios", "Portfolios", list_portfolios, SeedPortfolios, scope=_READ),
    _op("POST", "/portfolios", "seed_create_portfolio", "New portfolio", create_portfolio, SeedPortfolio, scope=_WRITE, request=NewPortfolio, status=201),
    _op("GET", _ONE, "seed_get_portfolio", "One portfolio", get_portfolio, SeedPortfolio, scope=_READ),
    _op("DELETE", _ONE, "seed_delete_portfolio", "Delete a portfolio", delete_portfolio, SeedMessage, scope=_WRITE),
    _op("GET", f"{_ONE}/transactions", "seed_list_transactions", "Transactions", list_transactions, SeedTransactions, scope=_READ),
    _op("POST", f"{_ONE}/transactions", "seed_create_transaction", "New transaction", create_transaction, SeedTransaction, scope=_WRITE, request=NewTransaction, status=201),
    _op("DELETE", f"{_ONE}/transactions/{{transaction_id}}", "seed_delete_transaction", "Delete a transaction", delete_transaction, SeedMessage, scope=_WRITE),
    _op("GET", f"{_ONE}/analytics", "seed_get_analytics", "Metrics of a portfolio", get_analytics, SeedAnalytics, scope=_READ),
    _op("GET", "/coins/search", "seed_search_coins", "Search coins", search_coins, SeedCoins, query=SearchQuery),
    _op("GET", "/coins/prices", "seed_get_coin_prices", "Prices of coins", coin_prices, SeedPrices, query=IdsQuery),
)  # fmt: skip
