"""Faults as values and their effect on streams, frames, REST answers and connections; seeded, timed and counted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeVar

import orjson

from tools.venue_sim.faults import contents
from tools.venue_sim.market.pair import Pair
from tools.venue_sim.net import frames
from tools.venue_sim.net.messages import Response

T = TypeVar("T")

STREAM_KINDS: Final = frozenset({"silent", "drop", "duplicate", "reorder", "delay"})
FRAME_KINDS: Final = frozenset({"corrupt"})
REST_KINDS: Final = frozenset({"rest_status", "rest_slow", "rest_body", "rest_cut", "rest_hang"})
SUBSCRIBE_KINDS: Final = frozenset({"subscribe_error"})
CONNECT_KINDS: Final = frozenset({"refuse"})
SESSION_KINDS: Final = frozenset({"sequence_hole", "heartbeat_loss", "no_ping"})
COIN_KINDS: Final = frozenset({"coin_absent", "coin_empty", "coin_null", "coin_quota"})
MARKET_KINDS: Final = frozenset(
    {"status", "delist", "offset", "freeze", "depeg", "burst", "crossed_book", "quiet", "clock_skew"}
)
INSTANT_KINDS: Final = frozenset({"close", "cut", "half_open", "server_shutdown", "inject", "id_reset"})
KINDS: Final = (
    STREAM_KINDS | FRAME_KINDS | REST_KINDS | SUBSCRIBE_KINDS | CONNECT_KINDS | SESSION_KINDS | COIN_KINDS
    | MARKET_KINDS | INSTANT_KINDS
)  # fmt: skip
VENUES: Final = ("binance", "coinbase", "coingecko", "kraken")


class FaultError(ValueError):
    """The request for a fault is wrong; the text says how."""


@dataclass(slots=True)
class Fault:
    """One misbehaviour. It is live from `starts` to `ends` (monotonic) and for at most `count` hits."""

    number: int
    kind: str
    venue: str | None
    symbol: str | None
    channel: str | None
    probability: float
    count: int | None
    starts: float
    ends: float
    params: dict[str, Any]
    hits: int = 0
    undo: Callable[[], None] | None = None
    applied: bool = False

    def matches(self, pair: Pair | None, channel: str) -> bool:
        """Whether it concerns this pair and channel."""
        if self.symbol is not None and (
            pair is None or self.symbol not in {pair.symbol, pair.instrument.native}
        ):
            return False
        return self.channel is None or self.channel == channel

    def describe(self, now: float) -> dict[str, Any]:
        """As the control API shows it."""
        return {
            "id": self.number,
            "kind": self.kind,
            "venue": self.venue,
            "symbol": self.symbol,
            "channel": self.channel,
            "probability": self.probability,
            "count_left": self.count,
            "seconds_left": None if self.ends == float("inf") else round(self.ends - now, 3),
            "hits": self.hits,
            "params": self.params,
        }


@dataclass(slots=True)
class RestFault:
    """What happens to one REST call: a delay, an answer instead of the venue's, or damage to the venue's answer."""

    delay_seconds: float = 0.0
    answer: Response | None = None
    spoil: Callable[[Response], Response] = field(default=lambda response: response)


class VenueFaults:
    """The live faults of one venue. The hot path looks at `stream_faults` and `frame_faults` only."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.stream_faults: list[Fault] = []
        self.frame_faults: list[Fault] = []
        self.other: list[Fault] = []
        self._held: dict[tuple[int, int], list[Any]] = {}
        self.later: Callable[[float, Callable[[], None]], object] = lambda _seconds, action: action()

    def hit(self, fault: Fault) -> bool:
        """Whether a fault strikes now; counts it."""
        now = time.monotonic()
        if not fault.starts <= now < fault.ends or fault.count == 0:
            return False
        if fault.probability < 1.0 and self._random.random() >= fault.probability:
            return False
        fault.hits += 1
        if fault.count is not None:
            fault.count -= 1
        return True

    def first_hit(self, kind: str, pair: Pair | None = None, channel: str = "") -> Fault | None:
        """The first live fault of a kind that strikes now."""
        for fault in self.other:
            if fault.kind == kind and fault.matches(pair, channel) and self.hit(fault):
                return fault
        return None

    def stream(self, pair: Pair, channel: str, items: list[T], publish: Callable[[list[T]], None]) -> list[T]:
        """What is left of new items of a stream; delayed ones are published later by `publish`."""
        for fault in self.stream_faults:
            if fault.matches(pair, channel):
                items = self._stream_one(fault, pair, items, publish)
        return items

    def _stream_one(
        self, fault: Fault, pair: Pair, items: list[T], publish: Callable[[list[T]], None]
    ) -> list[T]:
        if fault.kind == "silent":
            return [] if items and self.hit(fault) else items
        if fault.kind == "drop":
            return [item for item in items if not self.hit(fault)]
        if fault.kind == "duplicate":
            return [copy for item in items for copy in ((item, item) if self.hit(fault) else (item,))]
        if fault.kind == "delay":
            late = [item for item in items if self.hit(fault)]
            if late:
                kept = [item for item in items if item not in late]
                self.later(float(fault.params.get("ms", 1000)) / 1000, lambda: publish(late))
                return kept
            return items
        return self._reorder(fault, pair, items)

    def _reorder(self, fault: Fault, pair: Pair, items: list[T]) -> list[T]:
        window = max(2, int(fault.params.get("window", 4)))
        held = self._held.setdefault((fault.number, id(pair)), [])
        sent: list[T] = []
        for item in items:
            if held or self.hit(fault):
                held.append(item)
                if len(held) >= window:
                    self._random.shuffle(held)
                    sent += held
                    held.clear()
            else:
                sent.append(item)
        return sent

    def release(self, fault: Fault) -> list[tuple[int, list[Any]]]:
        """Items that an ended `reorder` still holds, by pair."""
        keys = [key for key in self._held if key[0] == fault.number]
        return [(key[1], items) for key in keys if (items := self._held.pop(key))]

    def frame(self, pair: Pair | None, channel: str, payload: bytes) -> bytes:
        """One payload as frames for the socket; a `corrupt` fault replaces it, or is put before it (`insert`)."""
        sent = frames.text_frame(payload)
        for fault in self.frame_faults:
            if fault.matches(pair, channel) and self.hit(fault):
                content = str(fault.params["content"])
                opcode, broken = contents.broken(content, payload, fault.params, self._random)
                made = frames.frame(broken, opcode)
                return made + sent if fault.params.get("insert") else made
        return sent

    def rest(self, path: str) -> RestFault | None:
        """What happens to a REST call, or None."""
        for fault in self.other:
            if fault.kind in REST_KINDS and str(fault.params.get("path", "")) in path and self.hit(fault):
                return self._rest_effect(fault)
        return None

    def _rest_effect(self, fault: Fault) -> RestFault:
        params = fault.params
        if fault.kind == "rest_slow":
            return RestFault(delay_seconds=float(params.get("ms", 5000)) / 1000)
        if fault.kind == "rest_hang":
            return RestFault(answer=Response(hang=True))
        if fault.kind == "rest_cut":
            return RestFault(spoil=_cut)
        if fault.kind == "rest_status":
            return RestFault(answer=self._status_answer(params))
        return RestFault(spoil=lambda response: self._spoiled(response, params))

    def _status_answer(self, params: dict[str, Any]) -> Response:
        headers = {}
        if params.get("retry_after") is not None:
            headers["Retry-After"] = str(params["retry_after"])
        body = params.get(
            "body", {"code": -1003, "msg": "Too many requests.", "message": "Too many requests"}
        )
        if isinstance(body, str):
            return Response(int(params["status"]), body.encode(), headers, "text/html")
        return Response(int(params["status"]), orjson.dumps(body), headers)

    def _spoiled(self, response: Response, params: dict[str, Any]) -> Response:
        content = str(params.get("content", "html"))
        _, body = contents.broken(content, response.body, params, self._random)
        kind = "text/html" if content.startswith("html") else response.content_type
        return Response(int(params.get("status", response.status)), body, response.headers, kind)


def _cut(response: Response) -> Response:
    response.cut = True
    return response


class Faults:
    """All faults, and who they belong to. Effects on the market itself are applied and undone by `on_market`."""

    def __init__(self, seed: int) -> None:
        self._numbers = itertools.count(1)
        self.random = Random(f"{seed}/instant")
        self.venues = {venue: VenueFaults(Random(f"{seed}/{venue}")) for venue in VENUES}
        self.live: dict[int, Fault] = {}
        self.on_market: Callable[[Fault], Callable[[], None]] = lambda _fault: lambda: None
        self.on_instant: Callable[[Fault], int] = lambda _fault: 0
        self.on_release: Callable[[str, int, list[Any]], None] = lambda _venue, _pair, _items: None

    def of(self, venue: str) -> VenueFaults:
        """The faults of a venue."""
        return self.venues[venue]

    def add(self, spec: dict[str, Any]) -> Fault:
        """Start a fault from its JSON description. Raises FaultError when that is wrong."""
        fault = self._read(spec)
        if fault.kind in INSTANT_KINDS and fault.starts <= time.monotonic():
            fault.hits = self.on_instant(fault)
            return fault
        if fault.starts <= time.monotonic():
            self._apply(fault)
        self.live[fault.number] = fault
        self._sort()
        return fault

    def _apply(self, fault: Fault) -> None:
        fault.applied = True
        if fault.kind in MARKET_KINDS:
            fault.hits += 1
            fault.undo = self.on_market(fault)
        elif fault.kind in INSTANT_KINDS:
            fault.hits += self.on_instant(fault)
            fault.count = 0

    def _read(self, spec: dict[str, Any]) -> Fault:
        known = {"kind", "venue", "symbol", "channel", "probability", "count", "seconds", "after"}
        kind, venue = spec.get("kind"), spec.get("venue")
        if kind not in KINDS:
            raise FaultError(f"unknown kind {kind!r}; known: {', '.join(sorted(KINDS))}")
        if venue is not None and venue not in VENUES:
            raise FaultError(f"unknown venue {venue!r}; known: {', '.join(VENUES)}")
        params = {name: value for name, value in spec.items() if name not in known}
        _check_params(str(kind), params)
        try:
            now = time.monotonic()
            starts = now + float(spec.get("after", 0.0))
            seconds = spec.get("seconds")
            return Fault(
                number=next(self._numbers),
                kind=str(kind),
                venue=venue,
                symbol=spec.get("symbol"),
                channel=spec.get("channel"),
                probability=float(spec.get("probability", 1.0)),
                count=None if spec.get("count") is None else int(spec["count"]),
                starts=starts,
                ends=float("inf") if seconds is None else starts + float(seconds),
                params=params,
            )
        except (TypeError, ValueError) as error:
            raise FaultError(f"probability, count, seconds and after are numbers: {error}") from error

    def remove(self, number: int) -> bool:
        """End a fault; False when there is none of that number."""
        fault = self.live.pop(number, None)
        if fault is None:
            return False
        self._end(fault)
        self._sort()
        return True

    def clear(self) -> None:
        """End all faults."""
        for number in list(self.live):
            self.remove(number)

    def tick(self) -> None:
        """Apply what is due, end what is over. Called about ten times a second."""
        now = time.monotonic()
        over = []
        for fault in self.live.values():
            if not fault.applied and fault.starts <= now:
                try:
                    self._apply(fault)
                except FaultError as error:
                    print(f"venue_sim: fault {fault.number} could not start: {error}", flush=True)
                    fault.count = 0
            if now >= fault.ends or fault.count == 0:
                over.append(fault.number)
        for number in over:
            self._end(self.live.pop(number))
        if over:
            self._sort()

    def _end(self, fault: Fault) -> None:
        if fault.undo is not None:
            fault.undo()
        if fault.kind == "reorder":
            for venue in self._venues_of(fault):
                for pair, items in self.venues[venue].release(fault):
                    self.on_release(venue, pair, items)

    def _venues_of(self, fault: Fault) -> tuple[str, ...]:
        return VENUES if fault.venue is None else (fault.venue,)

    def _sort(self) -> None:
        for venue, faults in self.venues.items():
            mine = [fault for fault in self.live.values() if venue in self._venues_of(fault)]
            faults.stream_faults = [fault for fault in mine if fault.kind in STREAM_KINDS]
            faults.frame_faults = [fault for fault in mine if fault.kind in FRAME_KINDS]
            faults.other = [
                fault for fault in mine if fault.kind not in STREAM_KINDS and fault.kind not in FRAME_KINDS
            ]

    def describe(self) -> list[dict[str, Any]]:
        """Every live fault."""
        now = time.monotonic()
        return [fault.describe(now) for fault in self.live.values()]


def _check_params(kind: str, params: dict[str, Any]) -> None:
    known = (*contents.PLAIN, *contents.EDITED)
    if kind in {"corrupt", "inject"} and params.get("content") not in known:
        raise FaultError(f"{kind} needs content, one of {', '.join(known)}")
    if kind == "rest_body" and params.get("content", "html") not in known:
        raise FaultError(f"rest_body has content one of {', '.join(known)}")
    needed = {
        "rest_status": "status",
        "status": "status",
        "offset": "factor",
        "depeg": "asset",
        "clock_skew": "ms",
    }
    name = needed.get(kind)
    if name is not None and name not in params:
        raise FaultError(f"{kind} needs {name}")
