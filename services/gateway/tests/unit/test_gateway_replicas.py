"""Two replicas hear the same: a client of one who comes to the other gets what he missed, or is told no."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cryptopulse.common.contracts.feeds import FeedStatus


async def subscribed(ws: Any, listen: Any, channel: dict[str, Any]) -> dict[str, Any]:
    """The one entry of the ack."""
    await ws.send(json.dumps({"op": "subscribe", "channels": [channel]}))
    (entry,) = (await listen(ws, "ack"))["subscribed"]
    return dict(entry)


def place(entry: dict[str, Any]) -> dict[str, Any]:
    """Where a client stands after a message of a stream."""
    return {"epoch": entry["epoch"], "offset": entry["offset"]}


def a_feed(venue: str, at_us: int, **more: Any) -> FeedStatus:
    return FeedStatus(venue=venue, at_us=at_us, part="1/1", epoch=1, active=True, state="live", **more)


CROSS: dict[str, Any] = {"ch": "ticker", "symbols": ["BTC-ETH"], "every_ms": 0}


async def test_a_cross_rate_resumes_by_what_was_heard_not_by_how_often(
    gateway: Any, other_gateway: Any, listen: Any
) -> None:
    for one in (gateway, other_gateway):
        one.price("BTC-USD", "60000")
        one.price("ETH-USD", "3000")
    async with gateway.ws() as ws, other_gateway.ws() as elsewhere:
        await subscribed(ws, listen, CROSS)
        await subscribed(elsewhere, listen, CROSS)
        gateway.price("BTC-USD", "60300", seq=2)
        found = await listen(ws, "update")
        left = {"epoch": (await subscribed(ws, listen, CROSS))["epoch"], "offset": found["offset"]}
        # The other replica heard nothing of some updates: it has told its clients as often, and is further.
        other_gateway.price("BTC-USD", "66000", seq=12)
        await listen(elsewhere, "update")
    async with other_gateway.ws() as ws:
        entry = await subscribed(ws, listen, {**CROSS, "resume": {"BTC-ETH": left}})
        assert entry["recovered"] is True
        assert (await listen(ws, "snapshot"))["data"]["p"] == "22"


async def test_a_cross_rate_begins_anew_when_either_of_its_owners_does(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "60000", seq=1_000)
    gateway.price("ETH-USD", "3000", seq=1_000)
    async with gateway.ws() as ws:
        entry = await subscribed(ws, listen, CROSS)
        gateway.price("ETH-USD", "2000", seq=1, epoch=2)
        told = [message for _ in range(2) if (message := await listen(ws))["type"] == "snapshot"]
        assert told[-1]["epoch"] != entry["epoch"]
        assert told[-1]["data"]["p"] == "30"


@pytest.mark.parametrize("source", [None, "consolidated"])
async def test_a_cross_rate_moves_however_it_was_asked_for(
    gateway: Any, listen: Any, source: str | None
) -> None:
    gateway.price("BTC-USD", "60000")
    gateway.price("ETH-USD", "3000")
    async with gateway.ws() as ws:
        await subscribed(ws, listen, {**CROSS, "source": source})
        gateway.price("ETH-USD", "2000", seq=2)
        assert (await listen(ws, "update"))["data"]["p"] == "30"


async def test_cross_rates_that_nobody_hears_are_not_computed_and_forgotten(
    gateway: Any, listen: Any
) -> None:
    gateway.price("BTC-USD", "60000")
    gateway.price("ETH-USD", "3000")
    async with gateway.ws() as ws:
        entry = await subscribed(ws, listen, CROSS)
        assert len(gateway.subscriptions.crossed_by("BTC")) == 1
    while gateway.hub.connections:
        await listen_nothing()
    assert gateway.subscriptions.crossed_by("BTC") == []
    gateway.price("BTC-USD", "66000", seq=2)
    async with gateway.ws() as ws:
        again = await subscribed(ws, listen, {**CROSS, "resume": {"BTC-ETH": place(entry)}})
        assert again["recovered"] is True
        assert (await listen(ws, "snapshot"))["data"]["p"] == "22"
    while gateway.hub.connections:
        await listen_nothing()
    gateway.clock.advance(120)
    gateway.hub.forget()
    gateway.subscriptions.crossed_by("BTC")
    gateway.subscriptions.crossed_by("ETH")
    assert not gateway.subscriptions._crossed


async def listen_nothing() -> None:
    """Let the loop run."""
    await asyncio.sleep(0.01)


async def test_the_state_of_the_venues_is_told_anew_by_another_replica(
    gateway: Any, other_gateway: Any, listen: Any
) -> None:
    channel: dict[str, Any] = {"ch": "status", "every_ms": 0}
    async with gateway.ws() as ws:
        await subscribed(ws, listen, channel)
        gateway.distributor.feed(a_feed("binance", gateway.clock.now_us()))
        first = await listen(ws, "update")
        left = {"epoch": (await subscribed(ws, listen, channel))["epoch"], "offset": first["offset"]}
    # Exactly as many messages came to the other one, about something else.
    other_gateway.distributor.feed(a_feed("kraken", other_gateway.clock.now_us()))
    async with other_gateway.ws() as ws:
        entry = await subscribed(ws, listen, {**channel, "resume": {"status": left}})
        assert (entry["recovered"], entry["offset"]) == (False, left["offset"])
        assert [row["venue"] for row in (await listen(ws, "snapshot"))["data"]] == ["kraken"]


async def test_the_market_is_told_anew_by_another_replica(
    gateway: Any, other_gateway: Any, listen: Any
) -> None:
    channel: dict[str, Any] = {"ch": "market", "every_ms": 0}
    async with gateway.ws() as ws, other_gateway.ws() as elsewhere:
        await subscribed(ws, listen, channel)
        await subscribed(elsewhere, listen, channel)
        gateway.distributor.market_overview({"breadth": 1})
        other_gateway.distributor.market_overview({"breadth": 2})
        first = await listen(ws, "update")
        left = {"epoch": (await subscribed(ws, listen, channel))["epoch"], "offset": first["offset"]}
    async with other_gateway.ws() as ws:
        entry = await subscribed(ws, listen, {**channel, "resume": {"market": left}})
        assert entry["recovered"] is False
        assert (await listen(ws, "snapshot"))["data"] == {"breadth": 2}
    async with gateway.ws() as ws:
        entry = await subscribed(ws, listen, {**channel, "resume": {"market": left}})
        assert entry["recovered"] is True
