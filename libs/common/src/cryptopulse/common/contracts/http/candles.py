"""Candles over HTTP, as the indicators service answers."""

from __future__ import annotations

from typing import Final

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

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


CANDLE_ROUTES: Final[tuple[RouteSpec, ...]] = (
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
        errors=MARKET_ERRORS,
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
        errors=MARKET_ERRORS,
    ),
)
