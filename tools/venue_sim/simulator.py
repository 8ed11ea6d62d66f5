"""The composition of the simulator: a source, the venues on their ports, the engine and the control API."""

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
from tools.venue_sim.market.assets import extra_asset
from tools.venue_sim.market.generator import Generator
from tools.venue_sim.market.instruments import BINANCE, COINBASE, KRAKEN, Instrument, default_instruments
from tools.venue_sim.market.market import SyntheticMarket
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.market.tape import Trade
from tools.venue_sim.net.messages import Site
from tools.venue_sim.net.server import Listener
from tools.venue_sim.options import Options
from tools.venue_sim.venues.binance.site import BinanceSite
from tools.venue_sim.venues.coinbase.site import CoinbaseSite
from tools.venue_sim.venues.coingecko.catalogue import CoinCatalogue
from tools.venue_sim.venues.coingecko.site import CoinGeckoSite
from tools.venue_sim.venues.site import VenueSite


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


class Simulator:
    """Everything, started and stopped together."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.faults = Faults(options.seed)
        self.urls = Urls()
        ports = {BINANCE: options.binance_port, COINBASE: options.coinbase_port, KRAKEN: options.kraken_port}
        instruments: list[Instrument] = []
        for venue, port in ports.items():
            if port is not None:
                instruments += default_instruments(venue, options.symbols_extra)
        self.market = SyntheticMarket(
            options.seed, instruments, history_days=options.history_days, live_rate=options.rate
        )
        self.generator = Generator(self.market, rate=options.rate, quote_ratio=options.quote_ratio)
        self.sites: dict[str, VenueSite] = {}
        if options.binance_port is not None:
            self.sites[BINANCE] = BinanceSite(self.market, self.faults, options.binance)
        if options.coinbase_port is not None:
            self.sites[COINBASE] = CoinbaseSite(self.market, self.faults, options.coinbase)
        if options.coingecko_port is not None:
            extra = [extra_asset(number) for number in range(1, options.symbols_extra + 1)]
            catalogue = CoinCatalogue(
                self.market.model, self.market.usd, options.coingecko.cache_seconds, extra
            )
            self.sites["coingecko"] = CoinGeckoSite(self.market, self.faults, catalogue, options.coingecko)
        self.engine = Engine(
            self.market,
            self.generator,
            list(self.sites.values()),
            self.faults,
            step_seconds=options.step_ms / 1000,
            keep_trades=options.keep_trades,
        )
        effects = Effects(self)
        self.faults.on_market = effects.on_market
        self.faults.on_instant = effects.on_instant
        self.faults.on_release = effects.on_release
        self._listeners: dict[str, Listener] = {}

    # -- what the control API does

    @property
    def trades_made(self) -> int:
        """Live trades since the start."""
        return self.generator.trades_made

    @property
    def quotes_made(self) -> int:
        """Live quotes since the start."""
        return self.generator.quotes_made

    def playback_state(self) -> dict[str, Any] | None:
        """How far a recording has been played; None for the synthetic market."""
        return None

    def set_rate(self, rate: float) -> None:
        """Change the trades per second of the whole market."""
        self.generator.rate = rate
        self.market.live_rate = max(rate, 0.1)

    def set_paused(self, paused: bool) -> None:
        """Stop or continue the live market; connections stay up."""
        self.market.pressure.paused = paused

    def trade_now(self, pair: Pair, price: int, size: int | None, *, sold: bool, shift_us: int) -> Trade:
        """One trade on command: booked, and sent to who listens."""
        size = size or max(1, int(pair.mean_size))
        at_us = self.market.venue_us(pair.instrument.venue) + shift_us
        trade = pair.tape.append(price, -size if sold else size, at_us)
        self.generator.trades_made += 1
        site = self.sites.get(pair.instrument.venue)
        if site is not None and pair.wants_trades:
            site.publish_trades(pair, [trade])
            site.flush()
        return trade

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Simulator]:
        """Listen and let time pass until the block ends."""
        await self._listen()
        loop = asyncio.get_running_loop()
        for faults in self.faults.venues.values():
            faults.later = loop.call_later
        engine = asyncio.get_running_loop().create_task(self.engine.run())
        try:
            yield self
        finally:
            engine.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await engine
            for listener in self._listeners.values():
                await listener.stop()

    async def _listen(self) -> None:
        options = self.options
        wanted = {
            BINANCE: options.binance_port,
            COINBASE: options.coinbase_port,
            "coingecko": options.coingecko_port,
            KRAKEN: options.kraken_port,
            "control": options.control_port,
        }
        ports: dict[str, int] = {}
        sites: dict[str, Site] = dict(self.sites)
        if options.control_port is not None:
            sites["control"] = ControlSite(self)
        for name, site in sites.items():
            listener = Listener(site, options.max_client_buffer_bytes)
            ports[name] = await listener.start(options.host, wanted[name] or 0)
            self._listeners[name] = listener
        self.urls = make_urls(options.host, ports)


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
        coingecko_api=url("coingecko", "http://{}/api/v3"),
        kraken_api=url(KRAKEN, "http://{}/0/public"),
        kraken_ws=url(KRAKEN, "ws://{}"),
        control=url("control", "http://{}"),
    )
