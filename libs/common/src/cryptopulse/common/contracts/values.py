"""Values of the market: symbols, sides, checked decimals. Everything here is exact and free of I/O."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

Side = Literal["buy", "sell", "unknown"]
"""The taker's side of a trade, on every venue."""

REFERENCE: Final = "coingecko"
"""The source of prices and candles of coins that no connected venue trades."""
CONSOLIDATED: Final = "consolidated"
"""The source name of our own price over all venues."""

FIAT_AND_STABLE: Final = frozenset({"USD", "USDT", "USDC", "EUR", "GBP", "BUSD", "FDUSD", "DAI", "TUSD"})

SYMBOL_PATTERN: Final = re.compile(r"^[A-Z0-9]{1,15}-[A-Z0-9]{2,10}$")

MAX_DECIMALS: Final = 24
MAX_INTEGER_DIGITS: Final = 18


class ValueRefusedError(ValueError):
    """A number or name that a venue or client sent and that we refuse; the text says why."""


def symbol_of(base: str, quote: str) -> str:
    """The canonical symbol `BASE-QUOTE`. Raises `ValueRefusedError` when it is not one."""
    symbol = f"{base.upper()}-{quote.upper()}"
    if SYMBOL_PATTERN.match(symbol) is None:
        raise ValueRefusedError(f"{symbol!r} is not a symbol of the form BASE-QUOTE")
    return symbol


def split_symbol(symbol: str) -> tuple[str, str]:
    """`BTC-USDT` -> (`BTC`, `USDT`). Raises `ValueRefusedError` when it is not canonical."""
    if SYMBOL_PATTERN.match(symbol) is None:
        raise ValueRefusedError(f"{symbol!r} is not a symbol of the form BASE-QUOTE")
    base, _, quote = symbol.partition("-")
    return base, quote


def base_of(symbol: str) -> str:
    """The base asset of a canonical symbol, unchecked (hot path)."""
    return symbol.partition("-")[0]


def checked_decimal(text: str, *, zero_allowed: bool = False) -> Decimal:
    """A finite, positive decimal from a venue's text, exactly as written.

    Refuses NaN, infinities, negatives, empty text, more than 24 decimals and more than 18 integer digits
    with `ValueRefusedError`. Zero is refused unless `zero_allowed`.
    """
    try:
        value = Decimal(text)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise ValueRefusedError(f"{text!r:.40} is not a decimal number") from error
    if not value.is_finite():
        raise ValueRefusedError(f"{text!r:.40} is not finite")
    if value <= 0 and not (zero_allowed and value == 0):
        raise ValueRefusedError(f"{text!r:.40} is not positive")
    if value and value.adjusted() >= MAX_INTEGER_DIGITS:
        raise ValueRefusedError(f"{text!r:.40} is too large")
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MAX_DECIMALS:
        raise ValueRefusedError(f"{text!r:.40} has more than {MAX_DECIMALS} decimals")
    return value


def plain(value: Decimal) -> str:
    """A decimal as plain text without exponent and without trailing zeros: `1E+2` -> `100`, `1.50` -> `1.5`."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
