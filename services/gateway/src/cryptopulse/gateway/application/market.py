"""Market reads from memory: the newest price of every symbol and source, cross rates, and what a name means."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.prices import PriceUpdate, is_stale
from cryptopulse.common.contracts.resolver import (
    AmbiguousSymbolError,
    Catalogue,
    Resolved,
    Resolver,
    UnknownSymbolError,
)
from cryptopulse.common.contracts.values import CONSOLIDATED, SYMBOL_PATTERN, split_symbol
from cryptopulse.common.errors import Invalid, NotFound
from cryptopulse.gateway.domain import price_body

REMEMBERED_NAMES: Final = 20_000
SOURCE_PATTERN_MAX: Final = 30


@dataclass(slots=True)
class Quoted:
    """A price ready to be sent: the update and its body without age."""

    update: PriceUpdate
    head: bytes

    def body(self, now_us: int) -> bytes:
        """The public body at `now_us`."""
        return price_body.body(self.head, self.update.status, self.update.received_us, now_us)


class Market:
    """The newest prices, fed by the bus; one writer, many readers, all on the loop's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._prices: dict[str, dict[str, PriceUpdate]] = {}
        self._ready: dict[tuple[str, str], Quoted] = {}
        self._resolver = Resolver(Catalogue(version=0))
        self._names: OrderedDict[str, Resolved] = OrderedDict()
        self.catalogue = Catalogue(version=0)
        self.newest_received_us = 0

    # --- writing -------------------------------------------------------------------------------------------------

    def apply(self, update: PriceUpdate) -> bool:
        """Take a price; False when it is not newer: a lower epoch, or a `seq` not above that of the same epoch."""
        sources = self._prices.setdefault(update.symbol, {})
        known = sources.get(update.source)
        if known is not None and (update.epoch, update.seq) <= (known.epoch, known.seq):
            return False
        sources[update.source] = update
        self._ready.pop((update.symbol, update.source), None)
        self.newest_received_us = max(self.newest_received_us, update.received_us)
        return True

    def use_catalogue(self, catalogue: Catalogue) -> None:
        """Resolve names by this catalogue from now on."""
        self._resolver = Resolver(catalogue)
        self.catalogue = catalogue
        self._names.clear()

    # --- names ---------------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> Resolved:
        """What a name means. Raises `NotFound` (`unknown-symbol`) or `Invalid` (`ambiguous-symbol`, with the candidates)."""
        known = self._names.get(name)
        if known is not None:
            return known
        try:
            found = self._resolver.resolve(name)
        except AmbiguousSymbolError as error:
            raise Invalid(str(error), code="ambiguous-symbol") from error
        except UnknownSymbolError as error:
            traded = self._traded(name)
            if traded is None:
                raise NotFound(str(error), code="unknown-symbol") from error
            found = traded
        self._names[name] = found
        if len(self._names) > REMEMBERED_NAMES:
            self._names.popitem(last=False)
        return found

    def _traded(self, name: str) -> Resolved | None:
        """A symbol that has a price though the catalogue does not know it (yet)."""
        text = name.strip().upper().replace("/", "-").replace("_", "-")
        symbol = text if "-" in text else f"{text}-USD"
        if SYMBOL_PATTERN.match(symbol) is None or symbol not in self._prices:
            return None
        base, quote = split_symbol(symbol)
        return Resolved(symbol=symbol, base=base, quote=quote)

    def resolver(self) -> Resolver:
        """The resolver of the present catalogue."""
        return self._resolver

    # --- reading -------------------------------------------------------------------------------------------------

    def price(self, symbol: str, source: str | None = None) -> PriceUpdate | None:
        """The newest price of a canonical symbol.

        With `source`: of that source alone. Without: the consolidated one; else, for a traded pair, the venue with the most
        volume among the fresh ones; else the cross rate of two consolidated prices. None when there is none.
        """
        sources = self._prices.get(symbol)
        if source is not None:
            found = sources.get(source) if sources else None
            return found if found is not None or source != CONSOLIDATED else self._crossed(symbol)
        if sources:
            return sources.get(CONSOLIDATED) or self._best(sources)
        return self._crossed(symbol)

    def ready(self, symbol: str, source: str | None = None) -> Quoted | None:
        """As `price`, with a body that was made once per update."""
        update = self.price(symbol, source)
        if update is None:
            return None
        key = (symbol, update.source)
        quoted = self._ready.get(key)
        if quoted is None or quoted.update is not update:
            quoted = Quoted(update, price_body.head(update))
            sources = self._prices.get(symbol)
            if sources is not None and update.source in sources:
                self._ready[key] = quoted
        return quoted

    def usd(self, asset: str) -> PriceUpdate | None:
        """The consolidated price of an asset in USD."""
        return self._prices.get(f"{asset}-USD", {}).get(CONSOLIDATED)

    def sources(self, symbol: str) -> dict[str, PriceUpdate]:
        """The newest price of a symbol from every source."""
        return self._prices.get(symbol, {})

    def venues(self, resolved: Resolved) -> set[str]:
        """The venues that list or price a pair."""
        listed = resolved.pair.venues if resolved.pair is not None else []
        return {*listed, *self.sources(resolved.symbol)} - {CONSOLIDATED}

    def symbols(self) -> list[str]:
        """The symbols that have a price."""
        return list(self._prices)

    def _best(self, sources: dict[str, PriceUpdate]) -> PriceUpdate:
        now = self._clock.now_us()

        def rank(update: PriceUpdate) -> tuple[bool, float, int]:
            volume = float(update.volume_24h or 0)
            return (not is_stale(update.received_us, now), volume, update.received_us)

        return max(sources.values(), key=rank)

    def _crossed(self, symbol: str) -> PriceUpdate | None:
        base_name, _, quote_name = symbol.partition("-")
        base, quote = self.usd(base_name), self.usd(quote_name)
        if base is None or quote is None or not quote.price or base_name == quote_name:
            return None
        return price_body.cross(symbol, base, quote)
