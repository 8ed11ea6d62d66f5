"""Channels of the stream: how a client names them, and the stream each (channel, subject) stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from cryptopulse.common.contracts.intervals import INTERVALS, PUBLIC_INTERVALS

Kind = Literal[
    "ticker", "trades", "candles", "indicators", "signals", "market", "alerts", "portfolio", "status"
]

PRIVATE: Final = frozenset({"alerts", "portfolio"})
PER_SYMBOL: Final = frozenset({"ticker", "trades", "candles", "indicators", "signals"})
CONFLATED: Final = frozenset({"ticker", "indicators", "market", "portfolio", "status"})
"""Channels whose newest value stands for all before it; the others are sent one by one or not at all."""

_NAME: Final = re.compile(r"^[a-z0-9_]{1,40}$")


class ChannelRefusedError(ValueError):
    """A channel name that means nothing; `code` is what the client sees."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel as named by a client. `interval`, `indicator` and `portfolio_id` are set where the kind has them."""

    kind: Kind
    name: str
    interval: str = ""
    indicator: str = ""
    portfolio_id: int = 0

    @property
    def is_private(self) -> bool:
        """True when the stream belongs to one user."""
        return self.kind in PRIVATE

    @property
    def is_conflated(self) -> bool:
        """True when a newer value replaces an older one that was not sent yet."""
        return self.kind in CONFLATED

    @property
    def takes_symbols(self) -> bool:
        """True when the channel needs symbols."""
        return self.kind in PER_SYMBOL


def parse_channel(name: str) -> Channel:
    """The channel that `name` stands for.

    `ticker`, `trades`, `candles:<interval>`, `indicators:<interval>`, `indicators:<output>:<interval>`, `signals`, `market`,
    `alerts`, `portfolio:<id>`, `status`. Candles have an interval more: `1s`, closed ones only. Raises `ChannelRefusedError` with a code and what to say instead.
    """
    kind, *rest = name.split(":")
    if kind in {"ticker", "trades", "signals", "market", "alerts", "status"} and not rest:
        return Channel(kind, name)  # type: ignore[arg-type]  # narrowed by the set above
    if kind == "candles" and len(rest) == 1:
        return Channel("candles", name, interval=_interval(rest[0], INTERVALS))
    if kind == "indicators" and len(rest) == 1:
        return Channel("indicators", name, interval=_interval(rest[0]))
    if kind == "indicators" and len(rest) == 2 and _NAME.match(rest[0]):
        return Channel("indicators", name, interval=_interval(rest[1]), indicator=rest[0])
    if (
        kind == "portfolio"
        and len(rest) == 1
        and rest[0].isascii()
        and rest[0].isdigit()
        and len(rest[0]) < 19
    ):
        return Channel("portfolio", f"portfolio:{int(rest[0])}", portfolio_id=int(rest[0]))
    raise ChannelRefusedError(
        "unknown_channel",
        f"{name!r:.60} is not one of ticker, trades, candles:<interval>, indicators:<interval>, "
        "indicators:<output>:<interval>, signals, market, alerts, portfolio:<id>, status",
    )


def _interval(text: str, known: tuple[str, ...] = PUBLIC_INTERVALS) -> str:
    if text not in known:
        raise ChannelRefusedError("unknown_interval", f"{text!r:.20} is not one of {' '.join(known)}")
    return text
