"""What can be traded and priced: instruments of venues, coins with their ids and ranks."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from cryptopulse.common.contracts.base import Message

InstrumentStatus = Literal["trading", "halted", "delisted", "unknown"]


class Instrument(Message):
    """One pair of one venue. `native` is the venue's own name; increments are exact decimals, None when unknown."""

    venue: str
    symbol: str
    native: str
    status: InstrumentStatus
    price_increment: Decimal | None = None
    size_increment: Decimal | None = None
    coin_id: str | None = None
    subscribed: bool = False


class InstrumentList(Message):
    """The instruments of one venue. `complete` true: whatever is not in it is no longer listed there."""

    venue: str
    at_us: int
    instruments: list[Instrument]
    complete: bool = True
    simulated: bool = False


class Coin(Message):
    """A coin by its CoinGecko id. Symbols are not unique among coins, ids are. Money in USD."""

    id: str
    symbol: str
    name: str
    image: str | None = None
    market_cap_rank: int | None = None
    market_cap: Decimal | None = None
    circulating_supply: Decimal | None = None
    price: Decimal | None = None
    change_24h: Decimal | None = None
    change_24h_pct: Decimal | None = None
    volume_24h: Decimal | None = None
    updated_us: int | None = None


class CoinList(Message):
    """Coins, by rank, some hundred a message."""

    at_us: int
    coins: list[Coin]
    simulated: bool = False
