"""The ingestor's internal HTTP: history on request, coins that someone wants priced, feeds paused, and their status."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.intervals import Interval

MAX_COIN_IDS: Final = 1_000
CoinId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,99}$", examples=["bitcoin"])]


class BackfillRequest(BaseModel):
    """Candles wanted over [`from_ms`, `to_ms`). Without a venue: every venue that lists the symbol and has the interval."""

    model_config = ConfigDict(extra="forbid")

    symbol: str = Field(pattern=r"^[A-Z0-9]{1,15}-[A-Z0-9]{2,10}$", examples=["BTC-USDT"])
    interval: Interval = Field(examples=["1m"])
    from_ms: int = Field(ge=0, lt=4_102_444_800_000, description="Inclusive, milliseconds UTC.")
    to_ms: int = Field(ge=0, lt=4_102_444_800_000, description="Exclusive, milliseconds UTC.")
    venue: str | None = Field(default=None, max_length=32, examples=["binance"])
    reason: Literal["hole", "request", "repair"] = "request"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.from_ms >= self.to_ms:
            raise ValueError("from_ms must be before to_ms")
        return self


class BackfillAccepted(BaseModel):
    """The series that were queued; what waits already with the same range is not queued again."""

    queued: list[str] = Field(description="`<venue> <symbol> <interval>` of each series.")
    waiting: list[str] = Field(description="Series that were waiting already.")


class WantedRequest(BaseModel):
    """CoinGecko ids to keep priced for so long, because someone holds or watches them."""

    model_config = ConfigDict(extra="forbid")

    coin_ids: list[CoinId] = Field(max_length=MAX_COIN_IDS)
    ttl_seconds: int = Field(default=600, ge=1, le=7 * 86_400)


class FeedControlled(BaseModel):
    """The feed's state after pausing or resuming it."""

    venue: str
    paused: bool


class QuarantinedFrame(BaseModel):
    """A frame that was not believed: when, why, and the beginning of its text."""

    at_us: int
    reason: str
    detail: str
    frame: str


class Quarantine(BaseModel):
    """The newest refused frames of a venue, and how often each reason came."""

    venue: str
    counts: dict[str, int]
    frames: list[QuarantinedFrame]


ROUTES: Final = (
    RouteSpec(
        method="POST",
        path="/backfill",
        operation_id="request_backfill",
        summary="Fetch candles of the past",
        scope=None,
        cost=1,
        request=BackfillRequest,
        response=BackfillAccepted,
        status=202,
        tags=("ingest",),
        public=False,
    ),
    RouteSpec(
        method="PUT",
        path="/wanted",
        operation_id="put_wanted",
        summary="Keep coins priced that no venue of ours trades",
        scope=None,
        cost=1,
        request=WantedRequest,
        response=None,
        status=204,
        tags=("ingest",),
        public=False,
    ),
    RouteSpec(
        method="POST",
        path="/feeds/{venue}/pause",
        operation_id="pause_feed",
        summary="Close a venue's sockets until it is resumed",
        scope=None,
        cost=1,
        request=None,
        response=FeedControlled,
        tags=("ingest",),
        public=False,
    ),
    RouteSpec(
        method="POST",
        path="/feeds/{venue}/resume",
        operation_id="resume_feed",
        summary="Open a paused venue's sockets; what was missed is repaired",
        scope=None,
        cost=1,
        request=None,
        response=FeedControlled,
        tags=("ingest",),
        public=False,
    ),
    RouteSpec(
        method="GET",
        path="/feeds/{venue}/quarantine",
        operation_id="list_quarantine",
        summary="Frames that were not believed",
        scope=None,
        cost=1,
        request=None,
        response=Quarantine,
        tags=("ingest",),
        public=False,
    ),
    RouteSpec(
        method="GET",
        path="/status",
        operation_id="list_feeds",
        summary="State of every venue: connections, gaps, budgets, history",
        scope=None,
        cost=1,
        request=None,
        response=None,
        description="A JSON list of `feeds.FeedStatus`; the same goes over the bus as `feed.status` every two seconds.",
        tags=("ingest",),
        public=False,
    ),
)
