"""Every Redis key, its writer and its life. A key has one writing service; nobody else writes it.

Values are msgpack of the contract named, unless said otherwise. `{}` hash tags keep multi-key commands on one slot.
"""

from __future__ import annotations

from typing import Final

# --- indicators writes -------------------------------------------------------------------------------------------

PRICE_TTL_SECONDS: Final = 7 * 86_400


def price(symbol: str) -> str:
    """Latest consolidated `PriceUpdate` of `X-USD`. Writer: indicators."""
    return f"cp:price:{symbol}"


def venue_price(symbol: str, venue: str) -> str:
    """Latest `PriceUpdate` of a pair on one venue. Writer: indicators."""
    return f"cp:price:{symbol}:{venue}"


def coin_price(coin_id: str) -> str:
    """Latest `ReferencePrice` of a coin by its CoinGecko id. Writer: indicators."""
    return f"cp:coinprice:{coin_id}"


PRICE_INDEX: Final = "cp:price:index"
"""Set of all keys of `price` and `venue_price` (text), so that a cold reader can load everything. Writer: indicators."""


def forming(symbol: str, source: str) -> str:
    """Hash interval -> `Candle` (closed false) of the forming bars. Writer: indicators. Lives 1 hour."""
    return f"cp:forming:{symbol}:{source}"


FORMING_BEFORE: Final = "-"
"""Appended to the interval in `forming`: the bar before the newest, while it still waits for stragglers."""


POSITION: Final = "@"
"""Appended to the interval in `forming` and `indicators`: `<epoch>:<offset>` of the newest closed bar that was published."""


def indicators(symbol: str, source: str) -> str:
    """Hash interval -> `IndicatorUpdate`: the newest live values. Writer: indicators. Lives 1 day."""
    return f"cp:ind:{symbol}:{source}"


def shard_snapshot(service: str, shard: int, shards: int) -> str:
    """The state of a shard with its epoch. Writer: the shard's owner in `service`."""
    return f"cp:snap:{{{service}:{shard}of{shards}}}"


def shard_epoch(service: str, shard: int, shards: int) -> str:
    """The newest owner's epoch (INCR). Writer: the shard's owner in `service`."""
    return f"cp:epoch:{{{service}:{shard}of{shards}}}"


def shard_lease(service: str, shard: int, shards: int) -> str:
    """Replica id of the present owner, expiring. Writer: the shard's owner in `service`."""
    return f"cp:shardlease:{{{service}:{shard}of{shards}}}"


def replicas(service: str) -> str:
    """Sorted set replica id -> last heartbeat in ms; members older than 6 s are gone. Writer: that service's replicas."""
    return f"cp:replicas:{service}"


def series_states(shard: int, shards: int) -> str:
    """Hash `<symbol>|<source>|<interval>` -> state of that indicator series. Writer: indicators, the shard's owner."""
    return f"cp:series:{{indicators:{shard}of{shards}}}"


SIGNALS: Final = "cp:signals"
"""List of msgpack `Signal`, newest first, bounded. Writer: indicators."""

CATALOGUE: Final = "cp:catalogue"
"""msgpack of `contracts.resolver.Catalogue`: what the one resolver reads. Writer: indicators (owner of shard 0)."""
CATALOGUE_VERSION: Final = "cp:catalogue:version"
"""The version inside `CATALOGUE`, set with it in one transaction. Writer: indicators."""
CATALOGUE_SEQUENCE: Final = "cp:catalogue:sequence"
"""Where versions come from (INCR). Writer: indicators."""


def scanner(name: str, quote: str, window: str) -> str:
    """Sorted set symbol -> score of a market scanner (`change`, `volume_ratio`, ...). Writer: indicators."""
    return f"cp:scan:{quote}:{name}:{window}"


# --- ingestor writes ---------------------------------------------------------------------------------------------


def last_trade_ids(venue: str) -> str:
    """Hash symbol -> `<last trade id>:<event_us>`. Writer: ingestor."""
    return f"cp:lastid:{venue}"


def history_marks(venue: str, *, simulated: bool) -> str:
    """Hash `<symbol> <interval>` -> covered ranges `<from_ms>:<to_ms>,...`. Writer: ingestor. Lives 30 days."""
    return f"cp:history:{'sim:' if simulated else ''}{venue}"


def budget(venue: str, address: str) -> str:
    """The shared token pools of a venue and outgoing address. Writer: ingestor."""
    return f"cp:budget:{{{venue}:{address}}}"


def lease(venue: str, part: str) -> str:
    """Who serves this part of a venue, with its epoch. Writer: ingestor."""
    return f"cp:lease:{{{venue}:{part}}}"


WANTED: Final = "cp:wanted"
"""Sorted set CoinGecko id -> expiry in ms: what someone holds or watches. Writer: ingestor (`PUT /wanted`)."""

# --- alerts writes -----------------------------------------------------------------------------------------------


def evaluated(shard: int, shards: int) -> str:
    """Hash `<symbol>:<source>` -> last evaluated position. Writer: alerts, the shard's owner."""
    return f"cp:evaluated:{{{shard}of{shards}}}"


# --- gateway writes ----------------------------------------------------------------------------------------------


def rate_limit(policy: str, principal: str) -> str:
    """GCRA state of a principal under a policy. Writer: gateway. Lives as long as it matters."""
    return f"cp:limit:{policy}:{principal}"


REVOCATIONS: Final = "cp:revoked"
"""Pub/sub channel and sorted set of revoked session and key ids. Writer: gateway."""

FOLLOWED: Final = "cp:followed"
"""Sorted set of symbols whose trades the gateways follow, by the second until which. Writer: gateway."""
FOLLOWED_SECONDS: Final = 90
