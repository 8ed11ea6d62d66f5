"""Instruments and coins in Postgres, and their projection in Redis that every resolver reads."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from redis.asyncio import Redis

from cryptopulse.common.cache import keys
from cryptopulse.common.cache.client import store_errors
from cryptopulse.common.contracts.catalogue import Coin, Instrument
from cryptopulse.common.contracts.resolver import Catalogue, Pair
from cryptopulse.common.database.pool import Database

_COIN_COLUMNS = (
    "id, symbol, name, image, market_cap_rank, market_cap, circulating_supply, price, change_24h, change_24h_pct, "
    "volume_24h, updated_us"
)


class CatalogueRepository:
    """`CatalogueStore` on Postgres and Redis."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self._database = database
        self._redis = redis

    async def put_instruments(
        self, venue: str, instruments: Sequence[Instrument], *, complete: bool, simulated: bool, at_us: int
    ) -> None:
        """Upsert a venue's pairs; with `complete`, what is not among them becomes `delisted`."""
        rows = {item.symbol: item for item in instruments}
        items = list(rows.values())
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO instruments AS i (venue, symbol, native, status, price_increment, size_increment, coin_id, "
                "subscribed, simulated, updated_us) "
                "SELECT $1, s, n, t, p, z, c, b, $9, $10 FROM unnest($2::text[], $3::text[], $4::text[], "
                "$5::numeric[], $6::numeric[], $7::text[], $8::boolean[]) AS u(s, n, t, p, z, c, b) ORDER BY s "
                "ON CONFLICT (venue, symbol) DO UPDATE SET native = excluded.native, status = excluded.status, "
                "price_increment = excluded.price_increment, size_increment = excluded.size_increment, "
                "coin_id = excluded.coin_id, subscribed = excluded.subscribed, simulated = excluded.simulated, "
                "updated_us = excluded.updated_us WHERE excluded.updated_us >= i.updated_us",
                venue,
                [item.symbol for item in items],
                [item.native for item in items],
                [item.status for item in items],
                [item.price_increment for item in items],
                [item.size_increment for item in items],
                [item.coin_id for item in items],
                [item.subscribed for item in items],
                simulated,
                at_us,
            )
            if complete:
                await connection.execute(
                    "UPDATE instruments SET status = 'delisted', subscribed = false, updated_us = $3 "
                    "WHERE venue = $1 AND updated_us < $3 AND status <> 'delisted' AND NOT symbol = ANY($2::text[])",
                    venue,
                    list(rows),
                    at_us,
                )

    async def put_coins(self, coins: Sequence[Coin], *, simulated: bool) -> None:
        """Upsert coins by id; what a list does not know of a coin stays as it was."""
        items = list({coin.id: coin for coin in coins}.values())
        async with self._database.connection() as connection:
            await connection.execute(
                f"INSERT INTO coins AS c ({_COIN_COLUMNS}, simulated) "  # noqa: S608 - constants only
                "SELECT a, b, d, e, f, g, h, i, j, k, l, m, $13 FROM unnest($1::text[], $2::text[], $3::text[], "
                "$4::text[], $5::int[], $6::numeric[], $7::numeric[], $8::numeric[], $9::numeric[], $10::numeric[], "
                "$11::numeric[], $12::bigint[]) AS u(a, b, d, e, f, g, h, i, j, k, l, m) ORDER BY a "
                "ON CONFLICT (id) DO UPDATE SET symbol = excluded.symbol, name = excluded.name, "
                "image = coalesce(excluded.image, c.image), "
                "market_cap_rank = coalesce(excluded.market_cap_rank, c.market_cap_rank), "
                "market_cap = coalesce(excluded.market_cap, c.market_cap), "
                "circulating_supply = coalesce(excluded.circulating_supply, c.circulating_supply), "
                "price = coalesce(excluded.price, c.price), change_24h = coalesce(excluded.change_24h, c.change_24h), "
                "change_24h_pct = coalesce(excluded.change_24h_pct, c.change_24h_pct), "
                "volume_24h = coalesce(excluded.volume_24h, c.volume_24h), "
                "updated_us = coalesce(excluded.updated_us, c.updated_us), simulated = excluded.simulated",
                *[[getattr(coin, name.strip()) for coin in items] for name in _COIN_COLUMNS.split(",")],
                simulated,
            )

    async def project(self) -> Catalogue:
        """Pairs that trade or are subscribed, coins by rank, and which coin an asset is: the highest-ranked of its symbol."""
        async with self._database.connection() as connection:
            pairs = await connection.fetch(
                "SELECT symbol, array_agg(venue ORDER BY venue) AS venues, min(price_increment) AS step, "
                "bool_or(status = 'trading') AS trades FROM instruments WHERE status <> 'delisted' "
                "GROUP BY symbol ORDER BY symbol"
            )
            rows = await connection.fetch(
                f"SELECT {_COIN_COLUMNS} FROM coins ORDER BY market_cap_rank NULLS LAST, id"  # noqa: S608 - constants only
            )
        coins = [Coin(**dict(row)) for row in rows]
        asset_coins: dict[str, str] = {}
        for coin in coins:
            asset_coins.setdefault(coin.symbol.upper(), coin.id)
        async with store_errors():
            version = int(await self._redis.incr(keys.CATALOGUE_SEQUENCE))
            catalogue = Catalogue(
                version=version,
                pairs=[_pair(row) for row in pairs],
                coins=coins,
                asset_coins=asset_coins,
            )
            # Together: a reader that sees the new version must find the new catalogue.
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(keys.CATALOGUE, msgspec.msgpack.encode(catalogue))
                pipe.set(keys.CATALOGUE_VERSION, version)
                await pipe.execute()
        return catalogue


def _pair(row: Any) -> Pair:
    step: Decimal | None = row["step"]
    precision = None
    if step is not None:
        exponent = step.normalize().as_tuple().exponent
        precision = max(0, -exponent) if isinstance(exponent, int) else None
    return Pair(row["symbol"], list(row["venues"]), "trading" if row["trades"] else "halted", precision)
