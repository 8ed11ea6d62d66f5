"""Rows of a venue's REST answers: each stands or falls alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.values import ValueRefusedError
from cryptopulse.common.errors import UpstreamUnavailable

ROW_BYTES: Final = 200
"""Of a refused row so much is told."""

RowRefused = Callable[[bytes, str], None]
"""Told the beginning of a row that is not believed, and why."""


class NonsenseError(UpstreamUnavailable):
    """An answer that came, and of which nothing could be read."""


W = TypeVar("W")
V = TypeVar("V")


def believed_row(
    raw: msgspec.Raw, kind: type[W], read: Callable[[W], V | None], refused: RowRefused
) -> V | None:
    """What `read` makes of a row of wire model `kind`.

    A row that cannot be decoded, or that `read` refuses with `ValueRefusedError`, is told to `refused` and is None.
    """
    try:
        return read(msgspec.json.decode(raw, type=kind))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueRefusedError) as error:
        refused(bytes(raw)[:ROW_BYTES], str(error))
        return None


def believed(
    rows: Iterable[msgspec.Raw], kind: type[W], read: Callable[[W], V | None], refused: RowRefused
) -> list[V]:
    """What `read` makes of each row, in the venue's order, without None: a row that is refused costs only itself.

    When every row is refused the answer is not what was asked for: `NonsenseError`.
    """
    given, reasons = list(rows), list[str]()

    def told(row: bytes, why: str) -> None:
        reasons.append(why)
        refused(row, why)

    found = [value for raw in given if (value := believed_row(raw, kind, read, told)) is not None]
    if reasons and len(reasons) == len(given):
        raise NonsenseError(f"no row of the answer could be read: {reasons[0]}")
    return found


def ascending(candles: Iterable[Candle]) -> list[Candle]:
    """Candles by their opening time, each once: of two that open together the last is taken."""
    found = {candle.open_time: candle for candle in candles}
    return [found[at] for at in sorted(found)]
