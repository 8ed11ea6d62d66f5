"""Recent trades: from the ring that the stream's clients resume from, kept while somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import stream_data
from cryptopulse.gateway.domain.conflation import RING_MESSAGES, RING_SECONDS, Ring
from cryptopulse.gateway.entrypoints.http.operations import Call, Operation

WAIT_SECONDS: Final = 2.0
"""How long the first caller waits for the first trade of a symbol that nobody followed."""
STEP_SECONDS: Final = 0.05


class TradeQuery(BaseModel):
    """How many."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=RING_MESSAGES)] = 100


class TradeRow(BaseModel):
    """One trade of a venue; `side` is the taker's, `ts` the venue's time, `rx` ours."""

    s: str
    src: str
    id: int
    p: str
    q: str
    side: Literal["buy", "sell", "unknown"]
    ts: int
    rx: int


class ConflatedTrades(TradeRow):
    """`n` trades that an overload has made one: `first_id` to `id`, `q` in all, the last price as `p`, `side` unknown.

    `o`, `h` and `l` are the first, highest and lowest price, `qv` the volume in quote units, `tbv` what takers bought of `q`.
    """

    n: int
    first_id: int
    first_ts: int
    o: str
    h: str
    l: str  # noqa: E741  # the name that candles have for it
    qv: str
    tbv: str


class Trades(BaseModel):
    """The newest trades, newest first, none older than a minute."""

    symbol: str
    data: list[ConflatedTrades | TradeRow]
    next_cursor: str | None = None


async def get_trades(use: UseCases, call: Call) -> Response:
    """The newest trades of a symbol over all venues."""
    query = call.query_model(TradeQuery)
    resolved = use.market.resolve(call.params["symbol"])
    symbol = resolved.symbol
    await use.follow(symbol)
    rings = [use.hub.ring(("trades", f"{symbol}@{venue}")) for venue in use.market.venues(resolved)]
    for _ in range(int(WAIT_SECONDS / STEP_SECONDS)):
        if any(ring.items for ring in rings):
            break
        await asyncio.sleep(STEP_SECONDS)
    rows = _newest(rings, use.clock.now_ms() - RING_SECONDS * 1_000, query.limit)
    body = b'{"symbol":%b,"data":[%b],"next_cursor":null}' % (orjson.dumps(symbol), b",".join(rows))
    return Response(body, media_type="application/json")


def _newest(rings: Iterable[Ring], horizon_ms: int, limit: int) -> list[bytes]:
    """The newest of all venues by our time of receipt, newest first."""
    items = [payload for ring in rings for _, at, payload in ring.items if at >= horizon_ms]
    newest = sorted(items, key=stream_data.when, reverse=True)
    return [stream_data.trade(payload) for payload in newest[:limit]]


OPERATIONS: Final = (
    Operation(
        RouteSpec(
            "GET",
            "/v1/trades/{symbol}",
            "list_trades",
            "Newest trades of a symbol",
            "market:read",
            2,
            None,
            Trades,
            query=TradeQuery,
            tags=("prices",),
            errors=(400, 401, 403, 404, 422, 429, 503),
            description="Kept from the first call on; the first one waits up to 2 s for a trade.",
        ),
        get_trades,
        auth="scope",
    ),
)
