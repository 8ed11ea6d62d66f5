"""`/v1/ws`: the `cryptopulse.v1` protocol on the engine of the sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket

from cryptopulse.common.errors import CryptoPulseError, LimitExceeded
from cryptopulse.gateway.application.connection import QUEUE_BYTES, Connection
from cryptopulse.gateway.application.subscribe import Prepared, Subscriptions
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import protocol
from cryptopulse.gateway.domain.conflation import Meter
from cryptopulse.gateway.domain.limits import socket_limits
from cryptopulse.gateway.domain.protocol import (
    AckEvent,
    Auth,
    Command,
    CommandRefusedError,
    ListSubscriptions,
    Ping,
    Subscribe,
    Unsubscribe,
)
from cryptopulse.gateway.entrypoints.socket_door import SocketDoor

INBOUND_PER_SECOND = 5.0
INBOUND_BURST = 20.0
CHANNELS_MAX = 200
ASKING = ("portfolio:", "alerts")
ASKING_COST = 2.0
PATIENCE = 100
"""Messages over the limit before the connection is closed with 4013."""


@dataclass(frozen=True, slots=True)
class StreamV1:
    """The endpoint."""

    use: UseCases
    door: SocketDoor
    subscriptions: Subscriptions

    async def serve(self, ws: WebSocket) -> None:
        """Serve one connection until it ends."""
        connection = await self.door.admit(ws)
        if connection is None:
            return
        try:
            connection.say(
                protocol.welcome(
                    connection.id,
                    self.use.clock.now_ms(),
                    channels=socket_limits(connection.identity.tier).subscriptions,
                    queue_bytes=QUEUE_BYTES,
                    authenticated=connection.identity.user_id is not None,
                )
            )
            await converse(ws, connection, self._hear, self.use)
        finally:
            self.use.hub.remove(connection)

    async def _hear(self, connection: Connection, text: str | bytes) -> None:
        try:
            command = protocol.parse_command(text)
        except CommandRefusedError as error:
            connection.say(protocol.error(error.code, error.detail, error.ident))
            return
        try:
            await self._do(connection, command)
        except LimitExceeded as error:
            pause = round((error.retry_after_seconds or 1.0) * 1_000)
            connection.say(protocol.error("rate_limited", error.detail, command.id, pause))
        except CryptoPulseError:
            connection.say(
                protocol.error(
                    protocol.UNAVAILABLE,
                    "this cannot be served at the moment",
                    command.id,
                    protocol.RETRY_AFTER_MS,
                )
            )

    async def _do(self, connection: Connection, command: Command) -> None:
        match command:
            case Subscribe():
                await self._subscribe(connection, command)
            case Unsubscribe():
                closed = [
                    row for item in command.channels for row in self.subscriptions.close(connection, item)
                ]
                connection.say(_ack(command.id, unsubscribed=closed))
            case ListSubscriptions():
                connection.say(_ack(command.id, subscriptions=self.subscriptions.listed(connection)))
            case Ping():
                now = self.use.clock.now_ms()
                body = {"type": "pong", "id": command.id, "ts": command.ts, "server_ts": now}
                connection.say(protocol.encode(body))
            case Auth():
                fault = await self.door.authenticate(connection, command.token)
                if fault is None:
                    connection.say(_ack(command.id, authenticated=True))
                else:
                    connection.say(protocol.error(fault.code, fault.detail, command.id))
                    connection.close(fault.close, fault.detail)
            case AckEvent():
                if connection.identity.user_id is None:
                    connection.say(protocol.error("unauthenticated", "log in first", command.id))
                elif await self.subscriptions.ack(connection.identity, command.alert_event):
                    connection.say(_ack(command.id, alert_event=command.alert_event))
                else:
                    connection.say(protocol.error("not_found", "there is no such event", command.id))

    async def _subscribe(self, connection: Connection, command: Subscribe) -> None:
        """Everything that takes time first; then join, ack and snapshots in one go, so that no update overtakes them."""
        prepared: list[Prepared] = []
        rejected: list[dict[str, Any]] = []
        for request in command.channels[:CHANNELS_MAX]:
            if request.ch.startswith(ASKING):
                # Another service answers for each: as for a read of it over HTTP.
                await self.use.limits.count(connection.identity, connection.address, "reads", ASKING_COST)
            found, refused = await self.subscriptions.prepare(connection, request)
            prepared += found
            rejected += refused
        subscribed: list[dict[str, Any]] = []
        following: list[bytes] = []
        replays: list[tuple[Prepared, int]] = []
        for item in prepared:
            entry, messages = self.subscriptions.join(connection, item)
            if "code" in entry:
                rejected.append(entry)
                self.use.hub.drop(item.stream.key)
                continue
            subscribed.append(entry)
            following += messages
            if item.channel.kind == "alerts":
                replays.append((item, item.stream.offset))
        connection.say(_ack(command.id, ok=not rejected, subscribed=subscribed, rejected=rejected))
        for message in following:
            connection.say(message)
        for item, joined_at in replays:
            for message in await self.subscriptions.replay(connection, item, joined_at):
                connection.say(message)


def _ack(ident: protocol.Id, *, ok: bool = True, **more: Any) -> bytes:
    return protocol.encode({"type": "ack", "id": ident, "ok": ok, **more})


async def converse(
    ws: WebSocket,
    connection: Connection,
    hear: Callable[[Connection, str | bytes], Awaitable[None]],
    use: UseCases,
) -> None:
    """Hear a client, one message at a time, within his inbound limit, until the connection ends."""
    meter = Meter(INBOUND_PER_SECOND, INBOUND_BURST)
    while not connection.closed:
        message = await ws.receive()
        if message["type"] == "websocket.disconnect":
            return
        if not meter.take(use.clock.monotonic()):
            if meter.refused > PATIENCE:
                connection.close(protocol.CLOSE_TOO_MANY, "too many messages")
                return
            pause = round(1_000 / INBOUND_PER_SECOND)
            connection.say(protocol.error("rate_limited", "too many messages: slow down", None, pause))
            continue
        text = message.get("text")
        await hear(connection, text if text is not None else message.get("bytes", b""))
