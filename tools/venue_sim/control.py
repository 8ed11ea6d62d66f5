"""The control API: the ledger that judges tests, scripts of prices, faults, pauses. JSON over HTTP on its own port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from tools.venue_sim.market import bars
from tools.venue_sim.market.market import Script
from tools.venue_sim.market.pair import Pair, short
from tools.venue_sim.net.messages import Request, Response, Session, json_response
from tools.venue_sim.net.websocket import WsConnection
from tools.venue_sim.report import sample, stats

if TYPE_CHECKING:
    from tools.venue_sim.simulator import Simulator

Route = Callable[[Request, list[str]], Awaitable[Any]]


class ControlError(ValueError):
    """The request is wrong; the text says how."""


class ControlSite:
    """`GET /`, `/stats`, `/pairs/{venue}`, `/ledger/{venue}/{symbol}`, `/trades/{venue}/{symbol}`, `/faults`;
    `POST /script`, `/trade`, `/list`, `/fault`, `/rate`, `/pause`, `/resume`; `DELETE /fault[/{id}]`, `/script/{venue}/{symbol}`.
    """

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._first = sample(simulator)
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", ""): self._index,
            ("GET", "stats"): self._stats,
            ("GET", "pairs"): self._pairs,
            ("GET", "ledger"): self._ledger,
            ("GET", "trades"): self._trades,
            ("GET", "faults"): self._faults,
            ("GET", "fault"): self._faults,
            ("POST", "fault"): self._add_fault,
            ("DELETE", "fault"): self._remove_fault,
            ("POST", "script"): self._script,
            ("DELETE", "script"): self._remove_script,
            ("POST", "trade"): self._trade,
            ("POST", "list"): self._list,
            ("POST", "rate"): self._rate,
            ("POST", "pause"): self._pause,
            ("POST", "resume"): self._resume,
        }

    async def http(self, request: Request) -> Response:
        """One call."""
        parts = [part for part in request.path.split("/") if part]
        route = self._routes.get((request.method, parts[0] if parts else ""))
        if route is None:
            return json_response({"error": f"no such path: {request.method} {request.path}"}, 404)
        try:
            return json_response(await route(request, parts[1:]))
        except (InvalidOperation, ValueError) as error:
            return json_response({"error": str(error)}, 400)

    def websocket(self, _: Request, __: WsConnection, /) -> Session | Response:
        """There is none."""
        return Response(404, b"", content_type="text/plain")

    def _pair(self, venue: str, symbol: str) -> Pair:
        found = self._simulator.market.find(venue, symbol)
        if found is None:
            raise ControlError(f"{venue} does not list {symbol}")
        return found

    def _named(self, parts: list[str]) -> Pair:
        if len(parts) < 2:
            raise ControlError("the path needs a venue and a symbol")
        return self._pair(parts[0], "/".join(parts[1:]))

    # -- looking

    async def _index(self, _: Request, __: list[str]) -> Any:
        urls = self._simulator.urls
        return {
            "urls": {name: getattr(urls, name) for name in urls.__slots__},
            "seed": self._simulator.options.seed,
            "source": "recording" if self._simulator.options.play else "synthetic",
            "playback": self._simulator.playback_state(),
            "paths": sorted(f"{method} /{path}" for method, path in self._routes),
        }

    async def _stats(self, _: Request, __: list[str]) -> Any:
        return stats(self._simulator, self._first)

    async def _pairs(self, _: Request, parts: list[str]) -> Any:
        venue = parts[0] if parts else ""
        return [
            {
                "venue": pair.instrument.venue,
                "symbol": pair.symbol,
                "native": pair.instrument.native,
                "status": pair.status,
                "bid": pair.price_text(pair.bid),
                "ask": pair.price_text(pair.ask),
            }
            for pair in self._simulator.market.all_pairs()
            if not venue or pair.instrument.venue == venue
        ]

    async def _ledger(self, request: Request, parts: list[str]) -> Any:
        """Totals of the live trades since the start, and the minutes; `?from=`, `?to=` in ms bound the minutes, and
        `?from_id=`, `?to_id=` the trades that are summed.
        """
        return ledger(self._named(parts), request.query)

    async def _trades(self, request: Request, parts: list[str]) -> Any:
        pair = self._named(parts)
        limit = int(request.query.get("limit", "1000"))
        first = request.query.get("from_id")
        found = pair.tape.latest(limit) if first is None else pair.tape.from_id(int(first), limit)
        return [
            {
                "id": made,
                "price": pair.price_text(price),
                "size": pair.size_text(size),
                "time_us": at_us,
                "taker": "sell" if sold else "buy",
            }
            for made, price, size, at_us, sold in found
        ]

    async def _faults(self, _: Request, __: list[str]) -> Any:
        return self._simulator.faults.describe()

    # -- acting

    async def _add_fault(self, request: Request, _: list[str]) -> Any:
        specs = request.json()
        made = [self._simulator.faults.add(spec) for spec in (specs if isinstance(specs, list) else [specs])]
        found = [{"id": fault.number, "kind": fault.kind, "hits": fault.hits} for fault in made]
        return found if isinstance(specs, list) else found[0]

    async def _remove_fault(self, _: Request, parts: list[str]) -> Any:
        if not parts:
            self._simulator.faults.clear()
            return {"removed": True}
        return {"removed": parts[0].isdigit() and self._simulator.faults.remove(int(parts[0]))}

    async def _script(self, request: Request, _: list[str]) -> Any:
        body = request.json()
        pair = self._pair(str(body.get("venue")), str(body.get("symbol")))
        if "path" not in body:
            return await self._trade(request, [])
        self._simulator.synthetic()
        points = [(float(seconds), float(price)) for seconds, price in body["path"]]
        if not points or any(price <= 0 for _, price in points):
            raise ControlError("path is a list of [seconds from now, price above 0]")
        market = self._simulator.market
        pair.script = Script(market.now_us(), sorted(points), bool(body.get("hold", True)))
        pair.priced_us = 0
        return {"scripted": pair.symbol, "points": len(points)}

    async def _remove_script(self, _: Request, parts: list[str]) -> Any:
        pair = self._named(parts)
        pair.script = None
        return {"removed": True}

    async def _trade(self, request: Request, _: list[str]) -> Any:
        body = request.json()
        pair = self._pair(str(body.get("venue")), str(body.get("symbol")))
        if "price" not in body:
            raise ControlError("give a path, or a price for one trade")
        price = int((Decimal(str(body["price"])) * pair.price_scale).to_integral_value())
        size = None if "size" not in body else int(Decimal(str(body["size"])) * pair.size_scale)
        if price < 1 or size == 0:
            raise ControlError("price and size are at least one step")
        now_us = self._simulator.market.venue_us(pair.instrument.venue)
        shifted_us = now_us + int(body.get("shift_ms", 0)) * 1000
        at_us = int(body["time_us"]) if "time_us" in body else shifted_us
        trade = self._simulator.trade_now(pair, price, size, sold=body.get("side") == "sell", at_us=at_us)
        return {
            "id": trade[0],
            "price": pair.price_text(trade[1]),
            "size": pair.size_text(trade[2]),
            "time_us": trade[3],
        }

    async def _list(self, request: Request, _: list[str]) -> Any:
        body = request.json()
        pair = self._simulator.list_new(str(body.get("venue")), str(body.get("symbol")))
        return {"venue": pair.instrument.venue, "symbol": pair.symbol, "native": pair.instrument.native}

    async def _rate(self, request: Request, _: list[str]) -> Any:
        rate = float(request.json().get("rate", -1))
        if rate < 0:
            raise ControlError("rate is trades per second, 0 or more")
        self._simulator.set_rate(rate)
        return {"rate": rate}

    async def _pause(self, _: Request, __: list[str]) -> Any:
        self._simulator.set_paused(paused=True)
        return {"paused": True}

    async def _resume(self, _: Request, __: list[str]) -> Any:
        self._simulator.set_paused(paused=False)
        return {"paused": False}


def ledger(pair: Pair, query: Any) -> dict[str, Any]:
    """What the venue itself booked. Decimals are text without trailing zeros, exact."""
    tape = pair.tape
    first = max(int(query.get("from_id", tape.started_id)), 1)
    last = min(int(query.get("to_id", tape.next_id - 1)), tape.next_id - 1)
    bounded = "from_id" in query or "to_id" in query
    count, volume, quote = tape.totals(first, last) if bounded else tape.totals_since_start()
    rows = tape.live_minutes(int(query.get("from", 0)), int(query.get("to", 1 << 62)))
    return {
        "venue": pair.instrument.venue,
        "symbol": pair.symbol,
        "native": pair.instrument.native,
        "count": count,
        "first_id": first if count else None,
        "last_id": last if count else None,
        "volume": short(pair.size_text(volume)),
        "quote_volume": short(
            pair.quote_text(quote, pair.instrument.price_decimals + pair.instrument.size_decimals)
        ),
        "live_from_ms": tape.live_from_ms,
        "minutes": [
            {
                "open_time": int(row[bars.OPEN_TIME]),
                "open": short(pair.price_text(int(row[bars.OPEN]))),
                "high": short(pair.price_text(int(row[bars.HIGH]))),
                "low": short(pair.price_text(int(row[bars.LOW]))),
                "close": short(pair.price_text(int(row[bars.CLOSE]))),
                "volume": short(pair.size_text(int(row[bars.VOLUME]))),
                "quote_volume": short(
                    pair.quote_text(
                        bars.quote_volume(row), pair.instrument.price_decimals + pair.instrument.size_decimals
                    )
                ),
                "trades": int(row[bars.TRADES]),
                "taker_buy_volume": short(pair.size_text(int(row[bars.BUY_VOLUME]))),
                "first_id": int(row[bars.FIRST_ID]),
                "last_id": int(row[bars.LAST_ID]),
            }
            for row in rows
        ],
    }
