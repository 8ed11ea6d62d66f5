"""The portfolio service: whose a portfolio is, and the values of those that rules look at."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import orjson

from cryptopulse.alerts.adapters.market_reader import US
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import UpstreamUnavailable
from cryptopulse.common.web.client import ServiceClient

TTL_SECONDS: Final = 90
READS: Final = frozenset({"portfolio:read"})


class HttpPortfolios:
    """`Portfolios` over the internal HTTP of the portfolio service."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def has(self, user_id: str, portfolio_id: int) -> bool:
        """Whether this is a portfolio of the user's. Raises `UpstreamUnavailable`."""
        identity = Identity(user_id, scopes=READS)
        response = await self._client.request("GET", f"/portfolios/{portfolio_id}", identity=identity)
        if response.status_code not in {200, 404, 422}:  # 422: no portfolio can have this id
            raise UpstreamUnavailable(f"portfolios could not be looked at: {response.status_code}")
        return response.status_code == 200

    async def watch(self, portfolio_ids: Collection[int]) -> None:
        """Keep these valued for a minute and a half. Raises `UpstreamUnavailable`."""
        body = orjson.dumps({"portfolio_ids": sorted(portfolio_ids), "ttl_seconds": TTL_SECONDS})
        response = await self._client.request(
            "PUT", "/watch", identity=US, content=body, headers={"Content-Type": "application/json"}
        )
        if response.status_code >= 400:
            raise UpstreamUnavailable(f"portfolios were not watched: {response.status_code}")
