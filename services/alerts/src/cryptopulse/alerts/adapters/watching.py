"""Asks the portfolio service to value the portfolios that rules look at."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import orjson

from cryptopulse.alerts.adapters.market_reader import US
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.common.web.client import ServiceClient

TTL_SECONDS: Final = 90


class HttpPortfolioWatch:
    """`PUT /watch` of the portfolio service."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def watch(self, portfolio_ids: Collection[int]) -> None:
        """Keep these valued for a minute and a half. Raises `UpstreamUnavailable`."""
        body = orjson.dumps({"portfolio_ids": sorted(portfolio_ids), "ttl_seconds": TTL_SECONDS})
        response = await self._client.request(
            "PUT", "/watch", identity=US, content=body, headers={"Content-Type": "application/json"}
        )
        if response.status_code >= 400:
            raise UpstreamUnavailable(f"portfolios were not watched: {response.status_code}")
