"""CoinGecko v3 on one port: the paths under any prefix, keys and plans, budgets, errors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from tools.venue_sim.faults import contents
from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.market.market import Market
from tools.venue_sim.market.pair import Pair, Quote
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net.messages import Request, Response, Session, json_response
from tools.venue_sim.net.websocket import WsConnection
from tools.venue_sim.venues.coingecko.catalogue import CoinCatalogue
from tools.venue_sim.venues.coingecko.charts import CoinGeckoError
from tools.venue_sim.venues.coingecko.rest import CoinGeckoRest
from tools.venue_sim.venues.site import VenueSite

_MARK: Final = "/api/v3/"
_RATE_TEXT: Final = (
    "You've exceeded the Rate Limit. Please visit https://www.coingecko.com/en/api/pricing to subscribe to our API "
    "plans for higher rate limits."
)


@dataclass(frozen=True, slots=True)
class CoinGeckoOptions:
    """Plan, key and budget. `key` empty takes any key; `retry_after` is sent with 429 when not None."""

    plan: str = "demo"
    key: str = ""
    per_minute: int = 30
    per_month: int = 10_000
    cache_seconds: float = 60.0
    retry_after: int | None = None


class Budget:
    """Calls by minute and by month, by address."""

    def __init__(self, per_minute: int, per_month: int) -> None:
        self.per_minute = per_minute
        self.per_month = per_month
        self.used_month = 0
        self._minute = 0
        self._used: dict[str, int] = {}

    def take(self, peer: str) -> bool:
        """Count a call; False when the budget is used up."""
        minute = int(time.time() // 60)
        if minute != self._minute:
            self._minute = minute
            self._used.clear()
        if self._used.get(peer, 0) >= self.per_minute or self.used_month >= self.per_month:
            return False
        self._used[peer] = self._used.get(peer, 0) + 1
        self.used_month += 1
        return True


class CoinGeckoSite(VenueSite):
    """The venue; it has no WebSocket."""

    name = "coingecko"

    def __init__(
        self,
        market: Market,
        faults: Faults,
        catalogue: CoinCatalogue,
        options: CoinGeckoOptions | None = None,
    ) -> None:
        super().__init__(market, faults)
        self.options = options or CoinGeckoOptions()
        self.budget = Budget(self.options.per_minute, self.options.per_month)
        self._rest = CoinGeckoRest(market, catalogue, self.faults)

    async def rest(self, request: Request) -> Response:
        """One call. Everything before `/api/v3/` is a proxy's prefix and is ignored, escaped or not."""
        target = request.target
        if _MARK not in target and _MARK in unquote(target):
            target = unquote(target)
        if _MARK not in target:
            return Response(404, b"<html><body>404 Not found</body></html>", content_type="text/html")
        inner = Request("GET", _MARK + target.rpartition(_MARK)[2], request.headers)
        if "user-agent" not in request.headers:
            return Response(403, contents.HTML_1020, content_type="text/html")
        refusal = self._refusal(inner) or self._over_budget(request)
        if refusal is not None:
            return refusal
        try:
            return json_response(await self._rest.answer(inner.path[len(_MARK) :].strip("/"), inner))
        except CoinGeckoError as error:
            return json_response({"error": error.text}, error.status)

    def _over_budget(self, request: Request) -> Response | None:
        if self.faults.first_hit("coin_quota") is None and self.budget.take(request.peer):
            return None
        headers = {}
        if self.options.retry_after is not None:
            headers["Retry-After"] = str(self.options.retry_after)
        return json_response({"status": {"error_code": 429, "error_message": _RATE_TEXT}}, 429, headers)

    def _refusal(self, request: Request) -> Response | None:
        demo = request.headers.get("x-cg-demo-api-key") or request.query.get("x_cg_demo_api_key")
        pro = request.headers.get("x-cg-pro-api-key") or request.query.get("x_cg_pro_api_key")
        plan, key = self.options.plan, self.options.key
        if plan != "pro" and pro:
            return _key_error(400, 10010, "If you are using Pro API key, please change your root URL from "
                              "api.coingecko.com to pro-api.coingecko.com")  # fmt: skip
        if plan == "pro" and demo:
            return _key_error(400, 10011, "If you are using Demo API key, please change your root URL from "
                              "pro-api.coingecko.com to api.coingecko.com")  # fmt: skip
        given = pro if plan == "pro" else demo
        if plan == "pro" and not given:
            return _key_error(401, 10002, "API Key Missing")
        if key and given and given != key:
            return _key_error(401, 10002, "Invalid API Key")
        return None

    def websocket(self, _: Request, __: WsConnection, /) -> Session | Response:
        """Refused: there is none."""
        return Response(404, b"", content_type="text/html")

    def publish_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """Nothing to do: CoinGecko is asked."""

    def send_trades(self, pair: Pair, trades: list[Trade]) -> None:
        """Nothing to do."""

    def publish_quotes(self, quotes: list[Quote]) -> None:
        """Nothing to do."""


def _key_error(status: int, code: int, text: str) -> Response:
    body: dict[str, Any] = {
        "timestamp": "",
        "error_code": code,
        "status": {"error_code": code, "error_message": text},
    }
    return json_response({"status": body["status"]}, status)
