"""A name from a venue's catalogue stays one segment of a path, whatever the venue writes into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.errors import Invalid
from cryptopulse.ingestor.adapters.coinbase.feed import CoinbaseFeed
from cryptopulse.ingestor.adapters.coinbase_exchange.feed import CoinbaseExchangeFeed
from cryptopulse.ingestor.adapters.coingecko.feed import CoinGeckoSource
from cryptopulse.ingestor.adapters.rest import ProxiedHttp, VenueHttp
from cryptopulse.ingestor.domain.ordering import Gap

HOSTILE = "../orders?x=1#BTC%2FÜ \r\n/"
ENCODED = b"..%2Forders%3Fx%3D1%23BTC%252F%C3%9C%20%0D%0A%2F"
HOUR = 3_600_000


class NoBudget:
    """Takes every call."""

    def rule(self, *_: Any) -> None: ...
    async def spend(self, *_: Any, **__: Any) -> None: ...
    async def correct(self, *_: Any) -> None: ...
    async def block(self, *_: Any) -> None: ...


def venues(asked: list[httpx.Request]) -> dict[str, Callable[[str], Awaitable[Any]]]:
    """Every read that takes a name as a part of the path."""

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        body = b'{"candles":[],"trades":[]}' if request.url.host == "coinbase" else b"[]"
        return httpx.Response(200, content=body)

    budget: Any = NoBudget()
    clock = ManualClock()
    transport = httpx.MockTransport(answer)
    coinbase = CoinbaseFeed(
        VenueHttp("c", "https://coinbase/api", budget, transport=transport), "ws://c", budget, clock
    )
    exchange = CoinbaseExchangeFeed(
        VenueHttp("e", "https://exchange", budget, transport=transport), "ws://e", budget, clock
    )
    gecko = CoinGeckoSource(
        ProxiedHttp("https://gecko/proxy/", "g", "https://gecko", budget, transport=transport),
        budget,
        clock,
        (),
    )
    gap = Gap("BTC-USD", 1, 2, 0, 0)
    return {
        "coinbase trades": lambda name: coinbase.trades(name, gap),
        "coinbase candles": lambda name: coinbase.candles(name, "BTC-USD", "1h", 0, HOUR),
        "exchange trades": lambda name: exchange.trades(name, gap),
        "exchange candles": lambda name: exchange.candles(name, "BTC-USD", "1h", 0, HOUR),
        "coingecko candles": lambda name: gecko.candles(name, "BTC-USD", "1h", 1),
    }


@pytest.mark.parametrize("read", venues([]))
async def test_a_hostile_name_asks_for_nothing_else(read: str) -> None:
    asked: list[httpx.Request] = []
    await venues(asked)[read](HOSTILE)
    (request,) = asked
    path, _, query = request.url.raw_path.partition(b"?")
    assert path.split(b"/")[-2] == ENCODED
    assert b"x=1" not in query


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_is_no_segment_is_refused(name: str) -> None:
    asked: list[httpx.Request] = []
    for read in venues(asked).values():
        with pytest.raises(Invalid):
            await read(name)
    assert not asked
