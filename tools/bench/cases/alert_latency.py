"""From a trade at the venue to an alert in the owner's hands: his WebSocket, and the first attempt of his webhook.

The whole system on loopback. Rules on a venue's own price lie close around it and fire as it moves; latency is from the trade's
time at the venue (the simulator stamps a frame when it falls due) to arrival, both on this machine's clock. Between lie the
ingestor's batch, the evaluation, the transaction that stores event and delivery, and the outbox.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import websockets

from tools.bench.backends import fresh_backends
from tools.bench.measure import Row, percentile, sized
from tools.harness.receiver import Hook, Receiver
from tools.harness.system import System

TITLE = "Alerts: from a venue's trade to the owner's socket and webhook"
NOT_IN = ("quick",)
"""A whole system is started for it; in a quick run that of `route` is enough."""
SYMBOL: Final = "BTC-USDT"
SYMBOLS: Final = "BTC-USDT,BTC-USD,ETH-USDT,ETH-USD"
RULES: Final = 40
STEP: Final = Decimal("0.00005")
"""Between two rules' thresholds, of the price."""
RATE: Final = 200
SECONDS: Final = sized(45, 6)
SETTLE_SECONDS: Final = 3
"""Until the last rule is taken over: what crosses it before is found when it is."""


async def run() -> list[Row]:
    """A row for each way."""
    settings = {
        "SYMBOLS": SYMBOLS,
        "CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS": "0",
        "CRYPTOPULSE_INGESTOR_HISTORY_HOURS_DAYS": "0",
        "CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS": "0",
        "LOG_LEVEL": "WARNING",
    }
    simulator = ("--rate", str(RATE), "--symbols", f"{SYMBOLS},USDT-USD")
    async with fresh_backends() as backends, Receiver() as receiver:
        with tempfile.TemporaryDirectory() as folder:
            async with System(
                backends, Path(folder), settings=settings, simulator_arguments=simulator
            ) as system:
                await system.price("BTC")
                headers = await system.login()
                seen: list[float] = []
                listener = asyncio.create_task(_listen(system, headers, seen))
                await asyncio.sleep(1)
                for place in range(RULES):
                    await _rule(system, headers, receiver.url, place - RULES // 2)
                await asyncio.sleep(SETTLE_SECONDS)
                seen.clear()
                receiver.hooks.clear()
                started = time.monotonic()
                await asyncio.sleep(SECONDS)
                # A short run on a busy machine waits for what it is about.
                await system.until(lambda: _are_there(seen, receiver), what="alerts fire", of="alerts")
                seconds = time.monotonic() - started
                listener.cancel()
        deliveries = [
            hook.at_ms - datetime.fromisoformat(hook.body["timestamp"]).timestamp() * 1000
            for hook in _prompt(receiver)
        ]
    return [
        _row("trade to WebSocket", seen, seconds, "p99 < 50 ms"),
        _row("trade to first webhook attempt", deliveries, seconds, "p99 < 250 ms"),
    ]


def _prompt(receiver: Receiver) -> list[Hook]:
    return [
        hook
        for hook in receiver.hooks
        if hook.body["type"] == "alert.triggered" and not hook.body["data"]["late"]
    ]


async def _are_there(seen: list[float], receiver: Receiver) -> bool:
    return bool(seen and _prompt(receiver))


async def _rule(system: System, headers: dict[str, str], url: str, place: int) -> None:
    price = Decimal((await system.client.get(f"/v1/prices/{SYMBOL}")).json()["price"])
    level = (price * (1 + place * STEP)).quantize(Decimal("0.01"))
    rule = {
        "symbol": SYMBOL,
        "source": "binance",
        "condition": {"type": "price_cross", "value": str(level)},
        "trigger": "every_cross",
        "webhook_url": url,
    }
    answer = await system.client.post("/v1/alerts", json=rule, headers=headers)
    if answer.is_error:
        raise RuntimeError(answer.text)


async def _listen(system: System, headers: dict[str, str], seen: list[float]) -> None:
    url = f"ws://127.0.0.1:{system.port}/v1/ws"
    async with websockets.connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.send(json.dumps({"op": "subscribe", "id": 1, "channels": [{"ch": "alerts"}]}))
        async for frame in socket:
            body: dict[str, Any] = json.loads(frame)
            event = body.get("event") or {}
            if event.get("type") == "alert.triggered" and not event["late"]:
                seen.append(time.time() * 1000 - event["at_ms"])


def _row(name: str, latencies_ms: list[float], seconds: float, hold: str) -> Row:
    rate = len(latencies_ms) / seconds
    return Row(
        case="alert-latency",
        name=name,
        unit="events/s",
        rounds=1,
        per_cpu_second=0.0,
        low=0.0,
        high=0.0,
        per_wall_second=rate,
        cpu_us_per_item=0.0,
        hold=hold,
        extra={
            "events": len(latencies_ms),
            "p50 ms": percentile(latencies_ms, 0.5),
            "p99 ms": percentile(latencies_ms, 0.99),
        },
    )
