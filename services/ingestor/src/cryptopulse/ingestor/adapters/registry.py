"""Every venue by its name: a new one is a folder beside this file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.ingestor.adapters.binance.feed import BinanceFeed
from cryptopulse.ingestor.adapters.coinbase.feed import CoinbaseFeed
from cryptopulse.ingestor.adapters.coinbase_exchange.feed import CoinbaseExchangeFeed
from cryptopulse.ingestor.adapters.kraken import feed as kraken
from cryptopulse.ingestor.adapters.kraken.feed import KrakenFeed
from cryptopulse.ingestor.adapters.rest import VenueHttp
from cryptopulse.ingestor.application.ports import Quota, Venue


@dataclass(slots=True)
class Parts:
    """What a venue is made of; `urls` are (REST, socket) by the venue's name, empty for the venue's own."""

    quota: Quota
    clock: Clock
    urls: dict[str, tuple[str, str]]
    dialects: dict[str, str] = field(default_factory=dict)
    clients: list[VenueHttp] = field(default_factory=list)

    def http(self, venue: str, default_url: str = "", **options: str) -> VenueHttp:
        """A REST client that is closed with the others."""
        client = VenueHttp(venue, self.urls.get(venue, ("", ""))[0] or default_url, self.quota, **options)  # type: ignore[arg-type]  # only header names are passed
        self.clients.append(client)
        return client

    def ws_url(self, venue: str, default_url: str = "") -> str:
        """The venue's socket address."""
        return self.urls.get(venue, ("", ""))[1] or default_url


def _binance(parts: Parts) -> Venue:
    http = parts.http("binance", used_header="X-MBX-USED-WEIGHT-1M")
    return BinanceFeed(http, parts.ws_url("binance"), parts.quota, parts.clock)


def _coinbase(parts: Parts) -> Venue:
    if parts.dialects.get("coinbase") == "exchange":
        return CoinbaseExchangeFeed(
            parts.http("coinbase"), parts.ws_url("coinbase"), parts.quota, parts.clock
        )
    return CoinbaseFeed(parts.http("coinbase"), parts.ws_url("coinbase"), parts.quota, parts.clock)


def _kraken(parts: Parts) -> Venue:
    return KrakenFeed(
        parts.http("kraken", kraken.REST_URL), parts.ws_url("kraken", kraken.WS_URL), parts.quota, parts.clock
    )


VENUES: Final[dict[str, Callable[[Parts], Venue]]] = {
    "binance": _binance,
    "coinbase": _coinbase,
    "kraken": _kraken,
}
