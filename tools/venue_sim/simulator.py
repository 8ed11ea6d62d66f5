"""The composition of the simulator: a source, the venues on their ports, the loop that drives them, the control API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from tools.venue_sim.control import ControlSite
from tools.venue_sim.effects import Effects
from tools.venue_sim.engine import Engine
from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.market.assets import asset_of, extra_asset
from tools.venue_sim.market.generator import Generator
from tools.venue_sim.market.instruments import (
    BINANCE,
    COINBASE,
    KRAKEN,
    Instrument,
    default_instruments,
    make_instrument,
)
from tools.venue_sim.market.market import Market, SyntheticMarket
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.market.prices import PriceModel
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net.messages import Site
from tools.venue_sim.net.server import Listener
from tools.venue_sim.options import Options
from tools.venue_sim.playback.market import PlaybackMarket
from tools.venue_sim.playback.player import PlayClock, Player
from tools.venue_sim.playback.reader import read
from tools.venue_sim.venues.binance.site import BinanceSite
from tools.venue_sim.venues.coinbase.site import CoinbaseSite
from tools.venue_sim.venues.coingecko.catalogue import CoinCatalogue
from tools.venue_sim.venues.coingecko.site import CoinGeckoSite
from tools.venue_sim.venues.kraken.site import KrakenSite
from tools.venue_sim.venues.site import VenueSite

COINGECKO = "coingecko"


@dataclass(frozen=True, slots=True)
class Urls:
    """Where everything is; empty when a venue is not served."""

    binance_api: str = ""
    binance_ws: str = ""
    coinbase_api: str = ""
    coinbase_exchange_api: str = ""
    coinbase_ws: str = ""
    coingecko_api: str = ""
    kraken_api: str = ""
    kraken_ws: str = ""
    control: str = ""


class NotPossibleError(ValueError):
    """A command that this source cannot follow."""


class Simulator:
    """Everything, started and stopped together. `source` drives the venues: an Engine or a Player."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.faults = Faults(options.seed)
        self.urls = Urls()
        self.sites: dict[str, VenueSite] = {}
        self.market: Market
        self.source: Engine | Player
        if options.play:
            self._from_recordings()
        else:
            self._from_seed()
        effects = Effects(self)
        self.faults.on_market = effects.on_market
        self.faults.on_instant = effects.on_instant
        self.faults.on_release = effects.on_release
        self._listeners: dict[str, Listener] = {}
        self.task: asyncio.Task[None] | None = None  # done only when something went wrong

    # -- the two sources

    def _from_seed(self) -> None:
        options = self.options
        instruments: list[Instrument] = []
        for venue, port in self._ports().items():
            if port is not None and venue != COINGECKO:
                instruments += default_instruments(venue, options.symbols_extra, options.coins)
        if options.symbols:
            instruments = [one for one in instruments if one.symbol in options.symbols]
        market = SyntheticMarket(
            options.seed, instruments, history_days=options.history_days, live_rate=options.rate
        )
        self.market = market
        self._open(market, market.model)
        generator = Generator(market, rate=options.rate, quote_ratio=options.quote_ratio)
        self.source = Engine(
            market,
            generator,
            list(self.sites.values()),
            self.faults,
            step_seconds=options.step_ms / 1000,
            keep_trades=options.keep_trades,
        )

    def _from_recordings(self) -> None:
        options = self.options
        recording = read(options.play)
        clock = PlayClock(recording.frames, options.speed)
        model = PriceModel(options.seed)
        market = PlaybackMarket(recording.frames, model, clock.now_us)
        self.market = market
        self._open(market, model)
        for venue, site in self.sites.items():
            site.recorded = frozenset(
                (frame.native, frame.channel) for frame in recording.frames if frame.venue == venue
            )
        self.source = Player(
            recording,
            market,
            clock,
            self.sites,
            self.faults,
            step_seconds=options.step_ms / 1000,
            wait_seconds=options.play_wait_seconds,
        )

    def _ports(self) -> dict[str, int | None]:
        options = self.options
        return {
            BINANCE: options.binance_port,
            COINBASE: options.coinbase_port,
            COINGECKO: options.coingecko_port,
            KRAKEN: options.kraken_port,
        }

    def _open(self, market: Market, model: PriceModel) -> None:
        options, faults = self.options, self.faults
        served = {venue for venue, port in self._ports().items() if port is not None}
        if BINANCE in served:
            self.sites[BINANCE] = BinanceSite(market, faults, options.binance)
        if COINBASE in served:
            self.sites[COINBASE] = CoinbaseSite(market, faults, options.coinbase)
        if KRAKEN in served:
            self.sites[KRAKEN] = KrakenSite(market, faults, options.kraken)
        if COINGECKO in served:
            extra = [extra_asset(number) for number in range(1, options.symbols_extra + 1)]
            catalogue = CoinCatalogue(model, market.usd, options.coingecko.cache_seconds, extra)
            self.sites[COINGECKO] = CoinGeckoSite(market, faults, catalogue, options.coingecko)

    # -- what the control API does

    @property
    def trades_made(self) -> int:
        """Live trades since the start."""
        return self.source.trades_made

    @property
    def quotes_made(self) -> int:
        """Live quotes since the start."""
        return self.source.quotes_made

    def playback_state(self) -> dict[str, Any] | None:
        """How far a recording has been played; None for the synthetic market."""
        return self.source.state() if isinstance(self.source, Player) else None

    def synthetic(self) -> tuple[SyntheticMarket, Generator]:
        """The synthetic market and its generator; refuses when a recording is played."""
        if not isinstance(self.market, SyntheticMarket) or not isinstance(self.source, Engine):
            raise NotPossibleError("this needs the synthetic market, but a recording is played")
        return self.market, self.source.generator

    def set_rate(self, rate: float) -> None:
        """Change the trades per second of the whole market."""
        market, generator = self.synthetic()
        generator.rate = rate
        market.live_rate = max(rate, 0.1)

    def set_paused(self, *, paused: bool) -> None:
        """Stop or continue the market; connections stay up."""
        if isinstance(self.source, Player):
            self.source.set_paused(paused=paused)
        else:
            self.synthetic()[0].pressure.paused = paused

    def list_new(self, venue: str, symbol: str) -> Pair:
        """List a new pair of known (or extra) assets now."""
        market, generator = self.synthetic()
        base, _, quote = symbol.partition("-")
        if venue not in market.pairs or market.find(venue, symbol) is not None:
            raise NotPossibleError(f"{symbol} cannot be listed on {venue}: no such venue, or listed already")
        try:
            pair = market.list_new(make_instrument(venue, asset_of(base), asset_of(quote)))
        except KeyError as error:
            raise NotPossibleError(f"unknown asset {error}; X0001, X0002 ... may be made up") from error
        generator.refill()
        return pair

    def trade_now(self, pair: Pair, price: int, size: int | None, *, sold: bool, at_us: int) -> Trade:
        """One trade on command: booked, and sent to who listens."""
        size = size or max(1, int(pair.mean_size))
        trade = pair.tape.append(price, -size if sold else size, at_us)
        self.source.trades_made += 1
        site = self.sites.get(pair.instrument.venue)
        if site is not None and pair.wants_trades:
            site.publish_trades(pair, [trade])
            site.flush()
        return trade

    # -- running

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Simulator]:
        """Listen and let time pass until the block ends."""
        loop = asyncio.get_running_loop()
        await self._listen()
        for faults in self.faults.venues.values():
            faults.later = loop.call_later
        self.task = loop.create_task(self.source.run())
        try:
            yield self
        finally:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
            for site in self.sites.values():
                await site.stop()
            for listener in self._listeners.values():
                await listener.stop()

    async def _listen(self) -> None:
        sites: dict[str, tuple[Site, int]] = {
            name: (site, self._ports()[name] or 0) for name, site in self.sites.items()
        }
        if self.options.control_port is not None:
            sites["control"] = (ControlSite(self), self.options.control_port)
        ports: dict[str, int] = {}
        for name, (site, port) in sites.items():
            listener = Listener(site, self.options.max_client_buffer_bytes)
            ports[name] = await listener.start(self.options.host, port)
            self._listeners[name] = listener
        self.urls = make_urls(self.options.host, ports)


def make_urls(host: str, ports: dict[str, int]) -> Urls:
    """The URLs that go into the settings of what connects here."""

    def url(name: str, form: str) -> str:
        return form.format(f"{host}:{ports[name]}") if name in ports else ""

    return Urls(
        binance_api=url(BINANCE, "http://{}/api/v3"),
        binance_ws=url(BINANCE, "ws://{}"),
        coinbase_api=url(COINBASE, "http://{}/api/v3/brokerage"),
        coinbase_exchange_api=url(COINBASE, "http://{}"),
        coinbase_ws=url(COINBASE, "ws://{}"),
        coingecko_api=url(COINGECKO, "http://{}/api/v3"),
        kraken_api=url(KRAKEN, "http://{}/0/public"),
        kraken_ws=url(KRAKEN, "ws://{}"),
        control=url("control", "http://{}"),
    )
