"""Tells the ingestor which coins someone holds, so that those without a market are priced by reference."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

import orjson

from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import Retryable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.web.client import ServiceClient

KEPT_COINS: Final = 5_000
PER_REQUEST: Final = 250
TTL_FACTOR: Final = 5
_SELF: Final = Identity(user_id=None, kind="service", tier="service")

log = get_logger(__name__)


class IngestorWantedCoins:
    """Notes coins at once and asks for all of them now and then; the least recently used fall out."""

    def __init__(self, client: ServiceClient, interval_seconds: float) -> None:
        self._client = client
        self._interval = interval_seconds
        self._coins: OrderedDict[str, None] = OrderedDict()
        self._new = asyncio.Event()

    def want(self, coin_ids: Collection[str]) -> None:
        """Note coins; new ones are asked for at once."""
        for coin_id in coin_ids:
            if coin_id not in self._coins:
                self._new.set()
            self._coins[coin_id] = None
            self._coins.move_to_end(coin_id)
        while len(self._coins) > KEPT_COINS:
            self._coins.popitem(last=False)

    async def run(self, beat: Callable[[], None]) -> None:
        """Ask for ever; an ingestor that is away is asked again later."""
        while True:
            beat()
            self._new.clear()
            try:
                await self.tell()
            except Retryable as error:
                log.warning("wanted coins not told", error=str(error))
                await asyncio.sleep(1.0)
            try:
                await asyncio.wait_for(self._new.wait(), min(self._interval, 10.0))
            except TimeoutError:
                continue

    async def tell(self) -> None:
        """All of them, in pieces. Raises `UpstreamUnavailable`."""
        coins = list(self._coins)
        for first in range(0, len(coins), PER_REQUEST):
            body = {
                "coin_ids": coins[first : first + PER_REQUEST],
                "ttl_seconds": int(self._interval * TTL_FACTOR),
            }
            await self._client.request(
                "PUT",
                "/wanted",
                identity=_SELF,
                content=orjson.dumps(body),
                headers={"Content-Type": "application/json"},
            )
