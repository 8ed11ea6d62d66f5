"""What a cheap message makes the gateway and others do is bounded and counted."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cryptopulse.common.contracts.identity import ANONYMOUS
from cryptopulse.gateway.domain import api_keys
from cryptopulse.gateway.domain.limits import Policy


def limit(gateway: Any, bucket: str, quota: int, tier: str = "anonymous") -> None:
    """Allow so many at once, and hardly any later."""
    gateway.limits._table[tier, bucket] = Policy(f"{tier}-{bucket}", 1, 3_600, quota)


async def asked(ws: Any, listen: Any, *channels: dict[str, Any]) -> dict[str, Any]:
    await ws.send(json.dumps({"op": "subscribe", "id": 1, "channels": list(channels)}))
    while (answer := await listen(ws))["type"] not in {"ack", "error"}:
        pass
    return dict(answer)


async def test_who_sends_many_wrong_credentials_is_turned_away_before_they_are_looked_up(
    gateway: Any,
) -> None:
    limit(gateway, "credentials", 3)
    for _ in range(3):
        headers = {"X-API-Key": api_keys.make(random.choice).text}
        assert (await gateway.http.get("/v1/time", headers=headers)).status_code == 401
    answer = await gateway.http.get("/v1/time", headers={"Authorization": "Bearer x.y.z"})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota-exceeded")
    assert int(answer.headers["retry-after"]) > 0
    assert (await gateway.http.get("/v1/time")).status_code == 200


async def test_a_right_credential_costs_none_of_the_wrong_ones(gateway: Any) -> None:
    limit(gateway, "credentials", 1)
    for number in range(4):
        answer = await gateway.http.get("/v1/time", headers=gateway.token(f"user-{number}"))
        assert answer.status_code == 200


async def test_wrong_credentials_are_still_401_while_limits_cannot_be_counted(gateway: Any) -> None:
    gateway.limiter.is_away = True
    answer = await gateway.http.get("/v1/time", headers={"Authorization": "Bearer x.y.z"})
    assert answer.status_code == 401


async def test_sockets_that_knock_together_are_no_more_than_those_that_come_in_turn(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = gateway.limiter.take

    async def take_over_a_wire(*arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(0.1)
        return await take(*arguments, **options)

    monkeypatch.setattr(gateway.limiter, "take", take_over_a_wire)

    async def knock() -> Any:
        try:
            ws = await gateway.ws()
            await asyncio.wait_for(ws.recv(), 5)
        except (ConnectionClosed, InvalidStatus) as error:
            return error
        return ws

    found = await asyncio.gather(*(knock() for _ in range(25)))
    opened = [ws for ws in found if not isinstance(ws, Exception)]
    late = [error for error in found if isinstance(error, ConnectionClosed)]
    assert late
    assert len(opened) == len(gateway.hub.connections) == 10
    assert all(error.rcvd is not None and error.rcvd.code == 4504 for error in late)
    await asyncio.gather(*(ws.close() for ws in opened))


async def test_who_logs_in_on_open_sockets_has_no_more_of_them(gateway: Any, listen: Any) -> None:
    token = gateway.token()["Authorization"].removeprefix("Bearer ")
    sockets = []
    for number in range(11):
        ws = await gateway.ws()
        sockets.append(ws)
        await ws.send(json.dumps({"op": "auth", "token": token}))
        if number < 10:
            assert (await listen(ws, "ack"))["authenticated"] is True
    assert (await listen(sockets[-1], "error"))["code"] == "connection_limit"
    with pytest.raises(ConnectionClosed) as closed:
        await listen(sockets[-1])
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4504
    await asyncio.gather(*(ws.close() for ws in sockets))


async def test_subscribing_to_what_another_service_answers_costs_as_reading_it(
    gateway: Any, listen: Any
) -> None:
    limit(gateway, "reads", 10, tier="free")
    async with gateway.ws(additional_headers=gateway.token()) as ws:
        portfolios = [{"ch": f"portfolio:{number}"} for number in range(1, 41)]
        answer = await asked(ws, listen, *portfolios)
        assert (answer["type"], answer["code"], answer["id"]) == ("error", "rate_limited", 1)
        assert answer["retry_after_ms"] > 0
    assert len([call for call in gateway.services.calls if call["service"] == "portfolio"]) <= 5


@pytest.mark.parametrize("channel", ["ticker", "candles:1m", "indicators:1m", "indicators:rsi_14:1m"])
async def test_a_source_that_nobody_is_leaves_nothing_behind(gateway: Any, listen: Any, channel: str) -> None:
    gateway.price("BTC-USD", "1")
    before = len(list(gateway.hub.streams()))
    async with gateway.ws() as ws:
        wishes = [{"ch": channel, "symbols": ["BTC"], "source": f"x{number}"} for number in range(100)]
        answer = await asked(ws, listen, *wishes)
        assert {row["code"] for row in answer["rejected"]} == {"unknown_source"}
        fine = await asked(ws, listen, {"ch": channel, "symbols": ["BTC"], "source": "consolidated"})
        assert len(fine["subscribed"]) == 1
    assert len(list(gateway.hub.streams())) <= before + 1
    assert len(gateway.hub._rings) <= 1


async def test_streams_over_the_limit_and_those_left_are_not_kept(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1")
    async with gateway.ws() as ws:
        wishes = [{"ch": f"indicators:any_{number}:1m", "symbols": ["BTC"]} for number in range(150)]
        more = [{"ch": f"indicators:other_{number}:1m", "symbols": ["BTC"]} for number in range(150)]
        assert len((await asked(ws, listen, *wishes))["subscribed"]) == 150
        answer = await asked(ws, listen, *more)
        assert (len(answer["subscribed"]), len(answer["rejected"])) == (50, 100)
        assert len(list(gateway.hub.streams())) == 200
        await ws.send(json.dumps({"op": "unsubscribe", "channels": wishes}))
        await listen(ws, "ack")
        assert len(list(gateway.hub.streams())) == 50
    while gateway.hub.connections:
        await asyncio.sleep(0.01)
    assert list(gateway.hub.streams()) == []


async def test_a_ticker_that_was_left_resumes_at_its_place(gateway: Any, listen: Any) -> None:
    gateway.price("BTC-USD", "1", seq=5)
    channel: dict[str, Any] = {"ch": "ticker", "symbols": ["BTC"]}
    async with gateway.ws() as ws:
        (entry,) = (await asked(ws, listen, channel))["subscribed"]
    while gateway.hub.connections:
        await asyncio.sleep(0.01)
    assert gateway.hub.find(("ticker", "BTC-USD")) is None
    place = {"epoch": entry["epoch"], "offset": entry["offset"]}
    async with gateway.ws() as ws:
        (again,) = (await asked(ws, listen, {**channel, "resume": {"BTC": place}}))["subscribed"]
    assert again["recovered"] is True
    assert again["offset"] == 5
    assert gateway.hub.count_of(ANONYMOUS, "127.0.0.1") <= 1
