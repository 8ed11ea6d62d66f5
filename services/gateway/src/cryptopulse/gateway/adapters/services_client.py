"""The other services over their internal HTTP, each behind its own client with time-outs, retries and a breaker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.web.client import ServiceClient
from cryptopulse.gateway.application.ports import Answer

FORWARDED: Final = ("content-type", "etag", "cache-control", "location", "retry-after", "content-disposition")


class HttpServices:
    """One client per service."""

    def __init__(self, clients: Mapping[str, ServiceClient]) -> None:
        self._clients = clients

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        *,
        identity: Identity,
        query: str = "",
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """As the port says: the answer's bytes and the few headers that a client may see."""
        response = await self._clients[service].request(
            method,
            path,
            identity=identity,
            params=query or None,
            content=content,
            headers=dict(headers or {}),
        )
        kept = {name: response.headers[name] for name in FORWARDED if name in response.headers}
        return Answer(response.status_code, response.content, kept)
