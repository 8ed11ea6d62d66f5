"""Recorded frames through the whole ingestor: every trade once, in order, with the taker's side, under its own date."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tools.venue_sim.testing import running_simulator


def recorded(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.gz")):
        with gzip.open(path, "rb") as lines:
            for line in lines:
                if b"@trade" in line[:60]:
                    data = json.loads(line.partition(b" ")[2], parse_float=str)["data"]
                    found.setdefault(data["s"], []).append(data)
    return found


@pytest.mark.timeout(90)
async def test_all_recorded_binance_trades_arrive_once_each_in_order(
    shared_data: Path, collector: Any, ingestor: Any, eventually: Any
) -> None:
    folder = shared_data / "recordings" / "binance_spot_ws"
    sent = recorded(folder)
    assert sum(map(len, sent.values())) == 15_863
    async with running_simulator(process=True, play=(str(folder),), speed=0) as sim:
        ingestor.environment |= sim.environment()
        await ingestor.start(SYMBOLS="BTC-USDT,ETH-USDT", CRYPTOPULSE_INGESTOR_VENUES="binance", FEED="live")
        await eventually(lambda: sum(map(len, collector.trades.values())) >= 15_863, 60)
    for native, rows in sent.items():
        got = collector.trades["binance", native.replace("USDT", "-USDT")]
        assert [t.trade_id for t in got] == [row["t"] for row in rows]
        assert [(t.price, t.size) for t in got] == [(Decimal(row["p"]), Decimal(row["q"])) for row in rows]
        assert [t.side for t in got] == ["sell" if row["m"] else "buy" for row in rows]
        assert [t.event_us for t in got] == [row["T"] * 1_000 for row in rows]
        assert not any(t.flags for t in got)
    assert collector.conflated == []
    # the recording is years old: the venue's clock is that much behind ours, and said so
    last = collector.batches[-1]
    assert last.clock_offset_us < -365 * 86_400 * 1_000_000
    assert not last.simulated
