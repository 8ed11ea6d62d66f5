"""Coinbase's public REST: Advanced Trade's `/api/v3/brokerage` and Exchange's `/products`, limited by address."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from tools.venue_sim.market import bars
from tools.venue_sim.market.market import Market
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net.messages import Request, Response, json_response
from tools.venue_sim.venues.coinbase import wire

VENUE: Final = "coinbase"
ADVANCED_GRANULARITY: Final = {
    "ONE_MINUTE": "1m",
    "FIVE_MINUTE": "5m",
    "FIFTEEN_MINUTE": "15m",
    "THIRTY_MINUTE": "30m",
    "ONE_HOUR": "1h",
    "TWO_HOUR": "2h",
    "FOUR_HOUR": "4h",
    "SIX_HOUR": "6h",
    "ONE_DAY": "1d",
}
EXCHANGE_GRANULARITY: Final = {60: "1m", 300: "5m", 900: "15m", 3600: "1h", 21600: "6h", 86400: "1d"}
MOST_ADVANCED_CANDLES: Final = 350
MOST_EXCHANGE_CANDLES: Final = 300
_NO_ALIAS: Final = frozenset({"USDT", "USDC", "EUR", "EURC"})


class CoinbaseError(Exception):
    """An error answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Bucket:
    """A token bucket by address."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._state: dict[str, tuple[float, float]] = {}

    def take(self, peer: str) -> float:
        """Tokens left after this call; negative means refused."""
        now = time.monotonic()
        tokens, at = self._state.get(peer, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_second)
        left = tokens - 1
        self._state[peer] = (left if left >= 0 else tokens, now)
        return left


class CoinbaseRest:
    """Both interfaces."""

    def __init__(self, market: Market, per_second: float, burst: int) -> None:
        self._market = market
        self._burst = burst
        self._bucket = Bucket(per_second, burst)

    async def answer(self, request: Request) -> Response:
        """One call, limited and answered."""
        advanced = request.path.startswith("/api/v3/brokerage/")
        left = self._bucket.take(request.peer)
        if left < 0:
            text = "Public rate limit exceeded"
            body = (
                {"error": "RATE_LIMIT_EXCEEDED", "error_details": text, "message": text}
                if advanced
                else {"message": text}
            )
            return json_response(body, 429)
        try:
            if "user-agent" not in request.headers:
                raise CoinbaseError(400, "User-Agent header is required.")
            path = request.path.removeprefix("/api/v3/brokerage").strip("/").split("/")
            response = await (self._advanced(path, request) if advanced else self._exchange(path, request))
        except CoinbaseError as error:
            kind = "NOT_FOUND" if error.status == 404 else "INVALID_ARGUMENT"
            body = (
                {"error": kind, "error_details": error.text, "message": error.text}
                if advanced
                else {"message": error.text}
            )
            response = json_response(body, error.status)
        response.headers |= {
            "x-ratelimit-limit": str(self._burst),
            "x-ratelimit-remaining": str(int(left)),
            "x-ratelimit-reset": "1",
        }
        return response

    def _pair(self, name: str, *, alias: bool) -> Pair:
        found = self._market.native(VENUE, name)
        if found is None and alias and name.endswith("-USDC"):
            found = self._market.native(VENUE, name[:-1])
        if found is None:
            raise CoinbaseError(404, "valid product_id is required" if alias else "NotFound")
        return found

    # -- Advanced Trade

    async def _advanced(self, path: list[str], request: Request) -> Response:
        if path == ["time"]:
            now_us = self._market.venue_us(VENUE)
            return json_response(
                {
                    "iso": wire.micros_text(now_us)[:19] + "Z",
                    "epochSeconds": str(now_us // 1_000_000),
                    "epochMillis": str(now_us // 1000),
                }
            )
        if path[:2] == ["market", "products"]:
            if len(path) == 2:
                return json_response(await self._products(request))
            pair = self._pair(path[2], alias=True)
            rest = path[3:]
            if not rest:
                return json_response(self._product(pair, path[2]))
            if rest == ["ticker"]:
                return json_response(self._recent(pair, request))
            if rest == ["candles"]:
                return json_response(await self._advanced_candles(pair, request))
        if path == ["market", "product_book"]:
            return json_response(self._book(self._pair(request.query.get("product_id", ""), alias=True)))
        raise CoinbaseError(404, "not found")

    def _product(self, pair: Pair, name: str) -> dict[str, Any]:
        stats = pair.day_stats(self._market.venue_ms(VENUE))
        native = pair.instrument.native
        if name != native:
            return wire.advanced_product(pair, stats, alias=native)
        twin = [f"{pair.instrument.base}-USDC"] if self._has_twin(pair) else []
        return wire.advanced_product(pair, stats, alias_to=twin)

    def _has_twin(self, pair: Pair) -> bool:
        instrument = pair.instrument
        return instrument.quote == "USD" and instrument.base not in _NO_ALIAS

    async def _products(self, request: Request) -> dict[str, Any]:
        wanted = set(request.values("product_ids"))
        rows = []
        for pair in list(self._market.of(VENUE)):
            names = [pair.instrument.native]
            if self._has_twin(pair):
                names.append(f"{pair.instrument.base}-USDC")
            rows += [self._product(pair, name) for name in names if not wanted or name in wanted]
            await asyncio.sleep(0)
        offset = _integer(request, "offset", 0)
        limit = _integer(request, "limit", len(rows))
        page = rows[offset : offset + limit]
        return {
            "products": page,
            "num_products": len(page),
            "pagination": {"prev_cursor": "", "next_cursor": "", "has_next": False, "has_prev": False},
        }

    def _recent(self, pair: Pair, request: Request) -> dict[str, Any]:
        limit = min(max(_integer(request, "limit", 100), 1), 1000)
        start = _integer(request, "start", 0) * 1_000_000
        end = request.query.get("end")
        found = (
            pair.tape.latest(limit)
            if not end
            else pair.tape.until(_integer(request, "end", 0) * 1_000_000, limit)
        )
        trades = [
            {
                "trade_id": str(made),
                "product_id": pair.instrument.native,
                "price": wire.price_text(pair, price),
                "size": wire.size_text(pair, size),
                "time": wire.micros_text(at_us),
                "side": "BUY" if sold else "SELL",
                "bid": "",
                "ask": "",
                "exchange": "",
            }
            for made, price, size, at_us, sold in reversed(found)
            if at_us >= start
        ]
        return {
            "trades": trades,
            "best_bid": wire.price_text(pair, pair.bid),
            "best_ask": wire.price_text(pair, pair.ask),
        }

    async def _advanced_candles(self, pair: Pair, request: Request) -> dict[str, Any]:
        interval = ADVANCED_GRANULARITY.get(request.query.get("granularity", ""))
        if interval is None:
            raise CoinbaseError(400, "granularity is invalid")
        start, end = _integer(request, "start", -1), _integer(request, "end", -1)
        if start < 0 or end < 0:
            raise CoinbaseError(400, "start and end are required unix timestamps")
        width = bars.INTERVALS_MS[interval] // 1000
        if (end - start) // width > MOST_ADVANCED_CANDLES:
            raise CoinbaseError(
                400, f"number of candles requested should be less than {MOST_ADVANCED_CANDLES}"
            )
        rows = await pair.tape.rows(interval, start * 1000, min(end * 1000, self._market.venue_ms(VENUE)))
        return {
            "candles": [
                {
                    "start": str(int(row[bars.OPEN_TIME]) // 1000),
                    "low": wire.price_text(pair, int(row[bars.LOW])),
                    "high": wire.price_text(pair, int(row[bars.HIGH])),
                    "open": wire.price_text(pair, int(row[bars.OPEN])),
                    "close": wire.price_text(pair, int(row[bars.CLOSE])),
                    "volume": wire.size_text(pair, int(row[bars.VOLUME])),
                }
                for row in rows[::-1]
            ]
        }

    def _book(self, pair: Pair) -> dict[str, Any]:
        sizes = [int(pair.mean_size * (1 + level % 5)) or 1 for level in range(50)]
        return {
            "pricebook": {
                "product_id": pair.instrument.native,
                "bids": [
                    {
                        "price": wire.price_text(pair, max(1, pair.bid - level)),
                        "size": wire.size_text(pair, size),
                    }
                    for level, size in enumerate(sizes)
                ],
                "asks": [
                    {"price": wire.price_text(pair, pair.ask + level), "size": wire.size_text(pair, size)}
                    for level, size in enumerate(sizes)
                ],
                "time": wire.micros_text(self._market.venue_us(VENUE)),
            },
        }

    # -- Exchange

    async def _exchange(self, path: list[str], request: Request) -> Response:
        if path == ["time"]:
            now_us = self._market.venue_us(VENUE)
            return json_response({"iso": wire.micros_text(now_us)[:23] + "Z", "epoch": now_us / 1e6})
        if path == ["products"]:
            return json_response([wire.exchange_product(pair) for pair in self._market.of(VENUE)])
        if path[0] == "products" and len(path) in {2, 3}:
            pair = self._pair(path[1], alias=False)
            kind = path[2] if len(path) == 3 else ""
            if kind == "":
                return json_response(wire.exchange_product(pair))
            if kind == "trades":
                return self._exchange_trades(pair, request)
            if kind == "candles":
                return json_response(await self._exchange_candles(pair, request))
            if kind in {"ticker", "stats"}:
                return json_response(
                    self._exchange_ticker(pair) if kind == "ticker" else self._exchange_stats(pair)
                )
        raise CoinbaseError(404, "NotFound")

    def _exchange_trades(self, pair: Pair, request: Request) -> Response:
        limit = min(max(_integer(request, "limit", 1000), 1), 1000)
        before, after = _integer(request, "before", 0), _integer(request, "after", 0)
        found: list[Trade]
        if after:
            found = pair.tape.latest(limit, before_id=after)
        elif before:
            found = pair.tape.latest(limit)
            found = [trade for trade in found if trade[0] > before]
        else:
            found = pair.tape.latest(limit)
        rows = [wire.exchange_trade(pair, trade) for trade in reversed(found)]
        headers = {}
        if found:
            headers = {"CB-BEFORE": str(found[-1][0]), "CB-AFTER": str(found[0][0])}
        return json_response(rows, headers=headers)

    async def _exchange_candles(self, pair: Pair, request: Request) -> list[list[float]]:
        interval = EXCHANGE_GRANULARITY.get(_integer(request, "granularity", 60))
        if interval is None:
            raise CoinbaseError(400, "Unsupported granularity")
        width = bars.INTERVALS_MS[interval]
        now_ms = self._market.venue_ms(VENUE)
        given = [_moment_ms(request, name) for name in ("start", "end")]
        if (given[0] is None) != (given[1] is None):
            raise CoinbaseError(400, "start and end must be given together")
        end = now_ms if given[1] is None else given[1]
        start = end - (MOST_EXCHANGE_CANDLES - 1) * width if given[0] is None else given[0]
        if (end - start) // width > MOST_EXCHANGE_CANDLES:
            raise CoinbaseError(
                400,
                "granularity too small for the requested time range. Count of aggregations requested exceeds 300",
            )
        rows = await pair.tape.rows(interval, start, min(end, now_ms))
        price, size = float(pair.price_scale), float(pair.size_scale)
        return [
            [
                int(row[bars.OPEN_TIME]) // 1000,
                int(row[bars.LOW]) / price,
                int(row[bars.HIGH]) / price,
                int(row[bars.OPEN]) / price,
                int(row[bars.CLOSE]) / price,
                int(row[bars.VOLUME]) / size,
            ]
            for row in rows[::-1]
        ]

    def _exchange_ticker(self, pair: Pair) -> dict[str, Any]:
        newest = pair.last_trade()
        stats = pair.day_stats(self._market.venue_ms(VENUE))
        if newest is None:
            raise CoinbaseError(404, "NotFound")
        made, price, size, at_us, _ = newest
        return {
            "ask": pair.price_text(pair.ask),
            "bid": pair.price_text(pair.bid),
            "volume": wire.size_text(pair, stats.volume),
            "trade_id": made,
            "price": pair.price_text(price),
            "size": wire.size_text(pair, size),
            "time": wire.micros_text(at_us),
            "rfq_volume": "0",
        }

    def _exchange_stats(self, pair: Pair) -> dict[str, Any]:
        stats = pair.day_stats(self._market.venue_ms(VENUE))
        return {
            "open": wire.price_text(pair, stats.open),
            "high": wire.price_text(pair, stats.high),
            "low": wire.price_text(pair, stats.low),
            "last": wire.price_text(pair, stats.last),
            "volume": wire.size_text(pair, stats.volume),
            "volume_30day": wire.size_text(pair, stats.volume * 30),
        }


def _integer(request: Request, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None or text == "":
        return default
    if not text.isdigit():
        raise CoinbaseError(400, f"invalid {name}")
    return int(text)


def _moment_ms(request: Request, name: str) -> int | None:
    """A time as Exchange takes it: unix seconds or RFC 3339."""
    from datetime import datetime

    text = request.query.get(name)
    if not text:
        return None
    if text.isdigit():
        return int(text) * 1000
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError as error:
        raise CoinbaseError(400, f"invalid {name}") from error
