"""`make run` as a person has it: prices, a killed service that comes back, refusals in one line, nothing left behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cryptopulse.common.config import SERVICES
from cryptopulse.common.testing.servers.choose import choose_all
from cryptopulse.common.testing.servers.docker import DockerEngine
from cryptopulse.common.testing.servers.ports import free_port
from cryptopulse.common.testing.servers.processes import identity_of
from tools.harness.system import SHORT_HISTORY

ROOT = Path(__file__).resolve().parents[4]
GIVEN = ("RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL", "REDIS_URL", "DATABASE_URL", "REQUIRE_BACKENDS")
START_SECONDS = 90.0

pytestmark = pytest.mark.timeout(240)


class Run:
    """A `make run` with a folder and a port of its own."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.port = int(environ["PORT"])
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.local_stack", "run"],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def until_said(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = re.search(pattern, self.said)
            if found:
                return found
            if self.process.poll() is not None:
                self._reader.join(5)
                found = re.search(pattern, self.said)
                if found:
                    return found
                break
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} was not said:\n{self.said}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def pids(self) -> dict[str, int]:
        return {
            path.stem: json.loads(path.read_text())["pid"] for path in (self.folder / "pids").glob("*.json")
        }

    def get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", path)
        answer = connection.getresponse()
        body: dict[str, Any] = json.loads(answer.read())
        connection.close()
        return body


def all_gone(pids: dict[str, int], seconds: float) -> dict[str, int]:
    """What is still there after a while."""
    deadline = time.monotonic() + seconds
    left = pids
    while left and time.monotonic() < deadline:
        left = {name: pid for name, pid in left.items() if identity_of(pid) is not None}
        time.sleep(0.05)
    return left


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="cryptopulse-run-"))
    folder.chmod(0o711)
    own = {name: value for name, value in os.environ.items() if name not in GIVEN}
    own |= {
        "CRYPTOPULSE_LOCAL_DOCKER": "no",
        "RUN_DIR": str(folder),
        "PORT": str(free_port()),
        "FEED": "sim",
        "SYMBOLS": "BTC-USD,BTC-USDT,ETH-USD",
        **SHORT_HISTORY,
    }
    if not all(choice.is_usable for choice in choose_all(own, DockerEngine())):
        pytest.skip("the three servers' programs are not on this machine")
    yield own
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(environ: dict[str, str]) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(**settings: str) -> Run:
        runs.append(Run(Path(environ["RUN_DIR"]), {**environ, **settings}))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


def test_prices_come_a_killed_service_returns_and_nothing_is_left(start: Callable[..., Run]) -> None:
    run = start()
    run.until_said(r"first price [\d.]+ s after the start")
    assert "SIMULATED" in run.until_said(r"prices +BTC-USD +\d.*").group()
    price = run.get("/prices/BTC")
    assert price["simulated"] is True
    assert (run.folder / "env").stat().st_mode & 0o777 == 0o600
    assert f"CRYPTOPULSE_GATEWAY_PUBLIC_URL=http://localhost:{run.port}\n" in (run.folder / "env").read_text()

    before = run.pids()
    assert set(before) == {*SERVICES, "simulator", "epmd", "rabbitmq", "redis", "postgres"}
    os.kill(before["alerts"], signal.SIGKILL)
    run.until_said(r"alerts +ended \(killed by SIGKILL\)")
    run.until_said(r"(?s)killed by SIGKILL.*alerts +started \(pid \d+\)", 30)

    pids = {**before, **{f"{name} (now)": pid for name, pid in run.pids().items()}}
    assert run.end(signal.SIGINT) == 0
    assert all_gone(pids, 5) == {}
    assert "everything that was started is gone" in run.said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the children of a dead parent")
def test_after_the_stack_itself_is_killed_everything_is_gone_and_it_starts_again(
    start: Callable[..., Run],
) -> None:
    run = start()
    run.until_said(r"first price")
    pids = run.pids()
    run.end(signal.SIGKILL)
    assert all_gone(pids, 20) == {}
    again = start()
    again.until_said(r"first price")
    assert "made random secrets" not in again.said  # the same data, the same secrets


def test_a_taken_port_is_refused_with_its_holder_and_the_way_out(start: Callable[..., Run]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = start(PORT=str(port))
        assert run.process.wait(60) == 1
        run.until_said(rf"port {port} is taken by pid {os.getpid()}: .*make run PORT={port + 1}")
    assert "Traceback" not in run.said


def test_wrong_settings_are_told_one_line_each_before_anything_is_started(start: Callable[..., Run]) -> None:
    run = start(JWT_SECRET="short", CRYPTOPULSE_ALERTS_NO_SUCH_KNOB="1", SHARDS="many")
    assert run.process.wait(60) == 78
    for line in (r"^JWT_SECRET: .*32", r"^CRYPTOPULSE_ALERTS_NO_SUCH_KNOB: ", r"^SHARDS: "):
        run.until_said(rf"(?m){line}")
    assert "Traceback" not in run.said
    assert "RabbitMQ" not in run.said
