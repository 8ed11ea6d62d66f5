"""The seam of a database connection, as asyncpg keeps it, and what its errors mean to us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from decimal import Decimal
from typing import Any, Final, Protocol

import asyncpg
import orjson

from cryptopulse.common.errors import Invalid, StoreUnavailable
from cryptopulse.common.telemetry.metrics import counter

Record = Mapping[str, Any]
"""A row: values by column name (and, on asyncpg's rows, by position)."""

_ERRORS: Final = counter(
    "cryptopulse_store_errors_total",
    "Calls to a store that failed in a way that may pass.",
    ("store", "reason"),
)


class Connection(Protocol):
    """What a repository may ask of a connection. Parameters are `$1`, `$2`, ...; NUMERIC is `Decimal`, jsonb is plain data."""

    async def execute(self, query: str, *args: Any) -> str: ...
    async def executemany(self, command: str, args: Iterable[Sequence[Any]]) -> None: ...
    async def fetch(self, query: str, *args: Any) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any) -> Any: ...
    async def fetchval(self, query: str, *args: Any, column: int = 0) -> Any: ...
    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Iterable[Sequence[Any]],
        columns: Sequence[str] | None = None,
        schema_name: str | None = None,
    ) -> str: ...
    def cursor(self, query: str, *args: Any, prefetch: int | None = None) -> AsyncIterator[Any]: ...
    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> AbstractAsyncContextManager[Any]: ...


async def set_codecs(connection: Any) -> None:
    """Read and write json and jsonb as plain Python data, by orjson; decimals inside are written as text."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=_to_json, decoder=orjson.loads, format="text"
        )


def _to_json(value: Any) -> str:
    return orjson.dumps(value, default=_plain).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


_NO_TEXT: Final = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)
"""A text with NUL in it, which is a character everywhere but in Postgres."""
_CLOSED: Final = "clos"
"""Common to 'connection is closed', 'pool is closing' and 'was closed in the middle of operation'."""

# Each reason is a metric label: a closed set.
_REASONS: Final[tuple[tuple[tuple[type[BaseException], ...], str, str], ...]] = (
    ((asyncpg.ReadOnlySQLTransactionError,), "read-only", "Postgres is read-only (a fail-over is under way)"),
    ((asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError), "slow", "Postgres did not answer in time"),
    (
        (asyncpg.DeadlockDetectedError, asyncpg.SerializationError),
        "conflict",
        "Postgres asked for another try",
    ),
    (
        (asyncpg.TooManyConnectionsError, asyncpg.InsufficientResourcesError),
        "full",
        "Postgres has no room left",
    ),
    (
        (
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.UndefinedTableError,
            asyncpg.InvalidSchemaNameError,
        ),
        "not-prepared",
        "the database is not prepared for this service",
    ),
    (
        (
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
            asyncpg.OperatorInterventionError,
            asyncpg.PostgresSystemError,
            asyncpg.InterfaceError,
            # The server's last words on an idle connection can leave the driver's own state in disorder.
            asyncpg.InternalClientError,
            OSError,
        ),
        "away",
        "Postgres does not answer",
    ),
    ((TimeoutError,), "slow", "Postgres did not answer in time"),
)


def unavailable(error: BaseException) -> StoreUnavailable | None:
    """The error as `StoreUnavailable` when it may pass; None for the caller's own mistakes (constraints, syntax)."""
    if isinstance(error, asyncpg.InterfaceError) and _CLOSED not in str(error):
        return None  # wrong arguments, a connection used twice at once: bugs, not outages
    for kinds, reason, text in _REASONS:
        if isinstance(error, kinds):
            _ERRORS.labels("postgres", reason).inc()
            return StoreUnavailable(f"{text}: {type(error).__name__}")
    return None


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what may pass into `StoreUnavailable`, and a text that Postgres cannot keep into `Invalid`.

    Constraint violations and mistakes in SQL go through as they are.
    """
    try:
        yield
    except _NO_TEXT as error:
        raise Invalid("A text holds the character NUL, which cannot be kept.", code="not-text") from error
    except Exception as error:
        translated = unavailable(error)
        if translated is None:
            raise
        raise translated from error
