"""Kraken as a venue: its subscriptions, and its REST for pairs, OHLC and trades since a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from cryptopulse.common.clock import Clock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Instrument
from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.ticks import Trade
from cryptopulse.common.errors import Invalid, UpstreamUnavailable
from cryptopulse.ingestor.adapters.kraken import messages as wire
from cryptopulse.ingestor.adapters.kraken import parse
from cryptopulse.ingestor.adapters.rest import VenueHttp
from cryptopulse.ingestor.application.ports import ConnectionRules, Quota
from cryptopulse.ingestor.domain.ordering import Gap
from cryptopulse.ingestor.domain.output import Output
from cryptopulse.ingestor.domain.quota import PoolRule, Priority

REST_URL: Final = "https://api.kraken.com/0/public"
WS_URL: Final = "wss://ws.kraken.com/v2"
CHANNELS: Final = ("trade", "ticker")
PAIRS_PER_MESSAGE: Final = 100
PAGES_FORWARD: Final = 20
MINUTES: Final[dict[Interval, int]] = {
    "1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1_440, "1w": 10_080,
}  # fmt: skip
RULES: Final = ConnectionRules(
    streams_per_connection=400,
    connects_per_second=1.0,
    connects_per_window=120,
    window_seconds=600.0,
    control_per_second=4.0,
    frame_silence_seconds=10.0,
    data_silence_seconds=60.0,
    life_seconds=None,
    hold_us=1_000_000,
)
POOLS: Final = (PoolRule("public", 6, 6.0, unit="call"),)
"""About one public call a second, with a small burst."""

T = TypeVar("T")


class KrakenFeed:
    """Implements `application.ports.Venue`."""

    name = parse.VENUE
    rules = RULES
    intervals: frozenset[Interval] = frozenset(MINUTES)
    rows_per_page = 720
    repair_limit = 10_000

    def __init__(self, http: VenueHttp, ws_url: str, quota: Quota, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        base = ws_url.rstrip("/")
        self.url = base if base.endswith("/v2") else f"{base}/v2"
        quota.rule(self.name, POOLS)

    def native_by_rule(self, symbol: str) -> str:
        return symbol.replace("-", "/")

    def streams(self, native: str) -> tuple[str, ...]:
        return tuple(f"{channel}:{native}" for channel in CHANNELS)

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._control("subscribe", natives, request_id)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._control("unsubscribe", natives, request_id)

    def list_streams(self, request_id: int) -> bytes | None:
        del request_id
        return None

    def parser(self, names: Mapping[str, str], out: Output) -> parse.KrakenParser:
        return parse.KrakenParser(names, out)

    async def instruments(self) -> list[Instrument]:
        return parse.instruments((await self._pairs()).values(), self._http.refused)

    async def volumes(self) -> dict[str, Decimal]:
        """Base volume of 24 hours times its average price, from one call for all pairs."""
        pairs = await self._pairs()
        tickers = await self._answer("/Ticker", {}, Priority.CATALOGUE)
        return parse.volumes(pairs, tickers.result, self._http.refused)

    async def trades(self, native: str, gap: Gap) -> list[Trade]:
        """Pages forward from just before the gap's first time; the venue's cursor is a time in nanoseconds."""
        found: dict[int, Trade] = {}
        since = str(max(0, gap.from_us - 1) * 1_000)
        for _ in range(PAGES_FORWARD):
            received = self._clock.now_us()
            answer = await self._answer(
                "/Trades", {"pair": _rest_name(native), "since": since}, Priority.REPAIR
            )
            page = self._rows(answer, native)
            trades = parse.rest_trades(page, gap.symbol, received, self._http.refused)
            known = len(found)
            found.update((t.trade_id, t) for t in trades)
            last = answer.result.get("last")
            if not trades or len(found) == known or trades[-1].trade_id >= gap.last_id or last is None:
                break
            since = self._decoded(last, str, native)
        return [found[n] for n in sorted(found) if gap.first_id <= n <= gap.last_id]

    async def candles(
        self, native: str, symbol: str, interval: Interval, from_ms: int, to_ms: int
    ) -> list[Candle]:
        """The venue keeps the newest 720 bars of each interval only; older ranges are empty."""
        answer = await self._answer(
            "/OHLC",
            {"pair": _rest_name(native), "interval": MINUTES[interval], "since": from_ms // 1_000 - 1},
            Priority.HISTORY,
        )
        before_ms = min(to_ms, self._clock.now_ms())
        rows = self._rows(answer, native)
        return parse.candles(rows, symbol, interval, from_ms, before_ms, self._http.refused)

    async def _answer(self, path: str, params: Mapping[str, Any], priority: Priority) -> wire.Answer:
        answer = await self._http.get(path, wire.Answer, params=params, priority=priority, wait_seconds=120.0)
        if answer.error:
            text = ", ".join(answer.error)[:200]
            if "Rate limit" in text or "Throttled" in text or "Unavailable" in text or "Busy" in text:
                raise UpstreamUnavailable(f"{self.name}: {text}", retry_after_seconds=5.0)
            raise Invalid(f"{self.name}: {text}", code="venue-refused")
        return answer

    async def _pairs(self) -> dict[str, Raw]:
        return (await self._answer("/AssetPairs", {}, Priority.CATALOGUE)).result

    def _rows(self, answer: wire.Answer, native: str) -> list[Raw]:
        """The one list of an answer, whatever long name the venue gives the pair."""
        raw = next((raw for name, raw in answer.result.items() if name != "last"), None)
        return [] if raw is None else self._decoded(raw, list[Raw], native)

    def _decoded(self, raw: Raw, kind: type[T], native: str) -> T:
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamUnavailable(f"{self.name}: {native}: {error}") from error

    def _control(self, method: str, natives: Sequence[str], request_id: int) -> list[bytes]:
        chunks = [natives[at : at + PAIRS_PER_MESSAGE] for at in range(0, len(natives), PAIRS_PER_MESSAGE)]
        pairs = [(chunk, channel) for chunk in chunks for channel in CHANNELS]
        return [
            msgspec.json.encode(
                {
                    "method": method,
                    "params": {"channel": channel, "symbol": list(chunk)},
                    "req_id": request_id + place,
                }
            )
            for place, (chunk, channel) in enumerate(pairs)
        ]


def _rest_name(native: str) -> str:
    """`BTC/USD` as REST takes it: `XBTUSD`."""
    back = {ours: theirs for theirs, ours in parse.OWN_NAMES.items()}
    base, _, quote = native.partition("/")
    return back.get(base, base) + back.get(quote, quote)
