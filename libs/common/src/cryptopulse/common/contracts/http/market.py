"""Market data over HTTP: prices, candles, indicators, symbols, coins and trends, as the indicators service answers.

Decimals are strings without an exponent, times integer milliseconds UTC unless a name says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.prices import PriceStatus

DecimalText = Annotated[str, Field(description="An exact decimal as plain text.", examples=["67012.35"])]
Milliseconds = Annotated[
    int, Field(description="Milliseconds since 1970, UTC.", examples=[1_723_161_240_000])
]
PublicInterval = Literal["1m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w", "1M"]
MAX_LIMIT: Final = 1000
CHANGE_WINDOWS: Final = ("1m", "5m", "15m", "1h", "4h", "24h", "7d", "30d")
ChangeWindow = Literal["1m", "5m", "15m", "1h", "4h", "24h", "7d", "30d"]


class Answer(BaseModel):
    """Base of all answers: more fields may come, known ones never go."""

    model_config = ConfigDict(extra="allow")


class Parameters(BaseModel):
    """Base of query parameters: an unknown one is an error that names it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


# --- prices ------------------------------------------------------------------------------------------------------


class PriceQuery(Parameters):
    """Which price of a symbol."""

    source: str | None = Field(
        None, max_length=32, description="`consolidated` (default) or a venue, e.g. `binance`."
    )
    max_age_ms: int | None = Field(
        None, ge=1, description="503 `stale-price` when the newest price is older than this."
    )


class SourceExcluded(Answer):
    """A source that was seen and not used, and why."""

    source: str
    reason: str = Field(examples=["outlier"])


class Price(Answer):
    """The newest price of a symbol. `ts` is the venue's time, `received_at` ours; staleness is judged on ours."""

    symbol: str = Field(examples=["BTC-USD"])
    price: DecimalText
    ts: Milliseconds
    received_at: Milliseconds
    source: str = Field(examples=["consolidated"])
    status: PriceStatus
    stale: bool
    age_ms: int
    bid: DecimalText | None = None
    ask: DecimalText | None = None
    change_24h_pct: DecimalText | None = None
    high_24h: DecimalText | None = None
    low_24h: DecimalText | None = None
    volume_24h: DecimalText | None = None
    confidence: DecimalText | None = Field(
        None, description="Half the spread of the sources around the price."
    )
    sources_used: list[str] = []
    excluded: list[SourceExcluded] = []
    simulated: bool = False
    epoch: int = 0
    seq: int = 0


# --- candles -----------------------------------------------------------------------------------------------------


class CandleQuery(Parameters):
    """A range of candles, of any length, in pages of `limit`, oldest first. Without `from` the newest `limit` before `to`."""

    interval: PublicInterval = Field(
        "1h",
        description="Length of a candle; weeks open on Monday, all in UTC. Of 1s there is only the stream: `candles:1s`.",
    )
    from_: str | None = Field(
        None, alias="from", description="Inclusive; milliseconds or RFC 3339.", max_length=40
    )
    to: str | None = Field(None, description="Exclusive; milliseconds or RFC 3339.", max_length=40)
    limit: int = Field(500, ge=1, le=MAX_LIMIT)
    source: str | None = Field(
        None,
        max_length=32,
        description="`consolidated` (default), a venue, or `coingecko`, which answers by default where no connected "
        "venue trades the coin (30m, 1h, 4h, 12h and 1d; prices without volumes); `source` of the answer says so.",
    )
    cursor: str | None = Field(None, max_length=400, description="`next_cursor` of the previous page.")

    @field_validator("interval", mode="before")
    @classmethod
    def _is_stored(cls, interval: object) -> object:
        if interval == "1s":
            raise PydanticCustomError("live_only", "1s is live only: subscribe to candles:1s on /v1/ws")
        return interval


MAX_SPAN_BARS: Final = 5_000
"""Bars that the spans of one request may hold together."""


class CandleSpansQuery(Parameters):
    """Stored candles of many ranges at once, between services: `spans` holds `from-to` in ms, separated by commas."""

    interval: PublicInterval
    source: str = Field(max_length=32)
    spans: str = Field(max_length=16_000, pattern=r"^\d{1,14}-\d{1,14}(,\d{1,14}-\d{1,14})*$")


class CandleRow(Answer):
    """One candle. `complete` is false while trades of it are known to be missing; `revision` counts corrections.

    `trades` 0 with a volume above 0: the venue does not tell the count of its past candles, nor the taker's volume
    (Coinbase); `quote_volume` is then estimated as volume x (high + low + close) / 3.
    """

    open_time: Milliseconds
    open: DecimalText
    high: DecimalText
    low: DecimalText
    close: DecimalText
    volume: DecimalText
    quote_volume: DecimalText
    trades: int
    taker_buy_volume: DecimalText
    closed: bool
    complete: bool
    revision: int
    simulated: bool = False


class CandlePage(Answer):
    """A page of candles, oldest first; the newest may be the forming one (`closed` false)."""

    symbol: str
    interval: PublicInterval
    source: str
    data: list[CandleRow]
    next_cursor: str | None = None


# --- indicators --------------------------------------------------------------------------------------------------


class IndicatorQuery(BaseModel):
    """Which indicators of a symbol. Parameters of an indicator may follow as `rsi.period=7` or inside the name, `rsi_7`."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    interval: PublicInterval = "1h"
    names: str | None = Field(
        None,
        max_length=600,
        description="Comma list of indicators or outputs; all when absent.",
        examples=["rsi,macd"],
    )
    source: str | None = Field(None, max_length=32)
    closed: bool = Field(False, description="Only the newest closed bar's values, never the forming bar's.")


class WarmupState(Answer):
    """How many bars the values rest on, how many they need, and whether every seeding agrees by now."""

    have: int
    needed: int
    converged: bool


class IndicatorValues(Answer):
    """Values at one bar; null while undefined, never 0. `closed` false: of the forming bar."""

    symbol: str
    interval: PublicInterval
    source: str
    open_time: Milliseconds
    closed: bool
    revision: int
    as_of: Milliseconds
    values: dict[str, float | None] = Field(examples=[{"rsi_14": 55.1, "macd": 12.5}])
    warmup: WarmupState
    engine: dict[str, str] = Field(
        {}, description="Outputs that another engine than ours computed, e.g. `ta`."
    )
    anchor: Milliseconds | None = Field(
        None, description="First bar of the fold: path-dependent values count from it."
    )
    stale: bool = False
    age_ms: int = 0
    status: str = "ok"
    simulated: bool = False


class IndicatorParameter(Answer):
    """One parameter of an indicator and its bounds."""

    name: str
    default: float
    minimum: float
    maximum: float
    integer: bool


class IndicatorDefinition(Answer):
    """One indicator: what it gives, its parameters, its formula and who computes it."""

    name: str = Field(examples=["rsi"])
    title: str
    outputs: list[str] = Field(examples=[["rsi_14"]])
    parameters: list[IndicatorParameter]
    formula: str
    needed: int = Field(description="Bars until the first value, with default parameters.")
    engine: str = Field("cryptopulse", examples=["cryptopulse", "ta"])
    live: bool = Field(description="Part of the live set (a forming value each second).")


class IndicatorCatalogue(Answer):
    """All indicators."""

    data: list[IndicatorDefinition]
    next_cursor: str | None = None


class IndicatorHistoryQuery(BaseModel):
    """A range of one indicator's values, of any length, in pages of `limit`, oldest first; parameters as `rsi.period=7` or `period=7`."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    interval: PublicInterval = "1h"
    from_: str | None = Field(None, alias="from", max_length=40)
    to: str | None = Field(None, max_length=40)
    limit: int = Field(500, ge=1, le=MAX_LIMIT)
    source: str | None = Field(None, max_length=32)
    cursor: str | None = Field(None, max_length=400, description="`next_cursor` of the previous page.")
    engine: Literal["cryptopulse", "ta"] = Field(
        "cryptopulse", description="`ta`: computed by the ta package."
    )


class IndicatorPoint(Answer):
    """Values at one closed bar."""

    open_time: Milliseconds
    close: DecimalText
    values: dict[str, float | None]


class IndicatorHistory(Answer):
    """A page of values, oldest first, folded over the stored candles exactly as live values are."""

    symbol: str
    interval: PublicInterval
    source: str
    name: str
    parameters: dict[str, float]
    engine: str
    anchor: Milliseconds | None = None
    data: list[IndicatorPoint]
    next_cursor: str | None = None


class SignalQuery(Parameters):
    """Which signals, newest first."""

    symbol: str | None = Field(None, max_length=64)
    kind: str | None = Field(None, max_length=40, examples=["rsi_oversold"])
    interval: PublicInterval | None = None
    status: Literal["pending", "confirmed", "withdrawn"] | None = None
    limit: int = Field(50, ge=1, le=200)


class SignalRow(Answer):
    """A cross, zone, squeeze, breakout, flip or spike."""

    id: str
    kind: str
    symbol: str
    source: str
    interval: PublicInterval
    open_time: Milliseconds
    status: Literal["pending", "confirmed", "withdrawn"]
    direction: Literal["up", "down", "none"]
    at: Milliseconds
    values: dict[str, float | None]
    simulated: bool = False


class SignalList(Answer):
    """Signals, newest first."""

    data: list[SignalRow]
    next_cursor: str | None = None


# --- symbols and coins -------------------------------------------------------------------------------------------


class SymbolQuery(Parameters):
    """Filters of the symbol list."""

    quote: str | None = Field(None, max_length=10)
    provider: str | None = Field(None, max_length=32)
    q: str | None = Field(None, max_length=64, description="Part of the symbol or of the coin's name.")
    limit: int = Field(200, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, max_length=400)


class SymbolRow(Answer):
    """One pair: who lists it, and which coin its base is."""

    symbol: str
    base: str
    quote: str
    providers: list[str]
    price_precision: int | None = None
    status: str
    coin_id: str | None = None
    name: str | None = None
    market_cap_rank: int | None = None


class SymbolList(Answer):
    """Pairs by name."""

    data: list[SymbolRow]
    next_cursor: str | None = None


class CoinSearchQuery(Parameters):
    """A part of a coin's id, symbol or name."""

    q: str = Field("", max_length=64)
    limit: int = Field(20, ge=1, le=100)


class CoinMatch(Answer):
    """A coin that matches a search."""

    id: str
    name: str
    symbol: str
    thumb: str | None = None
    market_cap_rank: int | None = None


class CoinMatches(Answer):
    """Matches, best rank first."""

    coins: list[CoinMatch]


class CoinPriceQuery(Parameters):
    """CoinGecko ids, comma-separated."""

    ids: str = Field(max_length=4000, examples=["bitcoin,ethereum"])


class CoinPrice(Answer):
    """A coin's newest price in USD: our consolidated one, else CoinGecko's (`status` fallback)."""

    id: str
    symbol: str
    name: str
    image: str | None = None
    market_cap_rank: int | None = None
    current_price: DecimalText | None = None
    price_change_24h: DecimalText | None = None
    price_change_percentage_24h: DecimalText | None = None
    market_cap: DecimalText | None = None
    volume_24h: DecimalText | None = None
    last_updated: Milliseconds | None = None
    status: PriceStatus | None = None
    source: str | None = None
    stale: bool = True
    age_ms: int | None = None
    simulated: bool = False


class CoinPrices(Answer):
    """Prices by coin id; an id that nobody knows is absent from `prices` and listed in `unknown`."""

    prices: dict[str, CoinPrice]
    unknown: list[str] = []


# --- trends ------------------------------------------------------------------------------------------------------


class MarketQuery(Parameters):
    """A market of pairs with one quote, without illiquid noise."""

    quote: str = Field("USD", max_length=10)
    min_quote_volume: float = Field(0.0, ge=0, description="Least 24 h volume in quote units.")
    limit: int = Field(20, ge=1, le=200)


class MoversQuery(MarketQuery):
    """Gainers and losers."""

    by: Literal["change"] = "change"
    window: ChangeWindow = "24h"
    direction: Literal["both", "gainers", "losers"] = "both"


class MarketRow(Answer):
    """One symbol in a market list; `score` is what the list is sorted by."""

    symbol: str
    price: DecimalText | None = None
    score: float
    change_pct: float | None = None
    quote_volume_24h: float | None = None
    parts: dict[str, float] = {}


class Movers(Answer):
    """Gainers (best first) and losers (worst first)."""

    window: ChangeWindow
    quote: str
    as_of: Milliseconds
    gainers: list[MarketRow]
    losers: list[MarketRow]


class MarketList(Answer):
    """A sorted market list."""

    quote: str
    as_of: Milliseconds
    data: list[MarketRow]


class Breadth(Answer):
    """How much of the market takes part; shares between 0 and 1, null without data."""

    quote: str
    as_of: Milliseconds
    symbols: int
    advancing: int
    declining: int
    unchanged: int
    above_sma_50: float | None = None
    above_sma_200: float | None = None
    rsi_overbought: float | None = None
    rsi_oversold: float | None = None
    new_highs_24h: int = 0
    new_lows_24h: int = 0
    volume_weighted_change_24h_pct: float | None = None


class Overview(Answer):
    """The market in one answer: breadth, dominance, leaders."""

    quote: str
    as_of: Milliseconds
    breadth: Breadth
    dominance: dict[str, float] = Field(
        {}, description="Share of the known market capitalisation by asset, percent."
    )
    market_cap_usd: DecimalText | None = None
    quote_volume_24h: float = 0.0
    gainers: list[MarketRow] = []
    losers: list[MarketRow] = []
    trending: list[MarketRow] = []


class CorrelationQuery(Parameters):
    """Symbols to correlate; the most liquid when absent."""

    symbols: str | None = Field(None, max_length=4000)
    quote: str = Field("USD", max_length=10)
    interval: Literal["1m", "5m", "15m", "1h", "4h", "1d"] = "1h"
    window: int = Field(90, ge=10, le=500, description="Bars of log returns.")
    limit: int = Field(10, ge=2, le=50)


class Correlation(Answer):
    """Pearson correlations of log returns, a symmetric matrix in the order of `symbols`; null where undefined."""

    symbols: list[str]
    interval: str
    window: int
    as_of: Milliseconds
    matrix: list[list[float | None]]
    observations: int


class ScreenerQuery(MarketQuery):
    """Filter and sort by any live output, e.g. `filter=rsi_14@1h<30,volume_zscore@1h>3&sort=rsi_14@1h`."""

    filter_: str | None = Field(
        None, alias="filter", max_length=600, examples=["rsi_14@1h<30,volume_zscore@1h>3"]
    )
    sort: str | None = Field(
        None, max_length=60, description="Output, ascending; a leading `-` sorts descending."
    )
    columns: str | None = Field(None, max_length=600, description="More outputs to show, e.g. `atr_14@1d`.")


class ScreenerRow(Answer):
    """One symbol with the values that were asked for."""

    symbol: str
    price: DecimalText | None = None
    quote_volume_24h: float | None = None
    values: dict[str, float | None]


class Screener(Answer):
    """Symbols that pass every filter."""

    quote: str
    as_of: Milliseconds
    matched: int
    data: list[ScreenerRow]


_READ: Final = (400, 404, 422, 429, 503)

ROUTES: Final[tuple[RouteSpec, ...]] = (
    RouteSpec(
        "GET",
        "/prices/{symbol}",
        "get_price",
        "Newest price of a symbol",
        None,
        1,
        None,
        Price,
        query=PriceQuery,
        tags=("prices",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/prices/{symbol}/history",
        "get_price_history",
        "Candles of a symbol",
        None,
        1,
        None,
        CandlePage,
        query=CandleQuery,
        tags=("prices",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/candles/{symbol}",
        "get_candles",
        "Candles of a symbol",
        None,
        1,
        None,
        CandlePage,
        query=CandleQuery,
        tags=("candles",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/indicators",
        "list_indicators",
        "All indicators with parameters and formulas",
        None,
        1,
        None,
        IndicatorCatalogue,
        tags=("indicators",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/indicators/{symbol}",
        "get_indicators",
        "Newest indicator values of a symbol",
        None,
        2,
        None,
        IndicatorValues,
        query=IndicatorQuery,
        tags=("indicators",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/indicators/{symbol}/{name}/history",
        "get_indicator_history",
        "An indicator over stored candles",
        None,
        2,
        None,
        IndicatorHistory,
        query=IndicatorHistoryQuery,
        tags=("indicators",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/signals",
        "list_signals",
        "Newest signals",
        None,
        2,
        None,
        SignalList,
        query=SignalQuery,
        tags=("indicators",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/symbols",
        "list_symbols",
        "All pairs",
        None,
        1,
        None,
        SymbolList,
        query=SymbolQuery,
        tags=("symbols",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/symbols/{symbol}",
        "get_symbol",
        "One pair",
        None,
        1,
        None,
        SymbolRow,
        tags=("symbols",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/coins/search",
        "search_coins",
        "Search coins by id, symbol or name",
        None,
        1,
        None,
        CoinMatches,
        query=CoinSearchQuery,
        tags=("coins",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/coins",
        "get_coin_prices",
        "Newest prices of coins by CoinGecko id",
        None,
        1,
        None,
        CoinPrices,
        query=CoinPriceQuery,
        tags=("coins",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/market/overview",
        "get_market_overview",
        "The market in one answer",
        None,
        2,
        None,
        Overview,
        query=MarketQuery,
        tags=("market",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/market/movers",
        "get_market_movers",
        "Gainers and losers by window",
        None,
        2,
        None,
        Movers,
        query=MoversQuery,
        tags=("market",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/market/trending",
        "get_market_trending",
        "Symbols by trending score, with its parts",
        None,
        2,
        None,
        MarketList,
        query=MarketQuery,
        tags=("market",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/market/volume-spikes",
        "get_volume_spikes",
        "Symbols by volume against their usual volume",
        None,
        2,
        None,
        MarketList,
        query=MarketQuery,
        tags=("market",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/market/breadth",
        "get_market_breadth",
        "How much of the market takes part",
        None,
        2,
        None,
        Breadth,
        query=MarketQuery,
        tags=("market",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/market/correlation",
        "get_market_correlation",
        "Correlation matrix of log returns",
        None,
        5,
        None,
        Correlation,
        query=CorrelationQuery,
        tags=("market",),
        errors=_READ,
    ),
    RouteSpec(
        "GET",
        "/market/screener",
        "get_market_screener",
        "Filter and sort symbols by any live output",
        None,
        5,
        None,
        Screener,
        query=ScreenerQuery,
        tags=("market",),
        errors=_READ,
    ),
)
"""Every endpoint of the indicators service that the gateway publishes."""
