"""The internal HTTP of symbols and coins, exactly as the public API answers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query, Response

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.http.coins import CoinPriceQuery, CoinSearchQuery, SymbolQuery
from cryptopulse.common.contracts.indicators import Signal
from cryptopulse.common.contracts.prices import PriceUpdate, age_ms, is_stale
from cryptopulse.common.contracts.resolver import Pair
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import CONSOLIDATED, plain
from cryptopulse.common.errors import FieldError, Invalid
from cryptopulse.common.security.identity import caller
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.indicators.application.catalogue_view import CatalogueView
from cryptopulse.indicators.entrypoints import answers

MAX_COINS = 250


class Latest(Protocol):
    """Latest values. Raises `StoreUnavailable`."""

    async def price(self, symbol: str, source: str) -> PriceUpdate | None: ...
    async def prices(self, wanted: Sequence[tuple[str, str]]) -> list[PriceUpdate | None]: ...
    async def references(self, coin_ids: Sequence[str]) -> list[ReferencePrice | None]: ...
    async def signals(self) -> list[Signal]: ...


def symbol_router(view: CatalogueView, cursor: Cursor) -> APIRouter:
    """Routes of symbols."""
    router = APIRouter(dependencies=[Depends(caller)])

    @router.get("/symbols")
    async def symbols(query: Annotated[SymbolQuery, Query()]) -> Response:
        binding = ("symbols", query.quote or "", query.provider or "", query.q or "")
        after = str(cursor.decode(query.cursor, binding)[0]) if query.cursor else ""
        wanted = (query.q or "").lower()
        rows = []
        for pair in view.catalogue.pairs:
            if pair.symbol <= after or (query.provider and query.provider not in pair.venues):
                continue
            if query.quote and pair.symbol.partition("-")[2] != query.quote.upper():
                continue
            found = _pair_row(view, pair)
            if wanted and wanted not in pair.symbol.lower() and wanted not in (found["name"] or "").lower():
                continue
            rows.append(found)
            if len(rows) > query.limit:
                break
        page = rows[: query.limit]
        following = cursor.encode((page[-1]["symbol"],), binding) if len(rows) > query.limit else None
        return answers.answer({"data": page, "next_cursor": following})

    @router.get("/symbols/{symbol}")
    async def symbol(symbol: str) -> Response:
        resolved = view.resolve(symbol)
        pair = resolved.pair
        if pair is None:
            venues = sorted(
                {
                    venue
                    for one in view.catalogue.pairs
                    if one.symbol.startswith(f"{resolved.base}-")
                    for venue in one.venues
                }
            )
            pair = Pair(resolved.symbol, venues)
        return answers.answer(_pair_row(view, pair))

    return router


def coin_router(view: CatalogueView, latest: Latest, clock: Clock) -> APIRouter:
    """Routes of coins."""
    router = APIRouter(dependencies=[Depends(caller)])

    @router.get("/coins/search")
    async def search(query: Annotated[CoinSearchQuery, Query()]) -> Response:
        coins = view.search(query.q, query.limit)
        found = [
            {
                "id": coin.id,
                "name": coin.name,
                "symbol": coin.symbol,
                "thumb": coin.image,
                "market_cap_rank": coin.market_cap_rank,
            }
            for coin in coins
        ]
        return answers.answer({"coins": found})

    @router.get("/coins")
    async def coin_prices(query: Annotated[CoinPriceQuery, Query()]) -> Response:
        ids = list(dict.fromkeys(one.strip().lower() for one in query.ids.split(",") if one.strip()))
        if len(ids) > MAX_COINS:
            raise Invalid(
                "too many ids", errors=(FieldError("ids", "too-many", f"give at most {MAX_COINS}"),)
            )
        known = {coin_id: coin for coin_id in ids if (coin := view.resolver.coin(coin_id)) is not None}
        owners = {coin: asset for asset, coin in view.catalogue.asset_coins.items()}
        symbols = [(f"{owners[coin_id]}-USD", CONSOLIDATED) for coin_id in ids if coin_id in owners]
        updates = await latest.prices(symbols)
        by_symbol = {update.symbol: update for update in updates if update is not None}
        references = dict(zip(ids, await latest.references(ids), strict=True))
        now_us = clock.now_us()
        prices = {}
        for coin_id in ids:
            update = by_symbol.get(f"{owners.get(coin_id, '')}-USD")
            reference, coin = references[coin_id], known.get(coin_id)
            if coin is None and reference is None:
                continue
            prices[coin_id] = _coin_price(coin_id, coin, update, reference, now_us)
        unknown = [coin_id for coin_id in ids if coin_id not in prices]
        return answers.answer({"prices": prices, "unknown": unknown})

    return router


def _pair_row(view: CatalogueView, pair: Pair) -> dict[str, Any]:
    base, _, quote = pair.symbol.partition("-")
    coin_id = view.catalogue.asset_coins.get(base)
    coin = view.resolver.coin(coin_id) if coin_id else None
    return {
        "symbol": pair.symbol,
        "base": base,
        "quote": quote,
        "providers": pair.venues,
        "price_precision": pair.precision,
        "status": pair.status,
        "coin_id": coin_id,
        "name": coin.name if coin else None,
        "market_cap_rank": coin.market_cap_rank if coin else None,
    }


def _coin_price(
    coin_id: str, coin: Coin | None, update: PriceUpdate | None, reference: ReferencePrice | None, now_us: int
) -> dict[str, Any]:
    """Ours where it is not stale, else CoinGecko's, else what the catalogue last heard."""
    body: dict[str, Any] = {
        "id": coin_id,
        "symbol": (coin.symbol if coin else reference.symbol if reference else "").lower(),
        "name": coin.name if coin else coin_id,
        "image": coin.image if coin else None,
        "market_cap_rank": coin.market_cap_rank if coin else None,
        "market_cap": answers.text(reference.market_cap if reference else coin.market_cap if coin else None),
        "volume_24h": answers.text(reference.volume_24h if reference else coin.volume_24h if coin else None),
    }
    ours = update is not None and not is_stale(update.received_us, now_us)
    if update is not None and (ours or reference is None):
        before = None
        if update.change_24h_pct is not None:
            before = update.price - update.price / (1 + update.change_24h_pct / 100)
        elif reference is not None:
            before = reference.change_24h
        change = (
            update.change_24h_pct
            if update.change_24h_pct is not None
            else reference.change_24h_pct
            if reference
            else None
        )
        return body | {
            "current_price": plain(update.price),
            "price_change_24h": None if before is None else plain(round(before, 8)),
            "price_change_percentage_24h": answers.text(change),
            "last_updated": update.event_us // 1000,
            "status": update.status if ours else "stale",
            "source": update.source,
            "stale": not ours,
            "age_ms": age_ms(update.received_us, now_us),
            "simulated": update.simulated,
        }
    if reference is not None:
        return body | {
            "current_price": plain(reference.price),
            "price_change_24h": answers.text(reference.change_24h),
            "price_change_percentage_24h": answers.text(reference.change_24h_pct),
            "last_updated": reference.updated_us // 1000,
            "status": "fallback",
            "source": "coingecko",
            "stale": now_us - reference.received_us > 900_000_000,
            "age_ms": age_ms(reference.received_us, now_us),
            "simulated": False,
        }
    assert coin is not None
    updated = coin.updated_us
    return body | {
        "current_price": answers.text(coin.price),
        "price_change_24h": answers.text(coin.change_24h),
        "price_change_percentage_24h": answers.text(coin.change_24h_pct),
        "last_updated": None if updated is None else updated // 1000,
        "status": None if coin.price is None else "fallback",
        "source": None if coin.price is None else "coingecko",
        "stale": True,
        "age_ms": None if updated is None else age_ms(updated, now_us),
        "simulated": False,
    }
