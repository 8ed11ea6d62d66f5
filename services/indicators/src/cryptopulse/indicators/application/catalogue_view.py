"""The catalogue as this replica knows it, refreshed when its version rises."""

from __future__ import annotations

from typing import Protocol

import msgspec

from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.resolver import (
    AmbiguousSymbolError,
    Catalogue,
    Resolved,
    Resolver,
    UnknownSymbolError,
)
from cryptopulse.common.errors import FieldError, Invalid, NotFound


class CatalogueSource(Protocol):
    """Where the projection is. Raises `StoreUnavailable`."""

    async def catalogue(self) -> bytes | None: ...
    async def catalogue_version(self) -> int: ...


class CatalogueView:
    """One version of the catalogue with its resolver."""

    def __init__(self, source: CatalogueSource) -> None:
        self._source = source
        self.catalogue = Catalogue(version=0)
        self.resolver = Resolver(self.catalogue)

    async def refresh(self) -> None:
        """Load a newer version, if there is one."""
        if await self._source.catalogue_version() == self.catalogue.version:
            return
        packed = await self._source.catalogue()
        if packed is not None:
            self.use(msgspec.msgpack.decode(packed, type=Catalogue))

    def use(self, catalogue: Catalogue) -> None:
        """Take a catalogue as the newest."""
        self.catalogue = catalogue
        self.resolver = Resolver(catalogue)

    def resolve(self, text: str) -> Resolved:
        """What a name means. Raises `NotFound`, or `Invalid` with the candidates when it is ambiguous."""
        try:
            return self.resolver.resolve(text)
        except UnknownSymbolError as error:
            raise NotFound(str(error), code="unknown-symbol") from error
        except AmbiguousSymbolError as error:
            raise Invalid(
                str(error),
                code="ambiguous-symbol",
                errors=(FieldError("symbol", "ambiguous", f"say one of {', '.join(error.candidates)}"),),
            ) from error

    def search(self, text: str, limit: int) -> list[Coin]:
        """Coins whose id, symbol or name holds the text: exact symbols first, then beginnings, then by rank."""
        wanted = text.strip().lower()
        if not wanted:
            return []

        def order(coin: Coin) -> tuple[int, int]:
            names = (coin.symbol.lower(), coin.id.lower(), coin.name.lower())
            place = 0 if wanted in names else 1 if any(name.startswith(wanted) for name in names) else 2
            return place, coin.market_cap_rank or 1_000_000

        found = [
            coin
            for coin in self.catalogue.coins
            if wanted in coin.symbol.lower() or wanted in coin.id.lower() or wanted in coin.name.lower()
        ]
        return sorted(found, key=order)[:limit]
