"""Venue text to checked decimals, fast: prices and sizes repeat, so what was checked once is looked up."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from cryptopulse.common.contracts.values import ValueRefusedError, checked_decimal

CACHE_LIMIT: Final = 50_000
"""Texts remembered before the table starts afresh: a few MB at most."""

Whole = Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
"""A trade id or a count on the wire: what every encoding, column and sum behind us can hold."""
AtMs = Annotated[int, msgspec.Meta(ge=0, lt=4_102_444_800_000)]
"""Milliseconds on the wire, before 2100."""
AtSeconds = Annotated[int, msgspec.Meta(ge=0, lt=4_102_444_800)]
"""Seconds on the wire, before 2100."""

_PLAIN: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,24})?", re.ASCII)


class Numbers:
    """Exact decimals of a venue's texts. One table per kind: `zero_allowed` for sizes of an empty book side."""

    __slots__ = ("_known", "_zero_allowed")

    def __init__(self, *, zero_allowed: bool = False) -> None:
        self._known: dict[str, Decimal] = {}
        self._zero_allowed = zero_allowed

    def exact(self, text: str) -> Decimal:
        """The decimal as written. Raises `ValueRefusedError` for everything `checked_decimal` refuses."""
        value = self._known.get(text)
        return value if value is not None else self._learn(text)

    def _learn(self, text: str) -> Decimal:
        if _PLAIN.fullmatch(text):
            value = Decimal(text)
            if not value and not self._zero_allowed:
                raise ValueRefusedError(f"{text!r:.40} is not positive")
        else:
            value = checked_decimal(text, zero_allowed=self._zero_allowed)
        if len(self._known) >= CACHE_LIMIT:
            self._known.clear()
        self._known[text] = value
        return value


POSITIVE: Final = Numbers()
"""Prices and traded sizes."""
NOT_NEGATIVE: Final = Numbers(zero_allowed=True)
"""Sizes in a book, volumes of a candle."""


def exact(value: str | int | Decimal, *, zero_allowed: bool = True) -> Decimal:
    """A decimal of a REST answer, where a JSON number may stand for the text (decoded without a float between)."""
    return checked_decimal(str(value), zero_allowed=zero_allowed)
