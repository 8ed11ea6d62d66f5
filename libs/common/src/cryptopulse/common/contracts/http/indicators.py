"""Indicators and signals over HTTP, as the indicators service answers."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cryptopulse.common.contracts.http.market_base import (
    MARKET_ERRORS,
    MAX_LIMIT,
    Answer,
    DecimalText,
    Milliseconds,
    Parameters,
    PublicInterval,
)
from cryptopulse.common.contracts.http.spec import RouteSpec


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


INDICATOR_ROUTES: Final[tuple[RouteSpec, ...]] = (
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
        errors=MARKET_ERRORS,
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
        errors=MARKET_ERRORS,
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
        errors=MARKET_ERRORS,
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
        errors=MARKET_ERRORS,
    ),
)
