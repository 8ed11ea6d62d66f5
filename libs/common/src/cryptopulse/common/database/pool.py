"""A pool of connections that starts while Postgres is away, takes the service's own role, and heals by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import asyncpg

from cryptopulse.common.database.connection import Connection, set_codecs, store_errors, unavailable
from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.common.telemetry.checks import Check
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import gauge

Isolation = Literal["read_committed", "repeatable_read", "serializable"]

ACQUIRE_SECONDS: Final = 3.0
CONNECT_SECONDS: Final = 3.0
PING_SECONDS: Final = 2.0
STALE_SECONDS: Final = 10.0
IDLE_IN_TRANSACTION_MS: Final = 30_000
NEEDS_ROOM: Final = (
    "SELECT count(*) FROM (SELECT * FROM generate_series(1, 100000) AS n ORDER BY n) AS sorted"
)
"""Writes about a megabyte to disk when run with the least memory for sorts, and leaves nothing behind."""

_SIZE: Final = gauge("cryptopulse_database_pool_connections", "Connections that the pool holds.", ("schema",))
_IN_USE: Final = gauge(
    "cryptopulse_database_pool_in_use_connections", "Connections in someone's hands.", ("schema",)
)
_WAITING: Final = gauge(
    "cryptopulse_database_pool_waiting_callers", "Callers waiting for a connection.", ("schema",)
)

log = get_logger(__name__)


class Database:
    """Postgres as one service sees it: its own schema, under its own role.

    Connections carry no session state from one caller to the next: use `set_config(..., true)` inside a transaction,
    and `dedicated()` for LISTEN and session locks. Statements end after `statement_timeout_ms`; a caller waits at most
    three seconds for a connection. All times are UTC.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        role: str,
        application_name: str,
        min_size: int = 1,
        max_size: int = 10,
        statement_timeout_ms: int = 5_000,
        statement_cache_size: int = 256,
    ) -> None:
        self.schema = schema
        self.role = role
        self._min_size = min_size
        self._max_size = max_size
        self._waiting = 0
        self._pool: Any = None
        self._keeper: asyncio.Task[None] | None = None
        self._check = Check(ok=False, detail="not connected yet")
        self._checked_at = time.monotonic()
        self._was_full = False
        self._options: dict[str, Any] = {
            "dsn": url,
            "timeout": CONNECT_SECONDS,
            # Later than the server's own timeout: it only fires when the line is dead.
            "command_timeout": statement_timeout_ms / 1000 + 2.0,
            "statement_cache_size": statement_cache_size,
            "server_settings": {
                "application_name": application_name[:63],
                "role": role,
                "search_path": schema,
                "timezone": "UTC",
                "statement_timeout": str(statement_timeout_ms),
                "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
                "jit": "off",
            },
        }

    async def start(self) -> None:
        """Begin to connect in the background. Returns at once, and never raises because Postgres is away."""
        if self._pool is not None:
            return
        # With no minimum the pool opens nothing now, and later replaces what it lost on the next use.
        self._pool = await asyncpg.create_pool(
            min_size=0, max_size=self._max_size, init=set_codecs, reset=_no_session_state, **self._options
        )
        self._keeper = asyncio.create_task(self._keep(), name=f"database:{self.schema}")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside of a transaction: each statement commits by itself.

        Raises `StoreUnavailable` when Postgres is away, slow, full or read-only, here or inside the block.
        """
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("the database was not started")
        with store_errors():
            connection = await self._acquire(pool)
            try:
                yield connection
            except (asyncpg.ReadOnlySQLTransactionError, asyncpg.InternalClientError, TimeoutError):
                # The far side is no longer who we took it for: all connections are made anew.
                connection.terminate()
                await pool.expire_connections()
                raise
            except asyncpg.DiskFullError:
                self._was_full = True
                raise
            finally:
                await _release(pool, connection)

    @asynccontextmanager
    async def transaction(
        self, user_id: str | None = None, *, isolation: Isolation = "read_committed", readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """A transaction: commits at the end of the block, rolls back when it raises.

        `user_id` is set as `app.user_id` for its duration, for row-level security. Raises `StoreUnavailable` as
        `connection` does; after an error in commit the outcome is unknown, so writes must be idempotent.
        """
        async with (
            self.connection() as connection,
            connection.transaction(isolation=isolation, readonly=readonly),
        ):
            if user_id is not None:
                await connection.execute("SELECT set_config('app.user_id', $1, true)", user_id)
            yield connection

    @asynccontextmanager
    async def dedicated(self) -> AsyncIterator[Any]:
        """A connection of its own outside of the pool, for LISTEN and session locks. Raises `StoreUnavailable`."""
        with store_errors():
            try:
                connection = await asyncpg.connect(**self._options)
            except asyncpg.PostgresError as error:
                raise self._refused(error) from error
            try:
                await set_codecs(connection)
                yield connection
            finally:
                with contextlib.suppress(Exception):
                    await connection.close(timeout=1.0)

    def check(self) -> Check:
        """What the last ping said, at most a few seconds ago."""
        age = time.monotonic() - self._checked_at
        if self._check.ok and age > STALE_SECONDS:
            return Check(ok=False, detail="the last ping is too old", age_seconds=age)
        return Check(ok=self._check.ok, detail=self._check.detail, age_seconds=age)

    async def close(self) -> None:
        """Close the pool: wait briefly for callers, then cut."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), 3.0)
        except Exception:
            pool.terminate()
        self._check = Check(ok=False, detail="closed")

    async def _acquire(self, pool: Any) -> Any:
        self._waiting += 1
        try:
            return await pool.acquire(timeout=ACQUIRE_SECONDS)
        except asyncpg.PostgresError as error:
            raise self._refused(error) from error
        finally:
            self._waiting -= 1

    async def _keep(self) -> None:
        """Ping for ever: keeps `check` fresh and `min_size` connections warm."""
        warmed = False
        while True:
            result = await self._ping()
            if result.ok and not warmed:
                await self._warm()
            warmed = result.ok
            self._note(result)
            pool = self._pool
            _SIZE.labels(self.schema).set(pool.get_size())
            _IN_USE.labels(self.schema).set(pool.get_size() - pool.get_idle_size())
            _WAITING.labels(self.schema).set(self._waiting)
            await asyncio.sleep(PING_SECONDS * random.uniform(0.5 if result.ok else 0.2, 1.0))

    async def _ping(self) -> Check:
        """Ask over the pool itself, so that an exhausted pool shows."""
        try:
            async with asyncio.timeout(PING_SECONDS + ACQUIRE_SECONDS), self.connection() as connection:
                read_only = await connection.fetchval("SHOW transaction_read_only")
                if self._was_full:
                    await _find_room(connection)
                    self._was_full = False
            if read_only == "on":
                await self._pool.expire_connections()
                return Check(ok=False, detail="Postgres is read-only (a fail-over is under way)")
        except StoreUnavailable as error:
            if (
                self._pool is not None
                and self._pool.get_idle_size() == 0
                and self._pool.get_size() >= self._max_size
            ):
                return Check(ok=False, detail="the pool is exhausted")
            return Check(ok=False, detail=str(error))
        except TimeoutError:
            # The time-out of the ping itself, as after the process stood still: it must not end the pings.
            return Check(ok=False, detail="the ping ran out of time")
        except Exception as error:  # whatever it was: without pings the service would be unready for ever
            return Check(ok=False, detail=self._explain(error))
        return Check(ok=True)

    async def _warm(self) -> None:
        """Open `min_size` connections at once."""
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(StoreUnavailable):
                for _ in range(self._min_size):
                    await stack.enter_async_context(self.connection())

    def _refused(self, error: Exception) -> StoreUnavailable:
        """Refused at the door: no such database, role or password, no room. Waiting helps once an operator has mended it."""
        return unavailable(error) or StoreUnavailable(self._explain(error))

    def _explain(self, error: Exception) -> str:
        """What to do about an error that waiting will not mend."""
        refused = (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError)
        if isinstance(error, refused) and self.role in str(error):
            return (
                f"role {self.role} cannot be taken ({error}): run the service's `migrate` command as the same user, "
                "which makes and grants it or prints the SQL to run"
            )
        return f"{type(error).__name__}: {error}"

    def _note(self, result: Check) -> None:
        if result.ok != self._check.ok or (not result.ok and result.detail != self._check.detail):
            if result.ok:
                log.info("database connected", schema=self.schema)
            else:
                log.warning("database unavailable", schema=self.schema, detail=result.detail)
        self._check = result
        self._checked_at = time.monotonic()


async def _no_session_state(_connection: Any) -> None:
    """Spares the round trip of a reset: nobody leaves session state behind (see `Database`)."""


async def _find_room(connection: Any) -> None:
    """Raises `asyncpg.DiskFullError` while Postgres cannot write; reads alone would not show it."""
    async with connection.transaction():
        await connection.execute("SET LOCAL work_mem = '64kB'")
        await connection.execute(NEEDS_ROOM)


async def _release(pool: Any, connection: Any) -> None:
    """Give a connection back, also when it is broken or the caller is being cancelled."""
    try:
        await asyncio.shield(pool.release(connection, timeout=2.0))
    except asyncio.CancelledError:
        raise
    except Exception as error:
        if unavailable(error) is None:
            log.warning("connection was not released cleanly", error=f"{type(error).__name__}: {error}")
