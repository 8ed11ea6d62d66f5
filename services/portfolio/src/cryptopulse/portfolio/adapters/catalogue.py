"""The catalogue of coins and pairs as the resolver reads it from Redis, kept in memory and refreshed when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import msgspec
from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.contracts.resolver import (
    AmbiguousSymbolError,
    Catalogue,
    Resolver,
    UnknownSymbolError,
)
from cryptopulse.common.errors import FieldError, Invalid, Retryable
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.portfolio.application.ports import Coin

REFRESH_SECONDS: Final = 5.0
FIRST_SECONDS: Final = 0.5

log = get_logger(__name__)


class RedisCatalogue:
    """Names to coins, from the newest catalogue that was read."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._resolver = Resolver(Catalogue(version=0))
        self._owners: dict[str, str] = {}
        self._decoder = msgspec.msgpack.Decoder(Catalogue)
        self._version: bytes | None = None

    @property
    def is_loaded(self) -> bool:
        """True once a catalogue with coins or pairs was read."""
        return bool(self._resolver.catalogue.pairs or self._resolver.catalogue.coins)

    def resolve(self, text: str) -> Coin | None:
        """A symbol, pair or coin id. Raises `Invalid` when several are meant."""
        try:
            found = self._resolver.resolve(text)
        except UnknownSymbolError:
            return None
        except AmbiguousSymbolError as error:
            raise Invalid(
                str(error),
                code="ambiguous-symbol",
                errors=(FieldError("/asset", "ambiguous-symbol", str(error)),),
            ) from error
        if found.coin_id is None:
            return Coin(found.base, None, None, found.base)
        return self.coin(found.coin_id)

    def quote_of(self, text: str) -> str | None:
        """The quote that a pair was written with, None for a bare asset."""
        try:
            return self._resolver.resolve(text).quote
        except (UnknownSymbolError, AmbiguousSymbolError):
            return None

    def coin(self, coin_id: str) -> Coin | None:
        """A coin by its id: under its symbol when that symbol means this coin, else under the id itself."""
        known = self._resolver.coin(coin_id)
        owner = self._owners.get(coin_id)
        if known is None:
            return None if owner is None else Coin(owner, coin_id, None, owner)
        return Coin(owner or coin_id, coin_id, known.name, known.symbol.upper())

    async def refresh(self) -> bool:
        """Read it again when its version changed; True when it did. Raises `StoreUnavailable`."""
        async with store_errors():
            version = cast("bytes | None", await self._redis.get(keys.CATALOGUE_VERSION))
            if version is None or version == self._version:
                return False
            raw = cast("bytes | None", await self._redis.get(keys.CATALOGUE))
        if raw is None:
            return False
        catalogue = self._decoder.decode(raw)
        self._resolver = Resolver(catalogue)
        self._owners = {coin: asset for asset, coin in catalogue.asset_coins.items()}
        self._version = version
        return True

    async def run(self, beat: Callable[[], None]) -> None:
        """Keep it fresh for ever."""
        while True:
            beat()
            try:
                if await self.refresh():
                    log.info("catalogue read", coins=len(self._resolver.catalogue.coins))
            except (Retryable, msgspec.DecodeError) as error:
                log.warning("catalogue not read", error=str(error))
            await asyncio.sleep(REFRESH_SECONDS if self.is_loaded else FIRST_SECONDS)
