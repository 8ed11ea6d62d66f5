"""Reports of the portfolio service: lots, realised gains, performance, history, imports and exports."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cryptopulse.common.contracts.http.amounts import AmountOut, TimeIn, TimeOut

_Method = Literal["fifo", "lifo", "hifo", "lofo", "average"]
ImportFormat = Literal[
    "binance_trades", "binance_trades_old", "binance_history", "binance_deposits", "binance_withdrawals",
    "coinbase", "coinbase_old", "kraken_ledgers", "kraken_trades", "cointracking", "koinly", "ghostfolio", "cryptopulse",
]  # fmt: skip
Window = Literal["1d", "7d", "30d", "90d", "365d", "ytd", "all"]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- allocation --------------------------------------------------------------------------------------------------


class AllocationPart(_Out):
    """One asset's part of the value of all priced assets, in percent with two decimals."""

    asset: str
    coin_id: str | None
    coin_name: str | None
    value: AmountOut
    percent: AmountOut


class AllocationResponse(_Out):
    """Parts by largest remainder: the printed percentages sum to exactly 100."""

    portfolio_id: int
    version: int
    base_currency: str
    snapshot_id: str
    complete: bool
    total_value: AmountOut
    data: list[AllocationPart]
    unpriced_assets: list[str] = []


# --- lots and gains ----------------------------------------------------------------------------------------------


class LotsQuery(_In):
    """`method` answers what another method would have left."""

    asset: str | None = Field(default=None, max_length=64)
    method: _Method | None = None


class LotItem(_Out):
    """An open lot; `origin` names the lot it came from when it was moved or renamed."""

    lot_id: str
    origin: str
    asset: str
    account: str
    acquired_at: TimeOut
    quantity: AmountOut
    quantity_remaining: AmountOut
    cost: AmountOut
    cost_remaining: AmountOut
    unit_cost: AmountOut
    term: Literal["short", "long"]
    price: AmountOut | None
    unrealised_pnl: AmountOut | None


class LotsResponse(_Out):
    """Open lots, oldest first."""

    portfolio_id: int
    version: int
    base_currency: str
    method: _Method
    data: list[LotItem]


class RealisedQuery(_In):
    """A calendar year in UTC, a method for what-if, and the form of the answer."""

    year: int | None = Field(default=None, ge=2000, le=2100)
    method: _Method | None = None
    format: Literal["json", "csv"] = "json"


class RealisedItem(_Out):
    """A part of a lot that a disposal consumed: its trail."""

    disposal_id: str
    transaction_id: int
    asset: str
    account: str
    lot_id: str
    acquired_at: TimeOut
    disposed_at: TimeOut
    quantity: AmountOut
    proceeds: AmountOut
    cost: AmountOut
    gain: AmountOut
    term: Literal["short", "long"]
    kind: str


class RealisedYear(_Out):
    """Sums of a year."""

    year: int
    proceeds: AmountOut
    cost: AmountOut
    gain: AmountOut
    short_gain: AmountOut
    long_gain: AmountOut


class RealisedResponse(_Out):
    """Realised gains with their trail, oldest first."""

    portfolio_id: int
    version: int
    base_currency: str
    method: _Method
    years: list[RealisedYear]
    data: list[RealisedItem]


# --- performance -------------------------------------------------------------------------------------------------


class PerformanceQuery(_In):
    """A named window or `from`/`to`; `benchmark` is an asset (`BTC`) or a basket (`BTC:60,ETH:40`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    window: Window = "all"
    from_: Annotated[TimeIn | None, Field(alias="from")] = None
    to: TimeIn | None = None
    benchmark: str | None = Field(default=None, max_length=200, examples=["BTC:60,ETH:40"])
    risk_free: str = Field(default="0", pattern=r"^(0|0?\.\d{1,6})$", examples=["0.04"])


class HistoryQuery(_In):
    """The days to answer for."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    window: Window = "all"
    from_: Annotated[TimeIn | None, Field(alias="from")] = None
    to: TimeIn | None = None


class Figure(_Out):
    """A figure, or null with the reason why there is none. Fractions: 0.1 is ten percent."""

    value: float | None
    reason: str | None = None


class Contribution(_Out):
    """What one asset added: value at the end minus value at the start minus what was put into it."""

    asset: str
    gain: AmountOut
    percent_of_total: AmountOut | None


class BenchmarkResult(_Out):
    """The same flows' time-weighted return, had everything been in the benchmark."""

    name: str
    twr: Figure
    excess: Figure


class PerformanceResponse(_Out):
    """Returns are fractions. `twr` is the headline; `mwr` is money-weighted (annual when the window is at least a year)."""

    portfolio_id: int
    version: int
    base_currency: str
    from_day: date
    to_day: date
    days: int
    start_value: AmountOut
    end_value: AmountOut | None
    net_flow: AmountOut
    pnl: AmountOut | None
    twr: Figure
    twr_annualised: Figure
    xirr: Figure
    mwr_period: Figure
    multiple_roots: bool = False
    roai: Figure
    average_invested: AmountOut
    simple_return: Figure
    max_drawdown: Figure
    drawdown_from: date | None = None
    drawdown_to: date | None = None
    drawdown_recovered: date | None = None
    volatility: Figure
    sharpe: Figure
    sortino: Figure
    calmar: Figure
    best_day: Figure
    worst_day: Figure
    contributions: list[Contribution] = []
    benchmark: BenchmarkResult | None = None
    complete: bool
    warnings: list[str] = []
    gap_days: int = 0


class HistoryPoint(_Out):
    """One UTC day. `value` null when some asset had no close within 7 days; `index` is the linked TWR index from 1."""

    day: date
    value: AmountOut | None
    net_flow: AmountOut
    daily_return: float | None
    index: float | None
    complete: bool
    carried: list[str] = []


class HistoryResponse(_Out):
    """Daily values, oldest first."""

    portfolio_id: int
    version: int
    base_currency: str
    data: list[HistoryPoint]


# --- import and export -------------------------------------------------------------------------------------------


class ImportQuery(_In):
    """How to read a file. Without `format` it is told from the header. `commit` false gives a preview only.

    `oversell`: `reject` refuses rows that sell what was never bought; `flag` takes the uncovered part at zero cost.
    `utc_offset_minutes` is the zone of times without one. `stablecoin_par` takes USDT, USDC and the like at exactly
    1 USD where no rate of that time is known. `filename` helps to find a zone that only the name states.
    """

    format: ImportFormat | None = None
    commit: bool = False
    oversell: Literal["reject", "flag"] = "reject"
    utc_offset_minutes: int = Field(default=0, ge=-840, le=840)
    stablecoin_par: bool = False
    account: str | None = Field(default=None, min_length=1, max_length=64)
    filename: str | None = Field(default=None, max_length=255)


class ImportRow(_Out):
    """What became of one row of the file, by its line number."""

    row: int
    status: Literal["ready", "recorded", "duplicate", "ignored", "error"]
    code: str | None = None
    detail: str | None = None
    type: str | None = None
    asset: str | None = None
    quantity: AmountOut | None = None
    transaction_id: int | None = None


class ImportResponse(_Out):
    """Counts over all rows; `rows` lists the first 1,000, errors first."""

    portfolio_id: int
    format: str
    encoding: str
    committed: bool
    version: int
    total_rows: int
    ready: int
    recorded: int
    duplicates: int
    ignored: int
    errors: int
    rows: list[ImportRow]
    truncated: bool = False
    first_at: TimeOut | None = None
    last_at: TimeOut | None = None


class ImportProblem(_Out):
    """Why nothing was recorded."""

    code: str
    detail: str


class ImportJobResponse(_Out):
    """A long file that is imported in the background. `result` is there when it is `done`, `problem` when it `failed`.

    A file is recorded as a whole: what failed recorded nothing, and sending it again never doubles anything.
    """

    id: int
    portfolio_id: int
    state: Literal["waiting", "running", "done", "failed"]
    rows_read: int
    result: ImportResponse | None = None
    problem: ImportProblem | None = None
    created_at: TimeOut
    updated_at: TimeOut


class ExportQuery(_In):
    """The form of the export."""

    format: Literal["csv", "json"] = "csv"
