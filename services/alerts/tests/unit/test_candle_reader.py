"""Candles of many spans, asked for in pages."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec

from cryptopulse.alerts.adapters.market_reader import READS, SPANS, HttpCandleReader
from cryptopulse.common.contracts.candles import CandleColumns
from cryptopulse.common.contracts.http.candles import MAX_SPAN_BARS

MINUTE = 60_000


class FakeService:
    """Answers every span with its minutes; keeps what was asked, and how many requests were under way at once."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[int, int]]] = []
        self.together = self.most = 0

    async def request(self, _method: str, path: str, *, identity: Any, params: Any) -> httpx.Response:
        del identity
        assert path == "/candles/BTC-USDT/spans"
        self.together += 1
        self.most = max(self.most, self.together)
        await asyncio.sleep(0)
        self.together -= 1
        pairs = [span.split("-") for span in params["spans"].split(",")]
        spans = [(int(since), int(until)) for since, until in pairs]
        self.asked.append(spans)
        times = [at for span in spans for at in range(*span, MINUTE)]
        opens, others = (" ".join(map(str, column)) for column in (times, [2] * len(times)))
        columns = CandleColumns(times, opens, others, others, others, others, [at % 7 > 0 for at in times])
        return httpx.Response(200, content=msgspec.msgpack.encode(columns))


async def test_spans_are_asked_for_in_pages_a_few_at_once() -> None:
    service = FakeService()
    reader = HttpCandleReader(service)  # type: ignore[arg-type]  # the one method that is used
    spans = [(number * 100 * MINUTE, (number * 100 + 15) * MINUTE) for number in range(1_500)]
    found = await reader.spans("BTC-USDT", "binance", "1m", [*spans, (600_000 * MINUTE, 610_000 * MINUTE)])
    wanted = [at for span in spans for at in range(*span, MINUTE)]
    wanted += range(600_000 * MINUTE, 610_000 * MINUTE, MINUTE)
    assert [bar.open_time for bar in found] == wanted
    assert [bar.open for bar in found] == wanted
    assert [bar.complete for bar in found] == [at % 7 > 0 for at in wanted]
    assert {bar.high + bar.low * bar.close - bar.volume for bar in found} == {4}
    sizes = [sum(until - since for since, until in part) // MINUTE for part in service.asked]
    assert max(sizes) == MAX_SPAN_BARS
    assert len(sizes) == 7
    assert all(len(part) <= SPANS for part in service.asked)
    assert 1 < service.most <= READS
