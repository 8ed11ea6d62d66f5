"""Asks the ingestor for venue candles."""

from __future__ import annotations

import orjson

from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.web.client import ServiceClient

SELF = Identity(user_id=None, scopes=frozenset(), tier="service", kind="service")


class IngestorHistoryRequests:
    """`HistoryRequests` over the ingestor's internal HTTP. Raises `UpstreamUnavailable`."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def ask(
        self, symbol: str, interval: Interval, from_ms: int, to_ms: int, *, venue: str | None, reason: str
    ) -> None:
        """Ask once; a range that already waits is not queued again there."""
        body = {"symbol": symbol, "interval": interval, "from_ms": from_ms, "to_ms": to_ms, "reason": reason}
        if venue is not None:
            body["venue"] = venue
        await self._client.request(
            "POST",
            "/backfill",
            identity=SELF,
            content=orjson.dumps(body),
            headers={"Content-Type": "application/json"},
        )
