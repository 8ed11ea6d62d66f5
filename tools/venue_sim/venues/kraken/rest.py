"""Kraken's `/0/public`: every answer is 200 with an `error` list and a `result`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tools.venue_sim.market import bars
from tools.venue_sim.market.market import Market
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.net.messages import Request, Response, json_response
from tools.venue_sim.venues.coinbase.rest import Bucket
from tools.venue_sim.venues.kraken import wire

VENUE: Final = "kraken"
INTERVALS: Final = {1: "1m", 5: "5m", 15: "15m", 30: "30m", 60: "1h", 240: "4h", 1440: "1d", 10080: "1w"}
MOST_ROWS: Final = 720
MOST_TRADES: Final = 1000


class KrakenError(Exception):
    """An entry of the `error` list."""


class KrakenRest:
    """Time, SystemStatus, AssetPairs, Ticker, Trades, OHLC."""

    def __init__(self, market: Market, per_second: float, burst: int) -> None:
        self._market = market
        self._bucket = Bucket(per_second, burst)

    async def answer(self, request: Request) -> Response:
        """One call, limited by address and pair."""
        name = request.path.removeprefix("/0/public/").strip("/")
        handlers = {
            "Time": self._time,
            "SystemStatus": self._status,
            "AssetPairs": self._asset_pairs,
            "Ticker": self._ticker,
            "Trades": self._trades,
            "OHLC": self._ohlc,
        }
        if name not in handlers or not request.path.startswith("/0/public/"):
            return json_response({"error": ["EGeneral:Unknown method"]}, 404)
        if self._bucket.take(f"{request.peer}/{request.query.get('pair', '')}") < 0:
            return json_response({"error": ["EAPI:Rate limit exceeded"]})
        try:
            return json_response({"error": [], "result": await handlers[name](request)})
        except KrakenError as error:
            return json_response({"error": [str(error)]})

    def _pair(self, request: Request) -> Pair:
        found = self._named(request.query.get("pair", ""))
        if found is None:
            raise KrakenError("EQuery:Unknown asset pair")
        return found

    def _named(self, name: str) -> Pair | None:
        for pair in self._market.of(VENUE):
            if name in {pair.instrument.native, wire.alt_name(pair), wire.key_name(pair), wire.v2_name(pair)}:
                return pair
        return None

    async def _time(self, _: Request) -> Any:
        at_us = self._market.venue_us(VENUE)
        return {"unixtime": at_us // 1_000_000, "rfc1123": wire.iso_text(at_us)}

    async def _status(self, _: Request) -> Any:
        return {"status": "online", "timestamp": wire.iso_text(self._market.venue_us(VENUE))[:19] + "Z"}

    async def _asset_pairs(self, request: Request) -> Any:
        wanted = request.values("pair")
        pairs = [self._named(name) for name in wanted] if wanted else list(self._market.of(VENUE))
        if None in pairs:
            raise KrakenError("EQuery:Unknown asset pair")
        return {wire.key_name(pair): wire.asset_pair(pair) for pair in pairs if pair is not None}

    async def _ticker(self, request: Request) -> Any:
        wanted = request.values("pair")
        pairs = [self._named(name) for name in wanted] if wanted else list(self._market.of(VENUE))
        if None in pairs:
            raise KrakenError("EQuery:Unknown asset pair")
        now_ms = self._market.venue_ms(VENUE)
        return {
            wire.key_name(pair): wire.v1_ticker(pair, pair.day_stats(now_ms))
            for pair in pairs
            if pair is not None
        }

    async def _trades(self, request: Request) -> Any:
        pair = self._pair(request)
        limit = min(_whole(request, "count") or MOST_TRADES, MOST_TRADES)
        since = _whole(request, "since")
        if since is None:
            found = pair.tape.latest(limit)
        else:
            found = pair.tape.between(since // 1000 + 1, 1 << 61, limit)
        rows = [
            [
                pair.price_text(price),
                pair.size_text(size, 8),
                at_us / 1e6,
                "s" if sold else "b",
                "m",
                "",
                made,
            ]
            for made, price, size, at_us, sold in found
        ]
        last = found[-1][3] * 1000 if found else (since or 0)
        return {wire.key_name(pair): rows, "last": str(last)}

    async def _ohlc(self, request: Request) -> Any:
        pair = self._pair(request)
        minutes = _whole(request, "interval") or 1
        interval = INTERVALS.get(minutes)
        if interval is None:
            raise KrakenError("EGeneral:Invalid arguments")
        now_ms = self._market.venue_ms(VENUE)
        newest = bars.bucket_start(now_ms, interval)
        first = newest - MOST_ROWS * minutes * bars.MINUTE_MS
        rows = await pair.tape.rows(interval, first, newest)
        since = _whole(request, "since") or 0
        cells = [row for row in _with_quiet(pair, rows, newest, minutes * bars.MINUTE_MS) if row[0] >= since]
        last = cells[-2][0] if len(cells) > 1 else newest // 1000
        return {wire.key_name(pair): cells, "last": last}


def _with_quiet(pair: Pair, rows: bars.Rows, newest_ms: int, width_ms: int) -> list[list[Any]]:
    """Rows as Kraken writes them; quiet intervals are flat with a weighted price of 0.0."""
    if not len(rows):
        return []
    found = {int(row[bars.OPEN_TIME]): row for row in rows}
    cells: list[list[Any]] = []
    close = int(rows[0, bars.OPEN])
    for start in range(int(rows[0, bars.OPEN_TIME]), newest_ms + 1, width_ms):
        row = found.get(start)
        if row is None:
            flat = pair.price_text(close)
            cells.append([start // 1000, flat, flat, flat, flat, "0.0", pair.size_text(0, 8), 0])
        else:
            close = int(row[bars.CLOSE])
            cells.append(_row(pair, row))
    return cells


def _row(pair: Pair, row: Any) -> list[Any]:
    volume = int(row[bars.VOLUME])
    weighted = int(np.int64(bars.quote_volume(row) // volume)) if volume else 0
    columns = (bars.OPEN, bars.HIGH, bars.LOW, bars.CLOSE)
    return [
        int(row[bars.OPEN_TIME]) // 1000,
        *(pair.price_text(int(row[column])) for column in columns),
        pair.price_text(weighted),
        pair.size_text(volume, 8),
        int(row[bars.TRADES]),
    ]


def _whole(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None or text == "":
        return None
    if not text.isdigit():
        raise KrakenError("EGeneral:Invalid arguments")
    return int(text)
