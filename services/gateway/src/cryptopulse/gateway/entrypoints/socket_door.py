"""The door of all sockets: origin, credential, limits are checked before anything is accepted."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.responses import Response
from starlette.websockets import WebSocket

from cryptopulse.common.contracts.identity import ANONYMOUS, Identity
from cryptopulse.common.errors import LimitExceeded, Refused, Retryable
from cryptopulse.common.web.problems import problem_response
from cryptopulse.gateway.application.connection import Connection
from cryptopulse.gateway.application.limiting import network_of
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain import protocol
from cryptopulse.gateway.domain.limits import socket_limits
from cryptopulse.gateway.entrypoints.http.edge import Origins
from cryptopulse.gateway.entrypoints.http.operations import client_address, credential_of
from cryptopulse.gateway.entrypoints.socket_protocol import socket_of

BEARER: Final = "bearer."
REVOKED: Final = "the credential was revoked"
TOO_MANY: Final = "as many connections as are allowed are open already"
IN_QUERY: Final = frozenset({"token", "access_token", "api_key", "apikey", "key", "jwt", "authorization"})


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a credential is not taken, and how the connection ends."""

    detail: str
    code: str = "invalid_token"
    close: int = protocol.CLOSE_BAD_TOKEN


@dataclass(frozen=True, slots=True)
class SocketDoor:
    """Lets sockets in."""

    use: UseCases
    origins: Origins
    trusted_hops: int = 0

    async def admit(self, ws: WebSocket) -> Connection | None:
        """An accepted connection, or None when it was refused: on the upgrade by status, by close code where a browser must see it."""
        address = client_address(ws.scope, self.trusted_hops)
        if not self._is_origin_allowed(ws):
            await self._refuse(
                ws, 403, "this origin may not connect: see CORS_ALLOWED_ORIGINS", "origin-not-allowed"
            )
            return None
        if self.use.hub.is_draining:
            await self._refuse(ws, 503, "this server is going away: connect again", "draining")
            return None
        identity, until, fault = await self._identity(ws, address)
        if self._is_full(identity, address):
            await self._refuse(ws, 429, TOO_MANY, "connection-limit")
            return None
        try:
            await self.use.limits.count(identity, address, "sockets", 1)
        except LimitExceeded as error:
            await self._refuse(ws, 429, error.detail, error.code, error.retry_after_seconds)
            return None
        except Retryable:
            # Sockets carry public prices first of all: they open when limits cannot be counted.
            pass
        chosen = protocol.SUBPROTOCOL if protocol.SUBPROTOCOL in ws.scope["subprotocols"] else None
        await ws.accept(subprotocol=chosen)
        socket = socket_of(ws.scope)
        connection = Connection(self.use.hub.new_id(), socket, identity)
        connection.address, connection.network = address, network_of(address)
        connection.authenticated_until = until
        socket.flow = connection
        if any(name.lower() in IN_QUERY for name, _ in parse_qsl(ws.scope["query_string"].decode("latin-1"))):
            connection.close(
                protocol.CLOSE_AUTH_EXPIRED,
                "credentials do not belong into an address: send a header or an auth message",
            )
            return None
        if fault:
            connection.close(protocol.CLOSE_BAD_TOKEN, fault)
            return None
        # Whose right ended while we were waiting above was not among the connections that the hub closed, nor did those who
        # came together see each other.
        if self.use.authenticator.is_revoked(identity):
            connection.close(protocol.CLOSE_AUTH_EXPIRED, REVOKED)
        elif self._is_full(identity, address):
            connection.close(protocol.CLOSE_CONNECTIONS, TOO_MANY)
        else:
            self.use.hub.add(connection)
        return None if connection.closed else connection

    async def authenticate(self, connection: Connection, token: str) -> Fault | None:
        """Take a credential from a message; what is wrong with it, or None. The user of a connection never changes."""
        try:
            caller = await self.use.authenticator.authenticate(token, connection.address)
        except Refused as error:
            return Fault(error.detail)
        except Retryable:
            return Fault("credentials cannot be checked at the moment: try again")
        before = connection.identity.user_id
        if before is not None and before != caller.identity.user_id:
            return Fault("this connection belongs to another user: open a new one")
        if self.use.authenticator.is_revoked(caller.identity):
            return Fault(REVOKED)
        if before is None and self._is_full(caller.identity, connection.address):
            return Fault(TOO_MANY, "connection_limit", protocol.CLOSE_CONNECTIONS)
        connection.identity = caller.identity
        connection.authenticated_until = caller.until
        connection.warned = False
        return None

    async def _identity(self, ws: WebSocket, address: str) -> tuple[Identity, float | None, str]:
        try:
            credential = credential_of(ws.headers.get("authorization"), ws.headers.get("x-api-key"))
            credential = credential or _from_subprotocol(ws.scope["subprotocols"])
            if credential is None:
                return ANONYMOUS, None, ""
            caller = await self.use.authenticator.authenticate(credential, address)
        except Refused as error:
            return ANONYMOUS, None, error.detail
        except Retryable:
            return ANONYMOUS, None, "credentials cannot be checked at the moment"
        return caller.identity, caller.until, ""

    def _is_full(self, identity: Identity, address: str) -> bool:
        open_now = self.use.hub.count_of(identity, network_of(address))
        return open_now >= socket_limits(identity.tier).connections

    def _is_origin_allowed(self, ws: WebSocket) -> bool:
        origin = ws.headers.get("origin")
        if origin is None or self.origins.allows(origin.encode("latin-1")):
            return True
        return urlsplit(origin).netloc == ws.headers.get("host")

    async def _refuse(
        self, ws: WebSocket, status: int, detail: str, code: str, retry_after: float | None = None
    ) -> None:
        response: Response = problem_response(
            status, detail=detail, code=code, retry_after_seconds=retry_after or 5
        )
        await ws.send_denial_response(response)


def _from_subprotocol(offered: list[str]) -> str | None:
    """The token of `bearer.<base64url>` beside our protocol's name; it is never echoed."""
    for item in offered:
        if item.startswith(BEARER):
            text = item[len(BEARER) :]
            try:
                return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
            except (binascii.Error, ValueError):
                return "malformed"
    return None
