"""A private Postgres. It refuses root, so as root it runs as another user, on data that this user can reach."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from cryptopulse.common.testing.servers.binaries import POSTGRES_SETTING, PostgresBinaries, find_postgres
from cryptopulse.common.testing.servers.children import Account, spawn
from cryptopulse.common.testing.servers.faults import MissingBinaryError, ServerFailedError
from cryptopulse.common.testing.servers.folder import folder_for, lesser_account
from cryptopulse.common.testing.servers.ports import free_port, speaks_postgres
from cryptopulse.common.testing.servers.server import DATABASE, USER, LocalServer, write_private

_HOST = "127.0.0.1"
_INITDB_SECONDS = 120.0
_MAX_CONNECTIONS = 250


class PostgresServer(LocalServer):
    """`postgres` itself in the foreground, not pg_ctl; SIGINT is its fast shutdown, SIGTERM would wait for clients."""

    name = "postgres"
    port = 0
    _base: Path | None = None

    def choose_ports(self) -> None:
        """One port; no unix socket, whose path may be too long for a deep folder."""
        self.port = free_port()

    def launch(self) -> None:
        """Lay out the data on the first start, then start the server."""
        found = find_postgres(self._environ)
        if found is None:
            raise MissingBinaryError(f"no postgres with initdb here: install it, or set {POSTGRES_SETTING}")
        self.prepare_folders()
        account = lesser_account()
        base = self._base = self._find_base(account)
        data = base / "data"
        if not (data / "PG_VERSION").exists() or (base / "laying-out").exists():
            self._lay_out(found, base, account)
        self.children = [
            spawn(
                self.name,
                [found.postgres, "-D", data, "-p", str(self.port), *self._options()],
                pid_folder=self._pid_folder,
                cwd=base,
                env=self._environ,
                log=self._log,
                stop_signal=signal.SIGINT,
                account=account,
            )
        ]

    def is_ready(self) -> bool:
        """Whether it asks a client to authenticate."""
        return speaks_postgres(_HOST, self.port, USER, DATABASE)

    def urls(self) -> dict[str, str]:
        """`DATABASE_URL`."""
        account = f"{USER}:{self.secret()}" if self.profile.durable else USER
        return {"DATABASE_URL": f"postgresql://{account}@{_HOST}:{self.port}/{DATABASE}"}

    def forget(self) -> None:
        """The data may lie outside our folder."""
        account = lesser_account()
        if account is not None:
            base = self._find_base(account)
            self.notes.clear()
            shutil.rmtree(base, ignore_errors=True)
            if not base.is_relative_to(self.folder):
                base.parent.rmdir()
        super().forget()

    def secret_folder(self) -> Path:
        """The data may lie outside our folder."""
        return self._base or super().secret_folder()

    def _find_base(self, account: Account | None) -> Path:
        if account is None:
            return self.folder
        wanted = self.folder / "server"
        base = folder_for(account, wanted, named_after=self.folder)
        if base != wanted:
            self.notes.append(
                f"postgres runs as user {account.name}, who cannot enter {self.folder}: its data are in {base}"
            )
        return base

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": _HOST,
            "unix_socket_directories": "",
            "max_connections": str(_MAX_CONNECTIONS),
            "shared_buffers": "128MB",
            "log_min_messages": "warning",
        }
        if not self.profile.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]

    def _lay_out(self, found: PostgresBinaries, base: Path, account: Account | None) -> None:
        """Make the data folder and our database in it; a start that was cut off here begins anew."""
        data = base / "data"
        unfinished = base / "laying-out"
        self._as(account, ["rm", "-rf", str(data)], cwd=base)
        self._as(account, ["touch", str(unfinished)], cwd=base)
        locale = "C" if sys.platform == "darwin" else "C.UTF-8"
        command = [
            str(found.initdb),
            "-D",
            str(data),
            "-U",
            USER,
            "-E",
            "UTF8",
            f"--locale={locale}",
            "--no-sync",
        ]
        if self.profile.durable:
            password_file = base / "initial-password"
            write_private(password_file, self.secret())
            if account is not None:
                os.chown(password_file, account.uid, account.gid)
            self._as(account, [*command, "--auth=scram-sha-256", f"--pwfile={password_file}"], cwd=base)
            password_file.unlink()
        else:
            self._as(account, [*command, "--auth=trust", "--no-sync"], cwd=base)
        single = [str(found.postgres), "--single", "-D", str(data), "postgres"]
        self._as(account, single, cwd=base, typed=f"CREATE DATABASE {DATABASE}\n")
        self._as(account, ["rm", str(unfinished)], cwd=base)

    def _as(self, account: Account | None, command: list[str], *, cwd: Path, typed: str = "") -> None:
        done = subprocess.run(
            command,
            input=typed,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=self._environ,
            timeout=_INITDB_SECONDS,
            check=False,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=list(account.groups) if account else None,
        )
        if done.returncode != 0:
            raise ServerFailedError(f"postgres: {Path(command[0]).name} failed\n{done.stdout.strip()}")
