"""One Binance WebSocket client: control messages with Binance's answers and errors, pings, life span."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from tools.venue_sim.net.websocket import WsConnection
from tools.venue_sim.venues.site import VenueSession

if TYPE_CHECKING:
    from tools.venue_sim.venues.binance.site import BinanceOptions, BinanceSite

METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
MAX_STREAMS: Final = 1024


class RequestError(Exception):
    """A control message that is answered with a code and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class BinanceSession(VenueSession):
    """Its streams in the order of subscription, and whether events come in the combined envelope."""

    def __init__(self, site: BinanceSite, connection: WsConnection, *, combined: bool, micro: bool) -> None:
        super().__init__(connection, site.options.messages_per_second)
        self._site = site
        self.combined = combined
        self.micro = micro
        self.streams: dict[str, None] = {}
        self._pinged_at = connection.opened_at
        self._pong_at = connection.opened_at

    @property
    def variant(self) -> tuple[bool, bool]:
        """Which encoding this client gets: (combined, microseconds)."""
        return self.combined, self.micro

    # -- the client's side

    def on_text(self, data: bytes) -> None:
        """A control message."""
        if not self.counted():
            return
        made: Any = None
        try:
            request = orjson.loads(data)
            made = request.get("id") if isinstance(request, dict) else None
            made = made if isinstance(made, (int, str)) else None
            answer = {"result": self._perform(request), "id": made}
        except orjson.JSONDecodeError as error:
            answer = {
                "code": 3,
                "msg": f"Invalid JSON: expected value at line {error.lineno} column {error.colno}",
            }
        except RequestError as error:
            answer = {"code": error.code, "msg": error.text}
            if made is not None:
                answer["id"] = made
        self.connection.send(orjson.dumps(answer))

    def _perform(self, request: Any) -> Any:
        if not isinstance(request, dict):
            raise RequestError(
                2, "Invalid request: invalid type, expected struct WsRequest at line 1 column 1"
            )
        _check_id(request)
        if "method" not in request:
            raise RequestError(2, "Invalid request: missing field `method` at line 1 column 1")
        method = request["method"]
        if method not in METHODS:
            expected = ", ".join(f"`{name}`" for name in METHODS)
            raise RequestError(2, f"Invalid request: unknown variant {method}, expected one of {expected}")
        params = request.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.streams)
        if not isinstance(params, list):
            raise RequestError(2, "Invalid request: params must be an array")
        if method in {"SET_PROPERTY", "GET_PROPERTY"}:
            return self._property(method, params)
        return self._change(method, params)

    def _change(self, method: str, params: list[Any]) -> None:
        if not all(isinstance(name, str) for name in params):
            raise RequestError(2, "Invalid request: stream name must be a string")
        if method == "UNSUBSCRIBE":
            for name in params:
                self._site.unsubscribe(self, name)
            return
        if len(set(self.streams) | set(params)) > MAX_STREAMS:
            raise RequestError(2, "Invalid request: too many parameters")
        for name in params:
            self._site.subscribe(self, name)

    def _property(self, method: str, params: list[Any]) -> bool | None:
        wanted = 2 if method == "SET_PROPERTY" else 1
        if len(params) > wanted:
            raise RequestError(2, "Invalid request: too many parameters")
        if not params or not isinstance(params[0], str):
            raise RequestError(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise RequestError(0, f"Unknown property {params[0]}")
        if method == "GET_PROPERTY":
            return self.combined
        if len(params) < 2 or not isinstance(params[1], bool):
            raise RequestError(1, "Invalid value type: expected Boolean")
        names = list(self.streams)
        for name in names:
            self._site.unsubscribe(self, name)
        self.combined = params[1]
        for name in names:
            self._site.subscribe(self, name)
        return None

    def on_pong(self, data: bytes) -> None:
        """Only a pong that echoes the last ping keeps the connection alive."""
        if not self.counted():
            return
        if data == self._ping_payload:
            self._pong_at = time.monotonic()

    def on_close(self) -> None:
        """The client is gone."""
        self._site.forget(self)

    # -- the venue's side

    _ping_payload = b""

    def keep_alive(self, now: float, options: BinanceOptions, *, silent: bool) -> None:
        """Ping in time, drop who does not answer, end what has lived long enough."""
        connection = self.connection
        if now - connection.opened_at >= options.lifetime_seconds:
            connection.close(1001, "24h")
            return
        if silent:
            return
        if now - self._pinged_at >= options.ping_seconds:
            self._pinged_at = now
            self._ping_payload = str(time.time_ns() // 1_000_000).encode()
            connection.ping(self._ping_payload)
        if (
            now - max(self._pong_at, connection.opened_at)
            >= options.ping_seconds + options.pong_timeout_seconds
        ):
            connection.close(1008, "Pong timeout")


def _check_id(request: dict[str, Any]) -> None:
    made = request.get("id")
    if made is None or (isinstance(made, int) and not isinstance(made, bool)):
        return
    if isinstance(made, str) and len(made) <= 36 and made.isalnum():
        return
    raise RequestError(
        2,
        "Invalid request: request ID must be an integer, an alphanumeric string of at most 36 characters or null",
    )
