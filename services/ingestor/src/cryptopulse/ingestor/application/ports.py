"""What ingest needs from outside: venues, sockets, budgets, memory over restarts, and the bus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from cryptopulse.common.bus.protocols import Publisher
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Coin, Instrument
from cryptopulse.common.contracts.feeds import BudgetStatus
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.ticks import ReferencePrice, Trade
from cryptopulse.ingestor.domain.history import Covered
from cryptopulse.ingestor.domain.ordering import Gap
from cryptopulse.ingestor.domain.output import Output
from cryptopulse.ingestor.domain.quota import PoolRule, Priority


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """A venue's limits on sockets, and how long which silence is normal. Seconds throughout."""

    streams_per_connection: int
    connects_per_second: float
    connects_per_window: int
    window_seconds: float
    control_per_second: float
    frame_silence_seconds: float
    data_silence_seconds: float
    life_seconds: float | None
    hold_us: int


class TickBus(Publisher, Protocol):
    """What a publisher of ticks needs of the bus: it must notice a connection that was lost."""

    @property
    def connections(self) -> int:
        """See `common.bus.protocols.Bus.connections`."""
        ...


class Parser(Protocol):
    """Reads the frames of one connection in order."""

    def parse(self, frame: bytes, received_us: int, /) -> None:
        """Hand on what the frame says to the output it was made with. Never raises."""
        ...


class Venue(Protocol):
    """A market place: its dialect on the socket (pure) and its REST (I/O). A new venue is one class and its registration.

    REST calls raise `errors.UpstreamUnavailable` (again later) or `errors.Refused` (never), and spend the shared budget.
    """

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def rules(self) -> ConnectionRules: ...
    @property
    def intervals(self) -> frozenset[Interval]:
        """Candle intervals that the venue serves itself."""
        ...

    @property
    def rows_per_page(self) -> int:
        """Candles per call."""
        ...

    @property
    def repair_limit(self) -> int:
        """Trades of one gap that are worth fetching one by one; beyond it candles come from klines."""
        ...

    def native_by_rule(self, symbol: str) -> str:
        """The venue's name of a symbol by its naming rule alone, for when the product list cannot be had."""
        ...

    def streams(self, native: str) -> tuple[str, ...]:
        """What we subscribe for one market, as the venue lists it in its answers."""
        ...

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        """The control messages that subscribe these markets; the first carries `request_id`, the next the following."""
        ...

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        """The control messages that take the subscription back."""
        ...

    def list_streams(self, request_id: int) -> bytes | None:
        """The question for the present subscriptions; None where the venue tells by itself."""
        ...

    def parser(self, names: Mapping[str, str], out: Output) -> Parser:
        """A parser for one new connection; `names` (venue's name -> symbol) may grow while it runs."""
        ...

    async def instruments(self) -> list[Instrument]:
        """The product list."""
        ...

    async def volumes(self) -> dict[str, Decimal]:
        """24 h volume in quote units by canonical symbol, for `top:n`."""
        ...

    async def trades(self, native: str, gap: Gap) -> list[Trade]:
        """What the venue still has of a gap, ascending by id; fewer when some are gone. The gap's times are the venue's."""
        ...

    async def candles(
        self, native: str, symbol: str, interval: Interval, from_ms: int, to_ms: int
    ) -> list[Candle]:
        """Closed candles that open in [`from_ms`, `to_ms`), ascending; empty bars are absent."""
        ...


class Wire(Protocol):
    """An open socket."""

    def send(self, text: bytes) -> None:
        """Send a text frame; a no-op when the socket is gone."""
        ...

    async def close(self) -> None:
        """Close with a handshake, for 2 s at most; then the hard way."""
        ...

    async def closed(self) -> str:
        """Wait until the socket is gone: why."""
        ...

    @property
    def last_frame(self) -> float:
        """Monotonic time of the newest frame of any kind, pings included."""
        ...


class Sockets(Protocol):
    """Opens sockets. `on_text` is called in the reader, frame by frame, and must not wait.

    Pongs are control messages to a venue: each takes a turn by `next_turn`, which says in how many seconds it comes. Of pings
    that come meanwhile only the newest is answered.
    """

    async def open(
        self,
        url: str,
        on_text: Callable[[bytes], None],
        on_binary: Callable[[int], None],
        next_turn: Callable[[], float],
    ) -> Wire:
        """Raises `errors.UpstreamUnavailable` with the reason when it cannot be opened within its time."""
        ...


class Quota(Protocol):
    """Request budgets of venues, shared by all replicas at this address."""

    def rule(self, venue: str, pools: Sequence[PoolRule]) -> None:
        """Set or replace the pools of a venue."""
        ...

    async def spend(self, venue: str, weight: float, priority: Priority, *, wait_seconds: float) -> None:
        """Take one call of `weight` from every pool, after waiting at most `wait_seconds`.

        Raises `errors.UpstreamUnavailable` with `retry_after_seconds` when the budget does not allow it by then.
        """
        ...

    async def correct(self, venue: str, pool: str, used: float) -> None:
        """The venue says how much of a pool is used."""
        ...

    async def block(self, venue: str, seconds: float, reason: str) -> None:
        """The venue told us (429, 418) to stay away: no replica calls before."""
        ...

    def status(self, venue: str) -> list[BudgetStatus]:
        """What is known to be left."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """Answer of a reference source: coins and prices, when it was fetched."""

    coins: list[Coin]
    prices: list[ReferencePrice]


class ReferenceSource(Protocol):
    """Prices and facts of coins that are no market of ours."""

    @property
    def name(self) -> str: ...

    async def top(self, page: int) -> Page:
        """A page of coins by market cap, from 1."""
        ...

    async def coins(self, ids: Sequence[str]) -> Page:
        """These coins; unknown ids are absent."""
        ...

    async def candles(self, coin_id: str, symbol: str, interval: Interval, days: int) -> list[Candle]:
        """Closed candles of the last `days`, ascending, without volumes. Raises `errors.Refused` for an unknown coin."""
        ...


class LastIds(Protocol):
    """Newest published trade ids over restarts."""

    async def load(self, venue: str) -> dict[str, tuple[int, int]]:
        """Symbol -> (id, event time in us). Raises `errors.StoreUnavailable`."""
        ...

    async def save(self, venue: str, ids: Mapping[str, tuple[int, int]]) -> None:
        """Remember; only what changed is given. Raises `errors.StoreUnavailable`."""
        ...


class HistoryMarks(Protocol):
    """Which history was handed on already, over restarts."""

    async def load(self, venue: str) -> dict[tuple[str, str], Covered]:
        """(symbol, interval) -> covered ranges. Raises `errors.StoreUnavailable`."""
        ...

    async def save(self, venue: str, symbol: str, interval: str, covered: Covered) -> None:
        """Remember. Raises `errors.StoreUnavailable`."""
        ...


class Lease(Protocol):
    """Who serves a part of a venue."""

    async def take(self, venue: str, part: str) -> int | None:
        """The epoch when the part is ours (taken or kept), None while another replica has it. Call every second.

        Raises `errors.StoreUnavailable`.
        """
        ...

    async def give_back(self, venue: str, part: str) -> None:
        """Let another replica take over at once."""
        ...


class Wanted(Protocol):
    """Coins that someone holds or watches, over all replicas."""

    async def add(self, coin_ids: Sequence[str], until_ms: int) -> None:
        """Raises `errors.StoreUnavailable`."""
        ...

    async def current(self, now_ms: int) -> list[str]:
        """Unexpired ids; expired ones are forgotten. Raises `errors.StoreUnavailable`."""
        ...
