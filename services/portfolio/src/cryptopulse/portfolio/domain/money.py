"""Exact decimals: 60 digits to calculate, 24 decimals to keep, half-even; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import (
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    localcontext,
    setcontext,
)
from typing import Final

PRECISION: Final = 60
DECIMALS: Final = 24
STEP: Final = Decimal(1).scaleb(-DECIMALS)
ZERO: Final = Decimal(0)
ONE: Final = Decimal(1)
HUNDRED: Final = Decimal(100)
LIMIT: Final = Decimal(10) ** (PRECISION - DECIMALS)
"""The first magnitude that NUMERIC(60,24) cannot hold."""

CONTEXT: Final = Context(
    prec=PRECISION, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow]
)


class OutOfRangeError(ArithmeticError):
    """A result that has more than 36 integer digits and could not be stored exactly."""


def use_money_context() -> None:
    """Make 60 digits the rule for the current thread or task, as every entry point of the service does."""
    setcontext(CONTEXT.copy())


@contextmanager
def money_context() -> Iterator[None]:
    """60 digits inside the block, whatever the caller's context is."""
    with localcontext(CONTEXT):
        yield


def kept(value: Decimal) -> Decimal:
    """The value with 24 decimals, half-even: the form in which costs are stored. Raises `OutOfRangeError`."""
    try:
        return value.quantize(STEP, None, CONTEXT)
    except InvalidOperation as error:
        raise OutOfRangeError("a result has more than 36 integer digits") from error


def share(total: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """Total * part / whole with 24 decimals; the whole total when part equals whole, so that nothing is left behind."""
    if part == whole:
        return total
    return (total * part / whole).quantize(STEP, None, CONTEXT)  # by keyword it takes twice as long


def ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    """Part / whole, None where the whole is 0."""
    return part / whole if whole else None
