"""The judge of the route: the candles in Postgres against the venue's own ledger, minute by minute.

Consolidated ones against those of the venues: they must have counted what all of them did.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.faults.report import Report
from tests.faults.stand import Stand

MARKETS = (("binance", "BTC-USDT"), ("binance", "ETH-USDT"), ("coinbase", "BTC-USD"), ("coinbase", "SOL-USD"))
MINUTE_MS = 60_000
SETTLE_SECONDS = 330.0
"""Missing minutes are asked for when they are three minutes old, and once more a minute later."""

_CANDLES = """
SELECT c.open_time, c.open, c.high, c.low, c.close, c.volume, c.trades, c.origin
FROM market.candles c JOIN market.series s ON s.id = c.series_id
WHERE s.symbol = $1 AND s.source = $2 AND c.bar_interval = '1m' AND c.open_time BETWEEN $3 AND $4
"""

CONSOLIDATED = ("BTC-USD", "BTC-USDT")
_ALL = """
SELECT s.symbol, s.source, c.open_time, c.volume, c.complete
FROM market.candles c JOIN market.series s ON s.id = c.series_id
WHERE s.symbol = ANY($1) AND s.source <> 'coingecko' AND c.bar_interval = '1m' AND c.open_time BETWEEN $2 AND $3
"""


def minute_of(ms: float) -> int:
    """The start of the minute."""
    return int(ms) // MINUTE_MS * MINUTE_MS


@dataclass
class Judge:
    """Judges the minutes from its making to `settle`."""

    stand: Stand
    from_ms: int = field(default_factory=lambda: minute_of(time.time() * 1000))
    markets: tuple[tuple[str, str], ...] = MARKETS

    async def settle(self, report: Report, *, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until the last minute has closed and all are as the venue booked them, then fill in the report.

        What is still wrong after `seconds` counts as lost or doubled; the report says so by raising when it is closed.
        """
        last = minute_of(time.time() * 1000)
        while time.time() * 1000 < last + MINUTE_MS + 1_000:
            await asyncio.sleep(0.5)
        deadline = time.monotonic() + seconds
        while True:
            sent, handled, lost, doubled, faults = await self._compare(last)
            if not faults or time.monotonic() > deadline:
                break
            await asyncio.sleep(1.0)
        report.sent, report.handled, report.lost, report.doubled = sent, handled, lost, doubled
        if faults:
            report.notes["wrong"] = faults[:6]
            report.lost = max(report.lost, 1 if not doubled else 0)

    async def _compare(self, last_ms: int) -> tuple[int, int, int, int, list[str]]:
        sent = handled = lost = doubled = 0
        faults: list[str] = []
        for venue, symbol in self.markets:
            book = await self.stand.control(
                "GET",
                f"/ledger/{venue}/{symbol}",
                params={"from": self.from_ms, "to": last_ms + MINUTE_MS},
            )
            rows = await self.stand.rows(_CANDLES, symbol, venue, self.from_ms, last_ms)
            mine = {row["open_time"]: row for row in rows}
            minutes = [row for row in book["minutes"] if self.from_ms <= row["open_time"] <= last_ms]
            for minute in minutes:
                row = mine.get(minute["open_time"])
                sent += minute["trades"]
                got = _trades_in(row, minute)
                handled += got
                lost += max(0, minute["trades"] - got)
                doubled += max(0, got - minute["trades"])
                if row is None or not _is_equal(row, minute):
                    faults.append(f"{symbol}@{minute['open_time']}:{_shown(row)}!={_shown(minute)}")
        return sent, handled, lost, doubled, faults + await self._consolidated(last_ms)

    async def _consolidated(self, last_ms: int) -> list[str]:
        """Consolidated minutes that are missing, incomplete, or have another volume than their venues together."""
        faults: list[str] = []
        for symbol in CONSOLIDATED:
            base, quote = symbol.split("-")
            pairs = (
                [symbol] if quote != "USD" else [f"{base}-{name}" for name in ("USD", "USDT", "USDC", "EUR")]
            )
            rows = await self.stand.rows(_ALL, pairs, self.from_ms, last_ms)
            told = {
                row["open_time"]: row
                for row in rows
                if (row["symbol"], row["source"]) == (symbol, "consolidated")
            }
            counted: dict[int, Decimal] = {}
            for row in rows:
                if row["source"] != "consolidated":
                    at = row["open_time"]
                    counted[at] = counted.get(at, Decimal(0)) + row["volume"]
            for at in range(self.from_ms, last_ms + 1, MINUTE_MS):
                bar = told.get(at)
                if bar is None or not bar["complete"] or bar["volume"] != counted.get(at):
                    shown = "none" if bar is None else f"{bar['volume']} {bar['complete']}"
                    faults.append(f"{symbol}@{at}: consolidated {shown}, venues {counted.get(at)}")
        return faults


def _trades_in(row: Any, minute: dict[str, Any]) -> int:
    """A candle that the venue itself folded carries no count everywhere: with the venue's volume it holds all trades."""
    if row is None:
        return 0
    if _is_uncounted(row) and row["volume"] == Decimal(minute["volume"]):
        return int(minute["trades"])
    return int(row["trades"])


def _is_uncounted(row: Any) -> bool:
    return bool(row["origin"] != 0 and row["trades"] == 0)


def _is_equal(row: Any, minute: dict[str, Any]) -> bool:
    names = ("open", "high", "low", "close", "volume")
    same = all(row[name] == Decimal(minute[name]) for name in names)
    return same and (_is_uncounted(row) or row["trades"] == minute["trades"])


def _shown(row: Any) -> str:
    if row is None:
        return "none"
    return "/".join(str(row[name]) for name in ("open", "high", "low", "close", "volume", "trades"))
