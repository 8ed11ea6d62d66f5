"""Amounts, names and times as they cross HTTP: decimals as strings, exact or refused, never rounded."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from cryptopulse.common.contracts.values import plain

AMOUNT_DECIMALS: Final = 24
AMOUNT_INTEGER_DIGITS: Final = 36
_NUMBER: Final = re.compile(r"^-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?$")
_STEP: Final = Decimal(1).scaleb(-AMOUNT_DECIMALS)
_PRINTING: Final = Context(prec=120, rounding=ROUND_HALF_EVEN)
_EARLIEST_MS: Final = 946_684_800_000  # 2000-01-01: before any coin, and far from a time given in seconds
_LATEST_MS: Final = 4_102_444_800_000  # 2100-01-01


def exact_amount(text: str) -> Decimal:
    """A decimal as written. Raises `ValueError` for NaN, more than 24 decimals or more than 36 integer digits."""
    cleaned = text.strip()
    if len(cleaned) > 100 or _NUMBER.match(cleaned) is None:
        raise ValueError(f"{text!r:.40} is not a decimal number such as '0.25'")
    try:
        value = Decimal(cleaned)
    except InvalidOperation as error:
        raise ValueError(f"{text!r:.40} is not a decimal number such as '0.25'") from error
    return checked_digits(value, text)


def checked_digits(value: Decimal, text: object = None) -> Decimal:
    """The value itself when it fits NUMERIC(60,24) without rounding; otherwise `ValueError`."""
    shown = value if text is None else text
    if not value.is_finite():
        raise ValueError(f"{shown!s:.40} is not finite")
    normal = _stripped(value)
    exponent = normal.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -AMOUNT_DECIMALS:
        raise ValueError(f"{shown!s:.40} has more than {AMOUNT_DECIMALS} decimals; amounts are never rounded")
    if normal and normal.adjusted() >= AMOUNT_INTEGER_DIGITS:
        raise ValueError(f"{shown!s:.40} has more than {AMOUNT_INTEGER_DIGITS} integer digits")
    return value


def _stripped(value: Decimal) -> Decimal:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return value
    kept = list(digits)
    while len(kept) > 1 and kept[-1] == 0:
        kept.pop()
        exponent += 1
    return Decimal((sign, tuple(kept), exponent))


def _strict(value: Any) -> Any:
    if isinstance(value, str):
        return exact_amount(value)
    if isinstance(value, Decimal | int | float):
        raise ValueError(  # noqa: TRY004 - pydantic turns only ValueError into a field's error
            'send amounts as JSON strings such as "0.25": a JSON number loses digits on its way through most parsers'
        )
    return value


def _lenient(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        raise ValueError("an amount is a decimal number")
    if isinstance(value, str):
        return exact_amount(value)
    if isinstance(value, Decimal):
        return checked_digits(value)
    if isinstance(value, int):
        return checked_digits(Decimal(value))
    if isinstance(value, float):
        return exact_amount(repr(value))
    return value


def printed_amount(value: Decimal) -> str:
    """A decimal as plain text with at most 24 decimals, half-even: how every amount leaves."""
    text = str(value)  # several times as fast as the general way, and enough for most
    if "E" not in text:
        dot = text.find(".")
        if dot < 0:
            if text != "-0":
                return text
        else:
            if len(text) - dot > AMOUNT_DECIMALS + 1:
                text = format(value.quantize(_STEP, None, _PRINTING), "f")
            if text[-1] != "0":
                return text
            text = text.rstrip("0").rstrip(".")
            return "0" if text == "-0" else text
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -AMOUNT_DECIMALS:
        value = value.quantize(_STEP, None, _PRINTING)
    text = plain(value)
    return "0" if text in {"-0", ""} else text


_SCHEMA: Final = {
    "type": "string",
    "pattern": r"^-?\d+(\.\d{1,24})?$",
    "examples": ["0.25"],
    "description": "A decimal as a string: at most 36 integer digits and 24 decimals.",
}

AmountIn = Annotated[Decimal, BeforeValidator(_strict), WithJsonSchema(_SCHEMA)]
"""A decimal that must come as a JSON string; a JSON number is refused with the reason."""

LenientAmountIn = Annotated[
    Decimal, BeforeValidator(_lenient), WithJsonSchema({"anyOf": [_SCHEMA, {"type": "number"}]})
]
"""A decimal that may come as a JSON string or number (a reader that keeps digits gives numbers as `Decimal`)."""

AmountOut = Annotated[
    Decimal, PlainSerializer(printed_amount, return_type=str), WithJsonSchema(_SCHEMA, mode="serialization")
]
"""A decimal printed as a plain string with at most 24 decimals, half-even."""


def parse_time(value: Any) -> Any:
    """An aware UTC datetime from integer milliseconds or RFC 3339 text (a missing zone means UTC)."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _from_ms(value)
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"-?\d{1,17}", text):
            return _from_ms(int(text))
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{value!r:.40} is not a time: say RFC 3339 or integer milliseconds") from error
        aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        return _from_ms_checked(aware.astimezone(UTC))
    raise ValueError("a time is RFC 3339 text or integer milliseconds")


def _from_ms(value: int) -> datetime:
    if not _EARLIEST_MS <= value <= _LATEST_MS:
        raise ValueError(f"{value} is not a time in milliseconds between the years 2000 and 2100")
    return datetime.fromtimestamp(value // 1000, UTC).replace(microsecond=value % 1000 * 1000)


def _from_ms_checked(value: datetime) -> datetime:
    if not 2000 <= value.year < 2100:
        raise ValueError(f"{value.isoformat()} is not between the years 2000 and 2100")
    return value


def printed_time(value: datetime) -> str:
    """RFC 3339 in UTC with `Z`, microseconds only when there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


TimeIn = Annotated[
    datetime,
    BeforeValidator(parse_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "description": "ms UTC"},
            ],
            "examples": ["2024-03-01T12:00:00Z"],
        }
    ),
]
TimeOut = Annotated[
    datetime,
    PlainSerializer(printed_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
