"""Migrations: plain SQL files, forward only, each applied once under its checksum, one transaction each.

The runner owns what surrounds the files: it makes the schema and the service's role, and grants the role what a
service needs (usage, and reading and writing of rows), now and for every table to come. A service never owns its tables.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.common.telemetry.logging import get_logger

LEDGER: Final = "schema_migrations"
WAIT_SECONDS: Final = 60.0
LOCK_SECONDS: Final = 120.0
NO_TRANSACTION: Final = "-- no-transaction"

_FILE: Final = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_NAME: Final = re.compile(r"^[a-z][a-z0-9_]{0,62}$")

log = get_logger(__name__)


class MigrationRefusedError(Exception):
    """An operator must act first; the text says what, line by line, with the SQL to run."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `number` orders it, `checksum` is the SHA-256 of its text."""

    number: int
    name: str
    sql: str
    checksum: str
    in_transaction: bool


def read_migrations(directory: Path) -> list[Migration]:
    """The files of a folder in order. Raises `MigrationRefusedError` for a bad name or a number used twice."""
    found: dict[int, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _FILE.match(path.name)
        if match is None:
            raise MigrationRefusedError(f"{path.name} is not named like 0001_what_it_does.sql")
        number = int(match[1])
        if number in found:
            raise MigrationRefusedError(f"{path.name} and {found[number].name} carry the same number")
        sql = path.read_text(encoding="utf-8")
        found[number] = Migration(
            number=number,
            name=path.name,
            sql=sql,
            checksum=hashlib.sha256(sql.encode()).hexdigest(),
            in_transaction=not sql.lstrip().startswith(NO_TRANSACTION),
        )
    return [found[number] for number in sorted(found)]


async def migrate(
    url: str, *, schema: str, role: str, directory: Path, wait_seconds: float = WAIT_SECONDS
) -> list[str]:
    """Bring `schema` up to date and return the names of the files that were applied now.

    Waits up to `wait_seconds` for Postgres, and for another runner to finish. Raises `MigrationRefusedError` when a
    file that was applied has changed or is gone, or when this user may not make the schema or the role; and
    `StoreUnavailable` when Postgres stays away.
    """
    for name in (schema, role):
        if _NAME.match(name) is None:
            raise ValueError(f"{name!r} is not a plain name of a schema or role")
    migrations = await asyncio.to_thread(read_migrations, directory)
    connection = await _connect(url, schema, wait_seconds)
    try:
        await _lock(connection, schema)
        await _prepare(connection, schema, role)
        await connection.execute(f"SET search_path TO {schema}")
        done = await _ledger(connection)
        _compare(done, migrations)
        applied = []
        for migration in migrations:
            if migration.number not in done:
                await _apply(connection, migration)
                applied.append(migration.name)
                log.info("migration applied", schema=schema, file=migration.name)
        await _grant(connection, schema, role)
        return applied
    finally:
        # Ends the session, and with it the advisory lock.
        await connection.close(timeout=5.0)


async def _connect(url: str, schema: str, wait_seconds: float) -> Any:
    """Wait for Postgres with growing pauses."""
    deadline = time.monotonic() + wait_seconds
    pause = 0.2
    while True:
        try:
            return await asyncpg.connect(
                url,
                timeout=5.0,
                server_settings={"application_name": f"cryptopulse-migrate-{schema}", "timezone": "UTC"},
            )
        except (
            OSError,
            TimeoutError,
            asyncpg.CannotConnectNowError,
            asyncpg.TooManyConnectionsError,
        ) as error:
            if time.monotonic() + pause > deadline:
                raise StoreUnavailable(f"Postgres does not answer: {type(error).__name__}") from error
            log.warning("waiting for postgres", error=type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.7, 1.0))
            pause = min(pause * 2, 5.0)
        except asyncpg.PostgresError as error:
            raise MigrationRefusedError(f"Postgres refuses us: {error}") from error


async def _lock(connection: Any, schema: str) -> None:
    """One runner per schema: a second one waits, and then finds everything done.

    It asks again and again instead of waiting inside Postgres: a waiting query holds a snapshot, which the first runner's
    CREATE INDEX CONCURRENTLY would wait for in turn.
    """
    await connection.execute(f"SET lock_timeout = '{int(LOCK_SECONDS)}s'")
    deadline = time.monotonic() + LOCK_SECONDS
    while not await connection.fetchval(
        "SELECT pg_try_advisory_lock(hashtextextended('cryptopulse.migrate.' || $1, 0))", schema
    ):
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"another runner has held the schema {schema} for {LOCK_SECONDS:g} s")
        await asyncio.sleep(random.uniform(0.1, 0.3))


async def _prepare(connection: Any, schema: str, role: str) -> None:
    """Make the role, let the service's user take it, and make the schema; each only where it is missing."""
    user = await connection.fetchval("SELECT session_user")
    wanted = []
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
        wanted.append(f"CREATE ROLE {role} NOLOGIN")
    if wanted or not await connection.fetchval("SELECT pg_has_role(session_user, $1, 'MEMBER')", role):
        wanted.append(f"GRANT {role} TO {_quoted(user)}")
    for statement in wanted:
        await _as_owner(connection, statement, wanted)
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema):
        statement = f"CREATE SCHEMA {schema} AUTHORIZATION {_quoted(user)}"
        await _as_owner(connection, statement, [statement])


async def _as_owner(connection: Any, statement: str, all_of_it: list[str]) -> None:
    try:
        await _execute_shared(connection, statement)
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        # Roles belong to the whole server: another schema's or database's runner was faster.
        return
    except asyncpg.InsufficientPrivilegeError as error:
        lines = ["this user may not prepare the database; run once as an administrator:"]
        raise MigrationRefusedError("\n".join([*lines, *(f"  {line};" for line in all_of_it)])) from error


async def _execute_shared(connection: Any, statement: str) -> None:
    """Change what belongs to the whole server: two runners at once make one of them fail with an internal error."""
    for attempt in range(5):
        try:
            await connection.execute(statement)
            return
        except asyncpg.InternalServerError:
            if attempt == 4:
                raise
            await asyncio.sleep(random.uniform(0.05, 0.3))


async def _grant(connection: Any, schema: str, role: str) -> None:
    """Rows may be read and written by the role, in the tables of now and of later; the ledger only read."""
    for statement in (
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {role}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {role}",
        f"REVOKE INSERT, UPDATE, DELETE ON {schema}.{LEDGER} FROM {role}",
    ):
        await connection.execute(statement)


async def _ledger(connection: Any) -> dict[int, tuple[str, str]]:
    """What was applied before: number -> (name, checksum)."""
    await connection.execute(
        f"""CREATE TABLE IF NOT EXISTS {LEDGER} (
            number integer PRIMARY KEY,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now(),
            seconds double precision NOT NULL
        )"""
    )
    rows = await connection.fetch(f"SELECT number, name, checksum FROM {LEDGER}")  # noqa: S608 - a constant name
    return {row["number"]: (row["name"], row["checksum"]) for row in rows}


def _compare(done: dict[int, tuple[str, str]], migrations: list[Migration]) -> None:
    """Refuse files that changed after they were applied, and new ones that sort before them.

    A ledger that knows more than we do is fine: an older release beside a newer one.
    """
    newest = max(done, default=0)
    faults = []
    for migration in migrations:
        if migration.number in done:
            if done[migration.number][1] != migration.checksum:
                faults.append(f"{migration.name} has changed after it was applied; write a new file instead")
        elif migration.number < newest:
            faults.append(
                f"{migration.name} comes before {done[newest][0]}, which is applied; give it the next number"
            )
    if faults:
        raise MigrationRefusedError("\n".join(faults))


async def _apply(connection: Any, migration: Migration) -> None:
    started = time.monotonic()
    try:
        if migration.in_transaction:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await _record(connection, migration, started)
            return
        for statement in _statements(migration.sql):
            await connection.execute(statement)
        await _record(connection, migration, started)
    except asyncpg.PostgresError as error:
        raise MigrationFailedError(f"{migration.name}: {type(error).__name__}: {error}") from error


class MigrationFailedError(Exception):
    """A file failed; its transaction was rolled back, and the files before it stay applied."""


async def _record(connection: Any, migration: Migration, started: float) -> None:
    await connection.execute(
        f"INSERT INTO {LEDGER} (number, name, checksum, seconds) VALUES ($1, $2, $3, $4)",  # noqa: S608 - a constant name
        migration.number,
        migration.name,
        migration.checksum,
        time.monotonic() - started,
    )


def _statements(sql: str) -> list[str]:
    """The statements of a file that runs outside of a transaction, one by one; they hold no quoted semicolons."""
    lines = [line for line in sql.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
