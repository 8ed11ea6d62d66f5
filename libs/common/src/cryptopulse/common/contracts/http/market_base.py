"""What the contracts of market data over HTTP share.

Decimals are strings without an exponent, times integer milliseconds UTC unless a name says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

DecimalText = Annotated[str, Field(description="An exact decimal as plain text.", examples=["67012.35"])]
Milliseconds = Annotated[
    int, Field(description="Milliseconds since 1970, UTC.", examples=[1_723_161_240_000])
]
PublicInterval = Literal["1m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w", "1M"]
MAX_LIMIT: Final = 1000
MARKET_ERRORS: Final = (400, 404, 422, 429, 503)
"""Status codes of the problems of every public read of market data."""


class Answer(BaseModel):
    """Base of all answers: more fields may come, known ones never go."""

    model_config = ConfigDict(extra="allow")


class Parameters(BaseModel):
    """Base of query parameters: an unknown one is an error that names it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
