"""`/ws/crypto/` and `/ws/prices/`: the second seed's two dialects on the engine of the sockets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.websockets import WebSocket

from cryptopulse.common.contracts.identity import Identity
from cryptopulse.gateway.application.connection import Connection
from cryptopulse.gateway.application.seed_fan_out import COINS_MAX, SeedHub
from cryptopulse.gateway.application.subscribe import Subscriptions
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain.protocol import MAX_FRAME_BYTES
from cryptopulse.gateway.domain.seed import DEFAULT_COINS
from cryptopulse.gateway.entrypoints.socket_door import SocketDoor
from cryptopulse.gateway.entrypoints.stream_v1 import converse

NAME_MAX: Final = 64


class SeedMessageError(ValueError):
    """Input that is answered with an error; the socket stays open."""


@dataclass(frozen=True, slots=True)
class SeedStream:
    """The endpoint of both paths."""

    use: UseCases
    door: SocketDoor
    seeds: SeedHub
    subscriptions: Subscriptions

    async def serve(self, ws: WebSocket) -> None:
        """Greet, send the default coins, then serve until the connection ends."""
        connection = await self.door.admit(ws)
        if connection is None:
            return
        try:
            _say(
                connection,
                {"type": "connection", "message": "Connected to crypto price stream", "status": "success"},
            )
            if connection.identity.user_id is not None:
                self._join_alerts(connection, connection.identity)
            self._want(connection, DEFAULT_COINS)
            await converse(ws, connection, self._hear, self.use)
        finally:
            self.seeds.remove(connection)
            self.use.hub.remove(connection)

    def _join_alerts(self, connection: Connection, identity: Identity) -> None:
        """Whoever has shown a credential hears of his alerts here too."""
        self.subscriptions.alerts_of(identity).join(connection, 0)

    def _want(self, connection: Connection, coins: tuple[str, ...]) -> None:
        self.seeds.set_coins(connection, coins)
        if coins:
            self.seeds.note_sent(coins)
            connection.say(self.seeds.message(coins))

    async def _hear(self, connection: Connection, text: str | bytes) -> None:
        try:
            self._answer(connection, read(text))
        except SeedMessageError as error:
            _say(connection, {"type": "error", "message": str(error)})

    def _answer(self, connection: Connection, message: dict[str, Any]) -> None:
        kind = message.get("type") or message.get("action")
        if kind == "ping":
            at = message.get("timestamp")  # a plain value comes back as it is
            _say(connection, {"type": "pong", "timestamp": at if isinstance(at, str | int | float) else None})
            return
        if kind not in {"subscribe", "unsubscribe"}:
            raise SeedMessageError(f"Unknown message type: {str(kind)[:40]}")
        coins = coin_ids(message)
        known = self.seeds.coins(connection)
        if kind == "unsubscribe":
            left = tuple(coin for coin in known if coin not in coins)
            self.seeds.set_coins(connection, left)
            _say(
                connection,
                {
                    "type": "unsubscription",
                    "message": f"Unsubscribed from: {', '.join(coins)}",
                    "coins": coins,
                },
            )
            return
        both = tuple(dict.fromkeys((*known, *coins)))
        if len(both) > COINS_MAX:
            raise SeedMessageError(f"At most {COINS_MAX} coins per connection")
        _say(
            connection,
            {"type": "subscription", "message": f"Subscribed to: {', '.join(coins)}", "coins": coins},
        )
        self._want(connection, both)


def read(text: str | bytes) -> dict[str, Any]:
    """The object in a frame. Raises `SeedMessageError`."""
    if len(text) > MAX_FRAME_BYTES:
        raise SeedMessageError("Message too large")
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SeedMessageError("Invalid JSON") from error
    if not isinstance(found, dict):
        raise SeedMessageError("Invalid message: an object is expected")
    return found


def coin_ids(message: dict[str, Any]) -> list[str]:
    """The coins of a message, in either dialect."""
    given = message.get("coins", message.get("coin_ids"))
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not given:
        raise SeedMessageError("coins must be a list of coin ids")
    coins = []
    for item in given:
        if not isinstance(item, str) or not item.strip() or len(item) > NAME_MAX:
            raise SeedMessageError("coins must be a list of coin ids")
        coins.append(item.strip().lower())
    return list(dict.fromkeys(coins))


def _say(connection: Connection, message: dict[str, Any]) -> None:
    connection.say(orjson.dumps(message))
