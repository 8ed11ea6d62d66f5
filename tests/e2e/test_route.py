"""The route of a tick through all five services: from a venue's frame to a socket, a webhook and a portfolio's value."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
import websockets

from cryptopulse.common.config import SERVICES
from tools.harness.receiver import Receiver
from tools.harness.system import System

pytestmark = pytest.mark.asyncio(loop_scope="session")

WAIT_SECONDS = 30
SCRIPTED = (("binance", "BTC-USDT"), ("coinbase", "BTC-USD"))


@pytest.mark.timeout(240)
async def test_a_frame_becomes_prices_candles_indicators_alerts_and_value(system: System) -> None:
    first = await system.price("BTC")
    assert first["symbol"] == "BTC-USD"
    assert first["simulated"] is True
    assert Decimal(first["price"]) > 0
    await _prices_move(system, first["price"])
    await _history_and_indicators(system)
    headers = await system.login("route@example.com")
    await _portfolio_is_valued(system, headers)
    async with Receiver() as receiver:
        await _alert_reaches_socket_and_webhook(system, headers, receiver)
    assert await system.stop_services() == dict.fromkeys(SERVICES, 0)


async def _prices_move(system: System, first: str) -> None:
    async def moved() -> bool:
        answer = await system.client.get("/prices/BTC")
        return answer.status_code == httpx.codes.OK and answer.json()["price"] != first

    await system.until(moved, what="the price moves")
    async with websockets.connect(f"ws://127.0.0.1:{system.port}/ws/crypto/", proxy=None) as socket:
        kinds = set()
        async with asyncio.timeout(WAIT_SECONDS):
            while "price_update" not in kinds:
                kinds.add(json.loads(await socket.recv())["type"])
        assert "connection" in kinds


async def _history_and_indicators(system: System) -> None:
    async def history() -> Any:
        answer = await system.client.get("/prices/BTC/history", params={"interval": "1m", "limit": 200})
        rows = answer.json().get("data", []) if answer.status_code == httpx.codes.OK else []
        return rows if len(rows) >= 60 else None

    rows = await system.until(history, what="an hour of 1m candles", of="indicators")
    times = [row["open_time"] for row in rows]
    assert times == sorted(set(times))
    assert all(Decimal(row["low"]) <= Decimal(row["open"]) <= Decimal(row["high"]) for row in rows)

    async def values() -> Any:
        answer = await system.client.get("/indicators/BTC", params={"interval": "1m"})
        body = answer.json() if answer.status_code == httpx.codes.OK else {}
        return body if body.get("values", {}).get("rsi_14") is not None else None

    body = await system.until(values, what="an RSI", of="indicators")
    assert 0 <= body["values"]["rsi_14"] <= 100


async def _portfolio_is_valued(system: System, headers: dict[str, str]) -> None:
    order = {"symbol": "BTC", "quantity": "0.5", "price": "100"}
    added = await system.client.post("/portfolio", json=order, headers=headers)
    assert added.status_code == httpx.codes.CREATED, added.text

    async def valued() -> Any:
        answer = await system.client.get("/portfolio", headers=headers)
        holdings = answer.json().get("holdings", []) if answer.status_code == httpx.codes.OK else []
        return holdings[0] if holdings and holdings[0]["value"] is not None else None

    holding = await system.until(valued, what="the portfolio has a value", of="portfolio")
    assert Decimal(holding["quantity"]) == Decimal("0.5")
    assert Decimal(holding["value"]) == Decimal(holding["price"]) * Decimal("0.5")

    async def moved() -> bool:
        answer = await system.client.get("/portfolio", headers=headers)
        return bool(answer.json()["holdings"][0]["value"] != holding["value"])

    await system.until(moved, what="the value moves", of="portfolio")


async def _alert_reaches_socket_and_webhook(
    system: System, headers: dict[str, str], receiver: Receiver
) -> None:
    url = f"ws://127.0.0.1:{system.port}/v1/ws"
    async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.send(json.dumps({"op": "subscribe", "id": 1, "channels": [{"ch": "alerts"}]}))
        price = Decimal((await system.price("BTC"))["price"])
        for condition, threshold, currently in (("cross", price, None), ("above", price / 2, True)):
            rule = {
                "symbol": "BTC",
                "condition": condition,
                "price": str(threshold.quantize(Decimal("0.01"))),
            }
            made = await system.client.post(
                "/alerts", json={**rule, "webhook_url": receiver.url}, headers=headers
            )
            assert made.status_code == httpx.codes.CREATED, made.text
            assert made.json()["currently_true"] is currently
        for venue, symbol in SCRIPTED:
            path = [
                [seconds, float(price) * factor]
                for seconds, factor in ((1, 1.01), (4, 0.99), (7, 1.01), (10, 0.99))
            ]
            await system.control(
                "POST", "/script", json={"venue": venue, "symbol": symbol, "path": path, "hold": True}
            )
        try:
            event = await _alert_frame(socket)
        finally:
            for venue, symbol in SCRIPTED:
                await system.control("DELETE", f"/script/{venue}/{symbol}")
    delivery = await receiver.first(WAIT_SECONDS)
    assert delivery.body["type"] == "alert.triggered"
    assert delivery.headers["webhook-id"]
    assert event["type"] == "alert"
    listed = await system.client.get("/alerts", headers=headers)
    assert len(listed.json()["data"]) == 2


async def _alert_frame(socket: websockets.ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            if frame["type"] == "alert":
                return frame
