"""Migrations: once each, in order, all or nothing, never rewritten, and safe to run twice at the same time."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from cryptopulse.common.database.migrate import MigrationFailedError, MigrationRefusedError, migrate
from cryptopulse.common.errors import StoreUnavailable

SCHEMA, ROLE = "portfolio", "cryptopulse_portfolio"


def write(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('f')}.sql").write_text(sql)
    return folder


async def run(url: str, folder: Path, *, role: str = ROLE, wait_seconds: float = 5.0) -> list[str]:
    return await migrate(url, schema=SCHEMA, role=role, directory=folder, wait_seconds=wait_seconds)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def tables(url: str) -> list[str]:
    async with connected(url) as connection:
        rows = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", SCHEMA
        )
    return [row["tablename"] for row in rows]


async def test_files_are_applied_once_in_order(postgres_db: str, tmp_path: Path) -> None:
    write(tmp_path, f0002_b="ALTER TABLE a ADD COLUMN more text;", f0001_a="CREATE TABLE a (n integer);")

    assert await run(postgres_db, tmp_path) == ["0001_a.sql", "0002_b.sql"]
    assert await run(postgres_db, tmp_path) == []
    write(tmp_path, f0003_c="CREATE TABLE c (n integer);")
    assert await run(postgres_db, tmp_path) == ["0003_c.sql"]
    assert await tables(postgres_db) == ["a", "c", "schema_migrations"]


async def test_a_failing_file_leaves_nothing_behind(postgres_db: str, tmp_path: Path) -> None:
    write(tmp_path, f0001_a="CREATE TABLE a (n integer);", f0002_b="CREATE TABLE b (n integer); SELECT 1/0;")

    with pytest.raises(MigrationFailedError, match=r"0002_b\.sql: DivisionByZeroError"):
        await run(postgres_db, tmp_path)

    assert await tables(postgres_db) == ["a", "schema_migrations"]
    write(tmp_path, f0002_b="CREATE TABLE b (n integer);")
    assert await run(postgres_db, tmp_path) == ["0002_b.sql"]


async def test_a_file_that_changed_after_it_was_applied_is_refused(postgres_db: str, tmp_path: Path) -> None:
    write(tmp_path, f0001_a="CREATE TABLE a (n integer);")
    await run(postgres_db, tmp_path)
    write(tmp_path, f0001_a="CREATE TABLE a (n bigint);")

    with pytest.raises(MigrationRefusedError, match=r"0001_a\.sql has changed after it was applied"):
        await run(postgres_db, tmp_path)


async def test_a_file_that_comes_before_applied_ones_is_refused(postgres_db: str, tmp_path: Path) -> None:
    write(tmp_path, f0002_b="CREATE TABLE b (n integer);")
    await run(postgres_db, tmp_path)
    write(tmp_path, f0001_a="CREATE TABLE a (n integer);")

    with pytest.raises(MigrationRefusedError, match="give it the next number"):
        await run(postgres_db, tmp_path)


async def test_an_older_release_beside_a_newer_one_is_fine(postgres_db: str, tmp_path: Path) -> None:
    write(tmp_path, f0001_a="CREATE TABLE a (n integer);", f0002_b="CREATE TABLE b (n integer);")
    await run(postgres_db, tmp_path)
    (tmp_path / "0002_b.sql").unlink()

    assert await run(postgres_db, tmp_path) == []


@pytest.mark.parametrize("name", ["1_a.sql", "0001-a.sql", "0001_A.sql", "first.sql"])
async def test_a_badly_named_file_is_refused(postgres_db: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(MigrationRefusedError, match="is not named like"):
        await run(postgres_db, tmp_path)


async def test_a_number_used_twice_is_refused(postgres_db: str, tmp_path: Path) -> None:
    write(tmp_path, f0001_a="SELECT 1", f0001_b="SELECT 2")

    with pytest.raises(MigrationRefusedError, match="same number"):
        await run(postgres_db, tmp_path)


async def test_three_runners_at_once_apply_each_file_once(postgres_db: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        f0001_a="CREATE TABLE a (n integer); SELECT pg_sleep(0.3);",
        f0002_b="-- no-transaction\nCREATE INDEX CONCURRENTLY a_n ON a (n);\n-- done\n",
        f0003_c="INSERT INTO a VALUES (1);",
    )

    applied = await asyncio.gather(*(run(postgres_db, tmp_path) for _ in range(3)))

    assert sorted(applied) == [[], [], ["0001_a.sql", "0002_b.sql", "0003_c.sql"]]
    async with connected(postgres_db) as connection:
        assert await connection.fetchval(f"SELECT count(*) FROM {SCHEMA}.a") == 1


async def test_the_role_reads_and_writes_rows_and_owns_nothing(postgres_db: str, tmp_path: Path) -> None:
    write(tmp_path, f0001_a="CREATE TABLE a (id bigserial PRIMARY KEY, n integer);")
    await run(postgres_db, tmp_path)
    write(
        tmp_path,
        f0002_b="CREATE TABLE b (id bigserial PRIMARY KEY); CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';",
    )
    await run(postgres_db, tmp_path)

    async with connected(postgres_db) as connection:
        await connection.execute(f"SET ROLE {ROLE}")
        await connection.execute(f"INSERT INTO {SCHEMA}.a (n) VALUES (1)")
        await connection.execute(f"UPDATE {SCHEMA}.a SET n = 2")
        await connection.execute(f"INSERT INTO {SCHEMA}.b DEFAULT VALUES")
        await connection.execute(f"DELETE FROM {SCHEMA}.b")
        assert await connection.fetchval(f"SELECT {SCHEMA}.one()") == 1
        for statement in (
            f"DROP TABLE {SCHEMA}.a",
            f"TRUNCATE {SCHEMA}.a",
            f"ALTER TABLE {SCHEMA}.a ADD COLUMN x int",
            f"CREATE TABLE {SCHEMA}.c (n int)",
            f"UPDATE {SCHEMA}.schema_migrations SET checksum = ''",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        assert not await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", ROLE)


@asynccontextmanager
async def lesser_user(url: str) -> AsyncIterator[tuple[str, str]]:
    """A login that owns its database but may not make roles: (its URL, its name)."""
    name, password = f"lesser_{secrets.token_hex(4)}", secrets.token_hex(8)
    parts = urlsplit(url)
    async with connected(url) as admin:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        await admin.execute(f'GRANT CREATE ON DATABASE "{parts.path[1:]}" TO {name}')
        try:
            yield urlunsplit(parts._replace(netloc=f"{name}:{password}@{parts.hostname}:{parts.port}")), name
        finally:
            await admin.execute(f"DROP OWNED BY {name} CASCADE")
            await admin.execute(f"DROP ROLE {name}")


async def test_without_the_right_to_make_roles_the_sql_to_run_is_told_and_works(
    postgres_db: str, tmp_path: Path
) -> None:
    write(tmp_path, f0001_a="CREATE TABLE a (n integer);")
    role = f"cryptopulse_t{secrets.token_hex(4)}"
    async with lesser_user(postgres_db) as (url, user):
        with pytest.raises(MigrationRefusedError) as caught:
            await run(url, tmp_path, role=role)

        told = str(caught.value).splitlines()[1:]
        assert told == [f"  CREATE ROLE {role} NOLOGIN;", f'  GRANT {role} TO "{user}";']
        async with connected(postgres_db) as admin:
            for statement in told:
                await admin.execute(statement)
            assert await run(url, tmp_path, role=role) == ["0001_a.sql"]
            await admin.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
            await admin.execute(f"DROP OWNED BY {role}")
            await admin.execute(f"DROP ROLE {role}")


async def test_a_bad_password_is_an_operators_business(postgres_db: str, tmp_path: Path) -> None:
    parts = urlsplit(postgres_db)
    url = urlunsplit(parts._replace(netloc=f"no_such_user:x@{parts.hostname}:{parts.port}"))

    with pytest.raises(MigrationRefusedError, match="Postgres refuses us"):
        await run(url, tmp_path)


async def test_it_waits_for_postgres_and_gives_up_in_time(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await run("postgresql://cp@127.0.0.1:1/x", tmp_path, wait_seconds=0.5)


@pytest.mark.parametrize("name", ["Alerts", "a; DROP TABLE x", "", "1a", "a-b"])
async def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        await migrate("postgresql://x/y", schema=name, role=ROLE, directory=tmp_path)


SCRIPT = """
from typing import ClassVar
from cryptopulse.common.config import DatabaseSettings
class Settings(DatabaseSettings):
    service: ClassVar[str] = "portfolio"
"""


@pytest.mark.parametrize(("right", "code"), [(True, 0), (False, 78)])
async def test_the_migrate_command_ends_with_0_or_78(
    postgres_db: str, tmp_path: Path, right: bool, code: int
) -> None:
    package = tmp_path / "books"
    (package / "migrations").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text(SCRIPT)
    (package / "__main__.py").write_text(
        "from books.settings import Settings\nfrom cryptopulse.common.runtime import run_service\n"
        "run_service(Settings, lambda settings, runtime: None)\n"
    )
    write(package / "migrations", f0001_a="CREATE TABLE a (n integer);")
    async with lesser_user(postgres_db) as (lesser, _):
        environ = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "DATABASE_URL": postgres_db if right else lesser,
            "RABBITMQ_URL": "amqp://x/", "REDIS_URL": "redis://x/", "INTERNAL_JWT_SECRET": "s" * 32,
        }  # fmt: skip
        if not right:
            async with connected(postgres_db) as admin:
                await admin.execute(
                    f"DO $$ BEGIN CREATE ROLE {ROLE} NOLOGIN; EXCEPTION WHEN duplicate_object THEN END $$"
                )
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "books", "migrate"],
            env=environ,
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert done.returncode == code, (done.stdout, done.stderr)
    if right:
        assert await tables(postgres_db) == ["a", "schema_migrations"]
    else:
        assert "portfolio: DATABASE_URL: this user may not prepare the database" in done.stderr
        assert f"GRANT {ROLE} TO" in done.stderr
