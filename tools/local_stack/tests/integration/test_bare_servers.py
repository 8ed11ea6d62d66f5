"""The real servers, booted and stopped as `make test` and `make run` do it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from cryptopulse.common.testing.servers.boot import Servers
from cryptopulse.common.testing.servers.choose import choose_all
from cryptopulse.common.testing.servers.docker import DockerEngine
from cryptopulse.common.testing.servers.processes import identity_of
from cryptopulse.common.testing.servers.server import FOR_RUN

ROOT = Path(__file__).resolve().parents[4]
URLS = ("RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL", "REDIS_URL", "DATABASE_URL")

pytestmark = pytest.mark.timeout(180)


def local_environment() -> dict[str, str]:
    """Ours, less everything that would lead to servers that are there already."""
    environ = {name: value for name, value in os.environ.items() if name not in URLS}
    return {**environ, "CRYPTOPULSE_LOCAL_DOCKER": "no"}


@pytest.fixture
def environ() -> dict[str, str]:
    found = local_environment()
    if not all(choice.is_usable for choice in choose_all(found, DockerEngine())):
        pytest.skip("the three servers' programs are not on this machine")
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that Postgres can enter as another user, which pytest's own temporary folders are not."""
    path = Path(tempfile.mkdtemp(prefix="cryptopulse-stack-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start(environ: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m tools.local_stack`; whatever is left is ended."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.local_stack", *arguments],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def pids_in(folder: Path) -> dict[str, int]:
    return {path.stem: json.loads(path.read_text())["pid"] for path in (folder / "pids").glob("*.json")}


def all_gone(pids: dict[str, int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(identity_of(pid) is None for pid in pids.values()):
            return True
        time.sleep(0.05)
    return False


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"{words!r} was never said:\n{seen}")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the children of a dead parent")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_however_the_parent_ends(
    start: Callable[..., subprocess.Popen[str]], folder: Path, number: signal.Signals
) -> None:
    env_file = folder / "env"
    process = start("servers", "--folder", str(folder), "--env-file", str(env_file))
    said = read_until(process, "export REDIS_URL")
    assert "RabbitMQ: programs of this machine" in said
    pids = pids_in(folder)
    assert set(pids) == {"epmd", "rabbitmq", "redis", "postgres"}
    process.send_signal(number)
    process.wait(30)
    assert all_gone(pids, 15)
    assert env_file.stat().st_mode & 0o777 == 0o600


def test_a_second_stack_in_the_same_folder_is_refused(
    start: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    first = start("servers", "--folder", str(folder))
    read_until(first, "export REDIS_URL")
    second = start("servers", "--folder", str(folder))
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"pid {first.pid}" in said
    assert "Traceback" not in said


def test_a_command_gets_the_servers_and_its_exit_code_is_ours(
    start: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    script = "import os, sys; print(sorted(k for k in os.environ if k.endswith('_URL'))); sys.exit(7)"
    process = start("exec", "--folder", str(folder), "--", sys.executable, "-c", script)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 7
    assert all(name in said for name in URLS)
    assert pids_in(folder) == {}


async def test_data_survive_a_restart_and_a_killed_server_comes_back_on_its_port(
    environ: dict[str, str], folder: Path
) -> None:
    told: list[str] = []
    servers = Servers(folder, choose_all(environ, DockerEngine()), FOR_RUN, environ=environ, say=told.append)
    urls = servers.start()
    try:
        connection = await asyncpg.connect(urls["DATABASE_URL"])
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()
        os.kill(pids_in(folder)["postgres"], signal.SIGKILL)
        while "postgres" not in servers.restart_dead():
            await asyncio.sleep(0.02)
        assert await _answer(urls["DATABASE_URL"]) == 42
    finally:
        servers.stop()
    urls = servers.start()
    try:
        assert await _answer(urls["DATABASE_URL"]) == 42
    finally:
        servers.stop()


async def _answer(url: str) -> int:
    for _ in range(400):
        try:
            connection = await asyncpg.connect(url)
        except (OSError, asyncpg.CannotConnectNowError):
            await asyncio.sleep(0.05)
            continue
        found = await connection.fetchval("SELECT answer FROM kept")
        await connection.close()
        return int(found)
    raise AssertionError("postgres did not come back")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to run Postgres as")
async def test_under_a_closed_folder_the_data_go_to_a_private_one_and_that_is_said(
    environ: dict[str, str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    choices = [one for one in choose_all(environ, DockerEngine()) if one.backend.name == "postgres"]
    told: list[str] = []
    servers = Servers(tmp_path, choices, FOR_RUN, environ=environ, say=told.append)
    urls = servers.start()
    try:
        connection = await asyncpg.connect(urls["DATABASE_URL"])
        await connection.close()
    finally:
        servers.stop()
    assert len(told) == 1
    assert str(folder) in told[0]
    private = next(folder.iterdir())
    assert private.stat().st_mode & 0o777 == 0o711
    servers.forget()
    assert not private.exists()
    assert not tmp_path.exists()
