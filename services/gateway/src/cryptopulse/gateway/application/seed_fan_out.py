"""The second seed's price updates: one message per distinct set of coins, on change at most once a second, at least every 30 s."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import orjson

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.prices import PriceUpdate, age_ms, is_stale
from cryptopulse.common.contracts.ticks import ReferencePrice
from cryptopulse.common.contracts.values import plain
from cryptopulse.common.errors import Refused
from cryptopulse.gateway.application.connection import Connection
from cryptopulse.gateway.application.market import Market
from cryptopulse.gateway.domain.frames import text_frame
from cryptopulse.gateway.domain.seed import number

REPEAT_SECONDS: Final = 30.0
COINS_MAX: Final = 250

CoinSet = tuple[str, ...]


class SeedHub:
    """Who of the seed's sockets wants which coins. Coins without a market of ours show CoinGecko's price, when known."""

    def __init__(self, market: Market, clock: Clock) -> None:
        self._market = market
        self._clock = clock
        self._wants: dict[Connection, CoinSet] = {}
        self._sent: dict[CoinSet, tuple[tuple[Any, ...], float]] = {}
        self.references: dict[str, ReferencePrice] = {}

    def set_coins(self, connection: Connection, coins: CoinSet) -> None:
        """From now on this connection wants these coins; an empty set wants nothing."""
        self._wants[connection] = tuple(sorted(coins))

    def coins(self, connection: Connection) -> CoinSet:
        """What a connection wants."""
        return self._wants.get(connection, ())

    def remove(self, connection: Connection) -> None:
        """The connection is gone."""
        coins = self._wants.pop(connection, None)
        if coins is not None and coins not in self._wants.values():
            self._sent.pop(coins, None)

    def without_market(self) -> list[str]:
        """Coins that someone wants and that no connected venue prices."""
        wanted = {coin for coins in self._wants.values() for coin in coins}
        return sorted(coin for coin in wanted if self._price(coin) is None)

    def message(self, coins: CoinSet) -> bytes:
        """A `price_update` of these coins; one without a price is left out, never 0."""
        data = {coin: row for coin in sorted(coins) if (row := self._row(coin)) is not None}
        return orjson.dumps({"type": "price_update", "data": data, "timestamp": self._clock.now_ms() / 1_000})

    def tick(self) -> int:
        """A second has passed: send every set of coins that moved, or was not sent for 30 s; how many frames."""
        groups: dict[CoinSet, list[Connection]] = {}
        for connection, coins in self._wants.items():
            if coins:
                groups.setdefault(coins, []).append(connection)
        now = self._clock.monotonic()
        written = 0
        for coins, connections in groups.items():
            mark = tuple(self._mark(coin) for coin in coins)
            before, at = self._sent.get(coins, ((), -REPEAT_SECONDS))
            if mark == before and now - at < REPEAT_SECONDS:
                continue
            self._sent[coins] = (mark, now)
            frame = text_frame(self.message(coins))
            for connection in connections:
                if not connection.blocked and not connection.closed:
                    connection.write(frame)
                    written += 1
        return written

    def note_sent(self, coins: CoinSet) -> None:
        """The set was just sent to somebody who joined: nothing new for him until it moves."""
        ordered = tuple(sorted(coins))
        self._sent.setdefault(ordered, (tuple(self._mark(coin) for coin in ordered), self._clock.monotonic()))

    def _price(self, coin: str) -> PriceUpdate | None:
        try:
            found = self._market.resolve(coin)
        except Refused:
            return None
        return self._market.usd(found.base) if found.quote == "USD" else None

    def _mark(self, coin: str) -> Any:
        update = self._price(coin)
        if update is not None:
            return update.price, update.change_24h_pct, is_stale(update.received_us, self._clock.now_us())
        reference = self.references.get(coin)
        return None if reference is None else reference.price

    def _row(self, coin: str) -> dict[str, Any] | None:
        now = self._clock.now_us()
        update = self._price(coin)
        if update is not None:
            return {
                "usd": _number(update.price),
                "usd_24h_change": _number(update.change_24h_pct),
                "last_updated_at": update.event_us // 1_000_000,
                "stale": is_stale(update.received_us, now),
                "age_ms": age_ms(update.received_us, now),
                "simulated": update.simulated,
            }
        reference = self.references.get(coin)
        if reference is None:
            return None
        return {
            "usd": _number(reference.price),
            "usd_24h_change": _number(reference.change_24h_pct),
            "last_updated_at": reference.updated_us // 1_000_000,
            "stale": is_stale(reference.received_us, now),
            "age_ms": age_ms(reference.received_us, now),
            "status": "fallback",
        }


def _number(value: Decimal | None) -> Any:
    return None if value is None else number(plain(value))
