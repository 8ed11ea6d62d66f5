"""Which markets of a venue are followed, and telling everyone what it lists (hourly, and on change)."""

from __future__ import annotations

from typing import Final

from cryptopulse.common.bus.protocols import Publisher
from cryptopulse.common.bus.routing import key_of
from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.catalogue import Instrument, InstrumentList
from cryptopulse.common.contracts.topics import INSTRUMENTS
from cryptopulse.common.errors import BusUnavailable, CryptoPulseError
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.ingestor.application.ports import Venue
from cryptopulse.ingestor.application.unheard import Unheard
from cryptopulse.ingestor.domain.symbols import Part, Wish, changes, chosen, unlisted

REFRESH_SECONDS: Final = 3_600.0
RETRY_SECONDS: Final = 30.0

log = get_logger(__name__)


class VenueCatalogue:
    """The instruments of one venue and our choice among them. Without a product list: the naming rule, said so."""

    def __init__(
        self, venue: Venue, bus: Publisher, clock: Clock, wish: Wish, part: Part, *, simulated: bool
    ) -> None:
        self._venue = venue
        self._bus = bus
        self._clock = clock
        self._wish = wish
        self._part = part
        self._simulated = simulated
        self._next_at = 0.0
        self._unheard = Unheard(clock)
        self._unpublished: InstrumentList | None = None
        self.instruments: list[Instrument] = []
        self.followed: list[Instrument] = []
        self.detail = ""

    async def refresh(self) -> bool:
        """Ask for the list when it is time; True when what we follow has changed."""
        await self._publish()
        now = self._clock.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + RETRY_SECONDS
        try:
            listed = await self._venue.instruments()
            volumes = await self._venue.volumes() if self._wish.needs_volumes else None
        except CryptoPulseError as error:
            self._next_at = now + max(RETRY_SECONDS, getattr(error, "retry_after_seconds", None) or 0.0)
            return self._by_rule(str(error))
        self._next_at = now + REFRESH_SECONDS
        return await self._take(listed, chosen(self._wish, listed, self._part, volumes))

    async def _take(self, listed: list[Instrument], followed: list[Instrument]) -> bool:
        appeared, went = changes(self.instruments, listed)
        if self.instruments and (appeared or went):
            log.info("markets changed", venue=self._venue.name, appeared=appeared[:50], went=went[:50])
        before = {i.native for i in self.followed}
        self.instruments, self.followed = listed, followed
        missing = unlisted(self._wish, listed)
        self.detail = f"not listed here: {', '.join(missing[:30])}" if missing else ""
        names = {i.native for i in followed}
        self._unpublished = InstrumentList(
            venue=self._venue.name,
            at_us=self._clock.now_us(),
            instruments=[_marked(i, i.native in names) for i in listed],
            simulated=self._simulated,
        )
        await self._publish()
        log.info("markets chosen", venue=self._venue.name, listed=len(listed), followed=len(followed))
        return names != before

    def _by_rule(self, why: str) -> bool:
        """Keep what we had; at first, subscribe the named symbols by the venue's naming rule."""
        if self.followed:
            self.detail = f"product list not refreshed: {why}"
            return False
        names = [name for name in self._wish.names if self._part.holds(name)]
        self.followed = [
            Instrument(
                venue=self._venue.name,
                symbol=name,
                native=self._venue.native_by_rule(name),
                status="unknown",
                subscribed=True,
            )
            for name in names
        ]
        self.detail = f"no product list ({why}): {len(names)} markets subscribed by the venue's naming rule"
        log.warning("no product list", venue=self._venue.name, error=why, by_rule=len(names))
        return bool(names)

    async def _publish(self) -> None:
        if self._unpublished is None:
            return
        try:
            key = key_of(INSTRUMENTS, venue=self._venue.name)
            await self._bus.publish(INSTRUMENTS, self._unpublished, key=key)
            self._unpublished = None
        except BusUnavailable as error:
            if (level := self._unheard.level(error)) is not None:
                log.log(level, "product list not published yet", venue=self._venue.name, error=str(error))


def _marked(instrument: Instrument, subscribed: bool) -> Instrument:
    if instrument.subscribed is subscribed:
        return instrument
    return Instrument(
        venue=instrument.venue,
        symbol=instrument.symbol,
        native=instrument.native,
        status=instrument.status,
        price_increment=instrument.price_increment,
        size_increment=instrument.size_increment,
        coin_id=instrument.coin_id,
        subscribed=subscribed,
    )
