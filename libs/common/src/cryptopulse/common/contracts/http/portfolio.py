"""The portfolio service's HTTP: requests, answers and the list of its endpoints. Amounts are decimal strings."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cryptopulse.common.contracts.http.amounts import AmountIn, AmountOut, LenientAmountIn, TimeIn, TimeOut
from cryptopulse.common.contracts.http.portfolio_reports import (
    AllocationResponse,
    ExportQuery,
    HistoryQuery,
    HistoryResponse,
    ImportJobResponse,
    ImportQuery,
    ImportResponse,
    LotsQuery,
    LotsResponse,
    PerformanceQuery,
    PerformanceResponse,
    RealisedQuery,
    RealisedResponse,
)
from cryptopulse.common.contracts.http.spec import WRITE_ERRORS, RouteSpec

Method = Literal["fifo", "lifo", "hifo", "lofo", "average"]
CashMode = Literal["implicit", "explicit"]
LotScope = Literal["portfolio", "account"]
TransactionType = Literal[
    "buy", "sell", "trade", "deposit", "withdraw", "transfer", "transfer_in", "transfer_out",
    "staking", "interest", "airdrop", "mining", "reward", "income",
    "fee", "gift", "lost", "split", "rename",
]  # fmt: skip
AssetName = Annotated[str, Field(min_length=1, max_length=64, examples=["BTC"])]
AccountName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- portfolios --------------------------------------------------------------------------------------------------


class PortfolioCreate(_In):
    """A new portfolio. Only `name` is needed."""

    name: str = Field(min_length=1, max_length=200, examples=["Long term"])
    base_currency: str = Field(default="USD", pattern=r"^[A-Z0-9]{2,10}$")
    method: Method = "fifo"
    cash_mode: CashMode = "implicit"
    lot_scope: LotScope = "portfolio"
    fees_in_cost_basis: bool = True
    holding_period_days: int = Field(default=365, ge=0, le=36500)


class PortfolioPatch(_In):
    """Settings to change; a change of method, scope or fee policy replays the books."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    method: Method | None = None
    lot_scope: LotScope | None = None
    fees_in_cost_basis: bool | None = None
    holding_period_days: int | None = Field(default=None, ge=0, le=36500)


class TransactionResponse(_Out):
    """A recorded transaction at its newest revision.

    `price` and `total` are in `currency`; `value` is the same in the portfolio's base currency at `fx_rate`.
    `coin_id`, `coin_name` and `coin_symbol` describe the asset where it is known. `price_source` says where a
    price that the caller left out came from: `given`, `live`, `candle`.
    """

    id: int
    portfolio_id: int
    revision: int
    type: TransactionType
    asset: str
    coin_id: str | None = None
    coin_name: str | None = None
    coin_symbol: str | None = None
    quantity: AmountOut
    price: AmountOut | None = None
    currency: str | None = None
    total: AmountOut | None = None
    value: AmountOut | None = None
    fx_rate: AmountOut | None = None
    price_source: str = "given"
    counter_asset: str | None = None
    counter_quantity: AmountOut | None = None
    fee: AmountOut | None = None
    fee_asset: str | None = None
    fee_value: AmountOut | None = None
    cost_basis: AmountOut | None = None
    acquired_at: TimeOut | None = None
    account: str
    to_account: str | None = None
    timestamp: TimeOut
    note: str | None = None
    external_id: str | None = None
    allow_uncovered: bool = False
    voided: bool = False
    created_at: TimeOut


class PortfolioResponse(_Out):
    """A portfolio. `version` rises with every change and is its ETag; `transactions` only with `include=transactions`."""

    id: int
    name: str
    base_currency: str
    method: Method
    cash_mode: CashMode
    lot_scope: LotScope
    fees_in_cost_basis: bool
    holding_period_days: int
    version: int
    is_default: bool
    transaction_count: int
    created_at: TimeOut
    updated_at: TimeOut
    transactions: list[TransactionResponse] | None = None


class PortfolioList(_Out):
    """Portfolios of the caller, oldest first."""

    data: list[PortfolioResponse]
    next_cursor: str | None = None


class PortfolioListQuery(_In):
    """Paging, and whether transactions come along (newest 1,000 each)."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=512)
    include: Literal["transactions"] | None = None


class PortfolioQuery(_In):
    """Whether transactions come along (newest 1,000)."""

    include: Literal["transactions"] | None = None


# --- transactions ------------------------------------------------------------------------------------------------


class TransactionCreate(_In):
    """A transaction. Quantities are positive; the type gives the direction.

    buy, sell: `quantity` of `asset` at `price` (or for `total`) in `currency`. trade: `asset` and `quantity` are given
    away for `counter_asset` and `counter_quantity`. deposit, withdraw: money or coins from or to outside.
    transfer: between two accounts of this portfolio; the fee is on top of `quantity`. transfer_in, transfer_out: with
    basis (`cost_basis`, `acquired_at`) from or to outside. staking, interest, airdrop, mining, reward, income: new units
    at market value. fee: units or money spent. gift, lost: units gone without gain. split: `counter_quantity` new units
    for `quantity` old ones. rename: all of `asset` becomes `counter_asset`, `counter_quantity` new for `quantity` old.
    `asset` is a symbol (`BTC`) or a CoinGecko id (`bitcoin`); `fee` is in `fee_asset` (default: `currency`).
    """

    type: TransactionType
    asset: AssetName
    quantity: AmountIn | None = None
    price: AmountIn | None = None
    total: AmountIn | None = None
    currency: str | None = Field(default=None, pattern=r"^[A-Z0-9]{2,10}$")
    fx_rate: AmountIn | None = None
    counter_asset: AssetName | None = None
    counter_quantity: AmountIn | None = None
    fee: AmountIn | None = None
    fee_asset: AssetName | None = None
    fee_price: AmountIn | None = None
    cost_basis: AmountIn | None = None
    acquired_at: TimeIn | None = None
    account: AccountName = "main"
    to_account: AccountName | None = None
    timestamp: TimeIn | None = None
    note: str | None = Field(default=None, max_length=2000)
    external_id: str | None = Field(default=None, min_length=1, max_length=200)
    coin_id: str | None = Field(default=None, min_length=1, max_length=100)
    coin_name: str | None = Field(default=None, max_length=200)
    coin_symbol: str | None = Field(default=None, max_length=40)
    custom_asset: bool = False
    allow_uncovered: bool = False


class TransactionPatch(_In):
    """Fields to change; what is left out stays, null clears. The history with the old revision removed is checked."""

    type: TransactionType | None = None
    asset: AssetName | None = None
    quantity: AmountIn | None = None
    price: AmountIn | None = None
    total: AmountIn | None = None
    currency: str | None = Field(default=None, pattern=r"^[A-Z0-9]{2,10}$")
    fx_rate: AmountIn | None = None
    counter_asset: AssetName | None = None
    counter_quantity: AmountIn | None = None
    fee: AmountIn | None = None
    fee_asset: AssetName | None = None
    fee_price: AmountIn | None = None
    cost_basis: AmountIn | None = None
    acquired_at: TimeIn | None = None
    account: AccountName | None = None
    to_account: AccountName | None = None
    timestamp: TimeIn | None = None
    note: str | None = Field(default=None, max_length=2000)
    allow_uncovered: bool | None = None


class TransactionList(_Out):
    """Transactions, newest first."""

    data: list[TransactionResponse]
    next_cursor: str | None = None


class TransactionListQuery(_In):
    """Filters and paging."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=512)
    asset: str | None = Field(default=None, max_length=64)
    type: TransactionType | None = None
    account: str | None = Field(default=None, max_length=64)


class RevisionList(_Out):
    """Every revision of one transaction, oldest first; a void is a revision too."""

    data: list[TransactionResponse]


# --- holdings ----------------------------------------------------------------------------------------------------


class Holding(_Out):
    """One asset held. Null where the price is unknown or stale; percentages in percent."""

    asset: str
    symbol: str
    coin_id: str | None = None
    coin_name: str | None = None
    coin_symbol: str | None = None
    quantity: AmountOut
    average_cost: AmountOut
    average_price: AmountOut
    cost: AmountOut
    price: AmountOut | None
    price_age_ms: int | None = None
    price_status: str | None = None
    value: AmountOut | None
    unrealised_pnl: AmountOut | None
    unrealised_pnl_pct: AmountOut | None
    realised_pnl: AmountOut
    income: AmountOut
    fees: AmountOut
    price_change_24h: AmountOut | None = None
    price_change_24h_pct: AmountOut | None = None
    allocation_pct: AmountOut | None = None
    accounts: dict[str, AmountOut] = {}


class Totals(_Out):
    """Sums in the base currency over priced assets; `complete` false when some could not be priced.

    `total_pnl` = realised + unrealised + income - `fees_separate`. `total_return_pct` is the simple one: total P&L over
    all capital paid in.
    """

    value: AmountOut | None
    cost: AmountOut
    unrealised_pnl: AmountOut | None
    unrealised_pnl_pct: AmountOut | None
    realised_pnl: AmountOut
    income: AmountOut
    fees: AmountOut
    fees_separate: AmountOut
    removed_cost: AmountOut
    total_pnl: AmountOut | None
    total_return_pct: AmountOut | None
    paid_in: AmountOut
    price_change_24h: AmountOut | None = None
    price_change_24h_pct: AmountOut | None = None
    complete: bool


class Performer(_Out):
    """The best or worst asset by unrealised percent of cost."""

    asset: str
    coin_id: str | None
    coin_name: str | None
    coin_symbol: str | None
    profit_loss_percentage: AmountOut
    profit_loss: AmountOut


class StaleAsset(_Out):
    """An asset whose newest price is too old to use."""

    asset: str
    age_s: int


class MissingUnits(_Out):
    """Units that were disposed of without any acquisition on record: taken at zero cost, on request only."""

    transaction_id: int
    asset: str
    found: AmountOut
    missing: AmountOut


class HoldingsResponse(_Out):
    """Holdings and totals at one snapshot of prices; the same `snapshot_id` means the same prices."""

    portfolio_id: int
    version: int
    base_currency: str
    method: Method
    as_of: TimeOut
    snapshot_id: str
    complete: bool
    simulated: bool
    holdings: list[Holding]
    totals: Totals
    unpriced_assets: list[str] = []
    stale_assets: list[StaleAsset] = []
    missing: list[MissingUnits] = []
    best_performer: Performer | None = None
    worst_performer: Performer | None = None


class HoldingsQuery(_In):
    """`as_of` values the book at a past time with closes; `method` answers what another method would have given."""

    as_of: TimeIn | None = None
    method: Method | None = None


# --- the default portfolio, in short form ------------------------------------------------------------------------


class EntryCreate(_In):
    """A purchase or sale in short form; without `price` the live price is taken."""

    symbol: AssetName
    quantity: LenientAmountIn
    price: LenientAmountIn | None = None
    side: Literal["buy", "sell"] = "buy"
    fee: LenientAmountIn | None = None
    timestamp: TimeIn | None = None


class EntryResponse(_Out):
    """The entry as recorded in the caller's default portfolio."""

    id: int
    portfolio_id: int
    symbol: str
    side: Literal["buy", "sell"]
    quantity: AmountOut
    price: AmountOut
    price_source: str
    fee: AmountOut
    total: AmountOut
    timestamp: TimeOut


# --- watching ----------------------------------------------------------------------------------------------------


class WatchRequest(_In):
    """Portfolios whose live value someone looks at, until `ttl_seconds` from now; asked again before it ends."""

    portfolio_ids: list[int] = Field(max_length=20_000)
    ttl_seconds: int = Field(default=30, ge=1, le=600)


class WatchResponse(_Out):
    """How many of them exist and are watched now."""

    watched: int


class Deleted(_Out):
    """What was deleted."""

    id: int
    deleted: Literal[True] = True


_READ: Final = "portfolio:read"
_WRITE: Final = "portfolio:write"
_ONE: Final = "/portfolios/{portfolio_id}"


def _read(path: str, operation: str, summary: str, response: type, **more: Any) -> RouteSpec:
    return RouteSpec(
        "GET",
        path,
        operation,
        summary,
        _READ,
        more.pop("cost", 1.0),
        None,
        response,
        tags=("portfolio",),
        **more,
    )


def _write(
    method: Literal["POST", "PATCH", "DELETE"], path: str, operation: str, summary: str,
    request: type | None, response: type, **more: Any,
) -> RouteSpec:  # fmt: skip
    return RouteSpec(
        method, path, operation, summary, _WRITE, more.pop("cost", 1.0), request, response,
        bucket=more.pop("bucket", "writes"), errors=WRITE_ERRORS, tags=("portfolio",), **more,
    )  # fmt: skip


ROUTES: Final[tuple[RouteSpec, ...]] = (
    _read("/portfolio", "get_default_portfolio", "Holdings and totals of the default portfolio", HoldingsResponse, cost=2.0),
    _write("POST", "/portfolio", "create_portfolio_entry", "Add a purchase or sale to the default portfolio", EntryCreate, EntryResponse, status=201),
    _read("/portfolios", "list_portfolios", "Your portfolios", PortfolioList, query=PortfolioListQuery),
    _write("POST", "/portfolios", "create_portfolio", "Create a portfolio", PortfolioCreate, PortfolioResponse, status=201),
    _read(_ONE, "get_portfolio", "One portfolio", PortfolioResponse, query=PortfolioQuery),
    _write("PATCH", _ONE, "update_portfolio", "Change a portfolio's settings", PortfolioPatch, PortfolioResponse),
    _write("DELETE", _ONE, "delete_portfolio", "Delete a portfolio with its books", None, Deleted),
    _read(f"{_ONE}/transactions", "list_transactions", "Transactions of a portfolio", TransactionList, query=TransactionListQuery),
    _write("POST", f"{_ONE}/transactions", "create_transaction", "Record a transaction", TransactionCreate, TransactionResponse, status=201),
    _write(
        "POST", f"{_ONE}/transactions/import", "import_transactions", "Import a file of transactions", None, ImportResponse,
        query=ImportQuery, cost=10.0, bucket="imports",
        media_types=("text/csv", "application/json", "application/octet-stream"),
        description="The body is the file as exported. Unless `commit` is true nothing is recorded: the answer is the preview. "
        "A file of more than 256 KiB is worked on in the background: 202 with the import to ask for.",
        body_limit=16 * 1024 * 1024, more_responses=((202, ImportJobResponse),),
    ),
    _read(f"{_ONE}/imports/{{job_id}}", "get_import", "How far the import of a long file is, and its outcome", ImportJobResponse),
    _read(f"{_ONE}/transactions/{{transaction_id}}", "get_transaction", "One transaction", TransactionResponse),
    _write("PATCH", f"{_ONE}/transactions/{{transaction_id}}", "update_transaction", "Edit a transaction", TransactionPatch, TransactionResponse),
    _write("DELETE", f"{_ONE}/transactions/{{transaction_id}}", "delete_transaction", "Void a transaction", None, Deleted),
    _read(f"{_ONE}/transactions/{{transaction_id}}/revisions", "list_transaction_revisions", "Every revision of a transaction", RevisionList),
    _read(f"{_ONE}/holdings", "get_holdings", "Holdings and value, live or as of a time", HoldingsResponse, query=HoldingsQuery, cost=2.0),
    _read(f"{_ONE}/allocation", "get_allocation", "Parts of the value, summing to 100 percent", AllocationResponse, cost=2.0),
    _read(f"{_ONE}/performance", "get_performance", "Returns and risk over a window", PerformanceResponse, query=PerformanceQuery, cost=5.0),
    _read(f"{_ONE}/history", "get_portfolio_history", "Daily values", HistoryResponse, query=HistoryQuery, cost=5.0),
    _read(f"{_ONE}/lots", "list_lots", "Open lots", LotsResponse, query=LotsQuery, cost=2.0),
    _read(
        f"{_ONE}/realised", "list_realised", "Realised gains by year", RealisedResponse, query=RealisedQuery, cost=5.0,
        response_media_types=("application/json", "text/csv"),
    ),
    _read(
        f"{_ONE}/export", "export_transactions", "All transactions as our own CSV or JSON", TransactionList, query=ExportQuery, cost=10.0,
        bucket="imports", response_media_types=("text/csv", "application/json"),
    ),
    RouteSpec(
        "PUT", "/watch", "watch_portfolios", "Keep live values of portfolios coming", None, 0.0, WatchRequest, WatchResponse,
        tags=("internal",), public=False,
    ),
)  # fmt: skip
