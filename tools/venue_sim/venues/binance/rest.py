"""Binance's `/api/v3`: parameters, weights, errors and answers as the venue gives them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np
import orjson

from tools.venue_sim.market import bars
from tools.venue_sim.market.market import Market
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net.messages import Request, Response, json_response
from tools.venue_sim.venues.binance import wire

VENUE: Final = "binance"


class BinanceError(Exception):
    """An error answer."""

    def __init__(self, code: int, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.status = status


class WeightLimiter:
    """Weight by address and minute: 429 beyond the limit, 418 for who goes on regardless."""

    def __init__(self, limit: int, ban_seconds: int) -> None:
        self.limit = limit
        self._ban_seconds = ban_seconds
        self._minute = 0
        self._used: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._banned_until: dict[str, float] = {}

    def take(self, peer: str, weight: int) -> tuple[int, Response | None]:
        """Used weight after this call, and the refusal if it is one."""
        now = time.time()
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._used.clear()
            self._refusals.clear()
        until = self._banned_until.get(peer, 0.0)
        if until > now:
            text = f"Way too much request weight used; IP banned until {int(until * 1000)}."
            return self._used.get(peer, 0), _refusal(418, text, math.ceil(until - now))
        used = self._used[peer] = self._used.get(peer, 0) + weight
        if used <= self.limit:
            return used, None
        refusals = self._refusals[peer] = self._refusals.get(peer, 0) + 1
        if refusals > 20:
            self._banned_until[peer] = now + self._ban_seconds
        text = f"Too much request weight used; current limit is {self.limit} request weight per 1 MINUTE."
        return used, _refusal(429, text, max(1, math.ceil(60 - now % 60)))


def _refusal(status: int, text: str, retry_after: int) -> Response:
    return json_response({"code": -1003, "msg": text}, status, {"Retry-After": str(retry_after)})


Answer = Callable[[Request], Awaitable[Any]]


class BinanceRest:
    """Every endpoint with its weight."""

    def __init__(self, market: Market, weight_per_minute: int, ban_seconds: int) -> None:
        self._market = market
        self.limiter = WeightLimiter(weight_per_minute, ban_seconds)
        self._routes: dict[str, tuple[Answer, Callable[[Request], int]]] = {
            "ping": (self._ping, lambda _: 1),
            "time": (self._time, lambda _: 1),
            "exchangeInfo": (self._exchange_info, lambda _: 20),
            "klines": (self._klines, lambda _: 2),
            "uiKlines": (self._klines, lambda _: 2),
            "trades": (self._trades, lambda _: 25),
            "historicalTrades": (self._historical, lambda _: 25),
            "aggTrades": (self._agg_trades, lambda _: 4),
            "ticker/24hr": (self._day_ticker, _ticker_weight),
            "ticker/price": (self._price, lambda request: 2 if "symbol" in request.query else 4),
            "ticker/bookTicker": (self._book_ticker, lambda request: 2 if "symbol" in request.query else 4),
            "depth": (self._depth, _depth_weight),
        }

    async def answer(self, request: Request) -> Response:
        """One call, limited and answered."""
        path = request.path.rstrip("/")
        route = self._routes.get(path[8:]) if path.startswith("/api/v3/") else None
        if route is None:
            return Response(404, b"<html><body>404 Not found</body></html>", content_type="text/html")
        handler, weigh = route
        used, refused = self.limiter.take(request.peer, weigh(request))
        if refused is None:
            try:
                refused = json_response(await handler(request))
            except BinanceError as error:
                refused = json_response({"code": error.code, "msg": error.text}, error.status)
        refused.headers |= {
            "x-mbx-uuid": "00000000-0000-4000-8000-000000000000",
            "X-MBX-USED-WEIGHT": str(used),
            "X-MBX-USED-WEIGHT-1M": str(used),
            "Date": wire.http_date(self._market.venue_ms(VENUE)),
        }
        return refused

    # -- parameters

    def _pair(self, request: Request) -> Pair:
        name = request.query.get("symbol")
        if not name:
            raise BinanceError(
                -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            )
        return self._named(name)

    def _named(self, name: str) -> Pair:
        if not name.isalnum() or not name.isascii():
            raise BinanceError(
                -1100,
                "Illegal characters found in parameter 'symbol'; legal range is '^[A-Z0-9-_.]{1,20}$'.",
            )
        pair = self._market.native(VENUE, name)
        if pair is None:
            raise BinanceError(-1121, "Invalid symbol.")
        return pair

    def _pairs(self, request: Request) -> list[Pair] | None:
        text = request.query.get("symbols")
        if text is None:
            return None
        try:
            names = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise BinanceError(-1100, "Illegal characters found in parameter 'symbols'.") from error
        return [self._named(str(name)) for name in names]

    def _listed(self) -> list[Pair]:
        return list(self._market.of(VENUE))

    # -- endpoints

    async def _ping(self, _: Request) -> Any:
        return {}

    async def _time(self, _: Request) -> Any:
        return {"serverTime": self._market.venue_ms(VENUE)}

    async def _exchange_info(self, request: Request) -> Any:
        chosen = (
            [self._pair(request)] if "symbol" in request.query else self._pairs(request) or self._listed()
        )
        status = request.query.get("symbolStatus")
        if status:
            chosen = [pair for pair in chosen if pair.status == status]
        return {
            "timezone": "UTC",
            "serverTime": self._market.venue_ms(VENUE),
            "rateLimits": [
                _limit("REQUEST_WEIGHT", "MINUTE", 1, self.limiter.limit),
                _limit("ORDERS", "SECOND", 10, 100),
                _limit("ORDERS", "DAY", 1, 200_000),
                _limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
            ],
            "exchangeFilters": [],
            "symbols": [wire.exchange_symbol(pair) for pair in chosen],
        }

    async def _klines(self, request: Request) -> Any:
        pair = self._pair(request)
        interval = request.query.get("interval")
        if not interval:
            raise BinanceError(
                -1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed."
            )
        if interval not in bars.INTERVALS_MS:
            raise BinanceError(-1120, "Invalid interval.")
        limit = _count(request, 500, 1000)
        start, end = _time_ms(request, "startTime"), _time_ms(request, "endTime")
        now_ms = self._market.venue_ms(VENUE)
        last = min(end if end is not None else now_ms, now_ms)
        width = bars.INTERVALS_MS[interval] or 31 * bars.DAY_MS
        first = bars.bucket_start(last, interval) - (limit - 1) * width if start is None else start
        if start is not None:
            last = min(last, start + limit * width)
        rows = await pair.tape.rows(interval, first, last)
        rows = _with_quiet(rows, interval, last)
        rows = rows[-limit:] if start is None else rows[:limit]
        unit = _unit(request)
        return [wire.kline_row(pair, row, interval, unit) for row in rows]

    async def _trades(self, request: Request) -> Any:
        pair = self._pair(request)
        found = pair.tape.latest(_count(request, 500, 1000))
        return [wire.rest_trade(pair, trade, _unit(request)) for trade in found]

    async def _historical(self, request: Request) -> Any:
        pair = self._pair(request)
        limit = _count(request, 500, 1000)
        first = _integer(request, "fromId")
        found = pair.tape.latest(limit) if first is None else pair.tape.from_id(max(first, 1), limit)
        return [wire.rest_trade(pair, trade, _unit(request)) for trade in found]

    async def _agg_trades(self, request: Request) -> Any:
        pair = self._pair(request)
        limit = _count(request, 500, 1000)
        first = _integer(request, "fromId")
        start, end = _time_ms(request, "startTime"), _time_ms(request, "endTime")
        found: list[Trade]
        if first is not None:
            found = pair.tape.from_id(max(first, 1), limit)
        elif start is not None:
            found = pair.tape.between(start * 1000, (1 << 61) if end is None else end * 1000 + 999, limit)
        elif end is not None:
            found = pair.tape.until(end * 1000 + 999, limit)
        else:
            found = pair.tape.latest(limit)
        return [wire.rest_agg_trade(pair, trade, _unit(request)) for trade in found]

    async def _day_ticker(self, request: Request) -> Any:
        mini = request.query.get("type", "FULL") == "MINI"
        now_ms = self._market.venue_ms(VENUE)
        if "symbol" in request.query:
            pair = self._pair(request)
            return wire.rest_ticker(pair, pair.day_stats(now_ms), mini=mini)
        rows = []
        for pair in self._pairs(request) or self._listed():
            rows.append(wire.rest_ticker(pair, pair.day_stats(now_ms), mini=mini))
            await asyncio.sleep(0)
        return rows

    async def _price(self, request: Request) -> Any:
        def row(pair: Pair) -> dict[str, str]:
            newest = pair.last_trade()
            price = newest[1] if newest else pair.bid
            return {"symbol": pair.instrument.native, "price": pair.price_text(price, 8)}

        if "symbol" in request.query:
            return row(self._pair(request))
        return [row(pair) for pair in self._pairs(request) or self._listed()]

    async def _book_ticker(self, request: Request) -> Any:
        def row(pair: Pair) -> dict[str, str]:
            return {
                "symbol": pair.instrument.native,
                "bidPrice": pair.price_text(pair.bid, 8),
                "bidQty": pair.size_text(pair.bid_size or 1, 8),
                "askPrice": pair.price_text(pair.ask, 8),
                "askQty": pair.size_text(pair.ask_size or 1, 8),
            }

        if "symbol" in request.query:
            return row(self._pair(request))
        return [row(pair) for pair in self._pairs(request) or self._listed()]

    async def _depth(self, request: Request) -> Any:
        pair = self._pair(request)
        limit = _count(request, 100, 5000)
        sizes = [max(1, int(pair.mean_size * (1 + level % 7))) for level in range(limit)]
        return {
            "lastUpdateId": pair.update_id,
            "bids": [
                [pair.price_text(pair.bid - level, 8), pair.size_text(size, 8)]
                for level, size in enumerate(sizes)
                if pair.bid - level > 0
            ],
            "asks": [
                [pair.price_text(pair.ask + level, 8), pair.size_text(size, 8)]
                for level, size in enumerate(sizes)
            ],
        }


def _limit(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _ticker_weight(request: Request) -> int:
    if "symbol" in request.query:
        return 2
    symbols = request.query.get("symbols")
    if symbols is None:
        return 80
    count = symbols.count(",") + 1
    if count <= 20:
        return 2
    return 40 if count <= 100 else 80


def _depth_weight(request: Request) -> int:
    text = request.query.get("limit", "100")
    limit = int(text) if text.isdigit() else 100
    for bound, weight in ((100, 5), (500, 25), (1000, 50)):
        if limit <= bound:
            return weight
    return 250


def _integer(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not text.lstrip("-").isdigit():
        raise BinanceError(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
        )
    return int(text)


def _count(request: Request, default: int, most: int) -> int:
    limit = _integer(request, "limit")
    if limit is not None and limit < 1:
        raise BinanceError(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(default if limit is None else limit, most)


def _time_ms(request: Request, name: str) -> int | None:
    value = _integer(request, name)
    return value // 1000 if value is not None and value > 10**14 else value


def _unit(request: Request) -> int:
    return 1000 if request.headers.get("x-mbx-time-unit", "").upper() == "MICROSECOND" else 1


def _with_quiet(rows: bars.Rows, interval: str, last: int) -> bars.Rows:
    """Rows with flat ones for the intervals without trades, as the venue shows them; none before the first trade."""
    if not len(rows) or interval == "1M":
        return rows
    width = bars.INTERVALS_MS[interval]
    start = int(rows[0, bars.OPEN_TIME])
    stop = bars.bucket_start(last, interval)
    count = (stop - start) // width + 1
    if count == len(rows):
        return rows
    filled = np.zeros((count, bars.COLUMNS), dtype=np.int64)
    index = (rows[:, bars.OPEN_TIME] - start) // width
    filled[index] = rows
    present = np.zeros(count, dtype=np.bool_)
    present[index] = True
    newest = np.maximum.accumulate(np.where(present, np.arange(count), 0))
    quiet = ~present
    filled[quiet, bars.OPEN_TIME] = start + np.flatnonzero(quiet) * width
    closes = filled[newest[quiet], bars.CLOSE]
    for column in (bars.OPEN, bars.HIGH, bars.LOW, bars.CLOSE):
        filled[quiet, column] = closes
    for column in (bars.FIRST_ID, bars.LAST_ID):
        filled[quiet, column] = -1
    return filled
