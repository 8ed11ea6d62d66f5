"""What a parser hands on: trades in id order, quotes, answers to control messages, and what it refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from cryptopulse.common.contracts.ticks import Quote, Trade

RefusalReason = Literal[
    "malformed", "bad_number", "bad_time", "unknown_symbol", "unknown_event", "binary", "oversized"
]


@dataclass(frozen=True, slots=True)
class ControlAnswer:
    """An answer of the venue about our connection.

    `acknowledged`: our request `request_id` was taken. `subscribed`: the venue's full list of what we get
    (stream names as in `Venue.streams`). `rejected`: with the reason, and the stream when the venue names it.
    `shutdown`: the venue will cut this connection soon.
    """

    kind: Literal["acknowledged", "subscribed", "rejected", "shutdown"]
    request_id: int | None = None
    streams: frozenset[str] = frozenset()
    detail: str = ""


class Output(Protocol):
    """Where a parser puts what it read from one frame. Called in the order of the venue; must never raise."""

    def trade(self, trade: Trade, /) -> None:
        """One trade, at its place in the venue's order."""
        ...

    def trades(self, trades: Sequence[Trade], /) -> None:
        """Several trades of one message, oldest first."""
        ...

    def quote(self, quote: Quote, /) -> None:
        """The newest best bid and ask of a symbol."""
        ...

    def heartbeat(self, symbol: str | None, last_trade_id: int | None, /) -> None:
        """A sign of life that is no data; with the newest trade id where the venue tells it."""
        ...

    def control(self, answer: ControlAnswer, /) -> None:
        """The venue answered a control message or told about the connection."""
        ...

    def sequence_hole(self, missing: int, /) -> None:
        """Messages of this connection are missing by its own sequence number; trades are judged by their ids alone."""
        ...

    def refused(self, reason: RefusalReason, frame: bytes, detail: str, /) -> None:
        """A frame or a part of it that was not understood or not believed."""
        ...
