"""Real messages through the real system: another server plays recordings, `FEED=live`, and candles equal an independent computation."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.bus.ticks import subscribe_ticks
from cryptopulse.common.contracts.ticks import Trade
from tools.harness.system import Backends, System

MINUTE = 60_000


@dataclass(frozen=True)
class Recorded:
    """One trade as the venue sent it."""

    trade_id: int
    price: Decimal
    size: Decimal
    side: str
    at_ms: int


def recorded_trades(path: Path) -> list[Recorded]:
    """All trades of a recording, in its order: read by nothing of ours but json and Decimal."""
    found = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            _, _, text = line.strip().partition(" ")
            if '@trade"' not in text:
                continue
            data = json.loads(text)["data"]
            side = "sell" if data["m"] else "buy"
            found.append(Recorded(data["t"], Decimal(data["p"]), Decimal(data["q"]), side, data["T"]))
    return found


def candles_of(trades: list[Recorded]) -> dict[int, tuple[Decimal, Decimal, Decimal, Decimal, Decimal, int]]:
    """Open time -> open, high, low, close, volume, count, by the plainest loop there is."""
    minutes: dict[int, list[Recorded]] = {}
    for trade in trades:
        minutes.setdefault(trade.at_ms - trade.at_ms % MINUTE, []).append(trade)
    return {
        start: (
            rows[0].price,
            max(row.price for row in rows),
            min(row.price for row in rows),
            rows[-1].price,
            sum((row.size for row in rows), Decimal(0)),
            len(rows),
        )
        for start, rows in minutes.items()
    }


@pytest.fixture
async def playing(
    rabbit_vhost: str, redis_db: str, make_postgres_db: Callable[[], str], tmp_path: Path, shared_data: Path
) -> AsyncIterator[System]:
    recordings = shared_data / "recordings" / "binance_spot_ws"
    if not recordings.is_dir():
        pytest.skip(f"no recordings in {recordings}")
    backends = Backends(rabbit_vhost, redis_db, make_postgres_db())
    settings = {"FEED": "live", "SYMBOLS": "BTC-USDT,ETH-USDT", "CRYPTOPULSE_INGESTOR_VENUES": "binance"}
    arguments = ("--play", str(recordings), "--speed", "20", "--play-wait-seconds", "12")
    async with System(
        backends, tmp_path / "system", settings=settings, simulator_arguments=arguments
    ) as running:
        yield running


@pytest.mark.timeout(240)
async def test_every_recorded_trade_arrives_once_and_candles_are_exact(
    playing: System, shared_data: Path
) -> None:
    folder = shared_data / "recordings" / "binance_spot_ws"
    expected = {
        "BTC-USDT": recorded_trades(folder / "btcusdt_20240808.gz"),
        "ETH-USDT": recorded_trades(folder / "ethusdt_20240808.gz"),
    }
    assert sum(map(len, expected.values())) == 15_863
    got: dict[str, list[Trade]] = {symbol: [] for symbol in expected}
    bus = RabbitBus(playing.backends.rabbitmq, service="watcher")
    await bus.start()
    try:
        for symbol, trades in got.items():
            await subscribe_ticks(bus, symbol, trades.append)

        async def all_arrived() -> bool:
            return all(len(got[symbol]) >= len(expected[symbol]) for symbol in expected)

        await playing.until(all_arrived, what="all recorded trades on the bus", of="ingestor", seconds=120)
        await asyncio.sleep(1)
    finally:
        await bus.close()
    for symbol, recorded in expected.items():
        assert [as_recorded(trade) for trade in got[symbol]] == recorded
        await _candles_equal(playing, symbol, recorded)


def as_recorded(trade: Trade) -> Recorded:
    """Ours in the shape of the recording."""
    return Recorded(trade.trade_id, trade.price, trade.size, trade.side, trade.event_us // 1000)


async def _candles_equal(system: System, symbol: str, trades: list[Recorded]) -> None:
    expected = candles_of(trades)
    first, last = min(expected), max(expected)
    params: dict[str, Any] = {
        "interval": "1m",
        "source": "binance",
        "from": first,
        "to": last + MINUTE,
        "limit": 100,
    }

    async def stored() -> Any:
        answer = await system.client.get(f"/prices/{symbol}/history", params=params)
        rows = answer.json().get("data", []) if answer.is_success else []
        return (
            rows if len(rows) == len(expected) and sum(row["trades"] for row in rows) == len(trades) else None
        )

    rows = await system.until(
        stored, what=f"{len(expected)} candles of {symbol}", of="indicators", seconds=60
    )
    got = {
        row["open_time"]: (
            *(Decimal(row[name]) for name in ("open", "high", "low", "close", "volume")),
            row["trades"],
        )
        for row in rows
    }
    assert got == expected
    assert all(row["simulated"] is False for row in rows)
