"""A service as a process: what its signals, ports and exit codes promise."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

SCRIPT = '''
"""A service whose behaviour is chosen by the test."""
import asyncio, gc, os, sys
from contextlib import asynccontextmanager
from typing import ClassVar
from fastapi import FastAPI
from cryptopulse.common.config import ServiceSettings
from cryptopulse.common.runtime import Check, run_service
from cryptopulse.common.security.identity import caller
from fastapi import Depends

class Settings(ServiceSettings):
    service: ClassVar[str] = "ingestor"

MODE = os.environ["MODE"]

def say(word):
    print("SAID " + word, flush=True)

@asynccontextmanager
async def build(settings, runtime):
    if MODE == "crash-in-build":
        raise RuntimeError("no good")
    if MODE == "slow-build":
        say("building")
        await asyncio.sleep(60)
    public = FastAPI()

    @public.get("/slow")
    async def slow():
        await asyncio.sleep(1.0)
        return {"ok": True}

    @runtime.app.get("/whoami")
    async def whoami(identity=Depends(caller)):
        return {"user": identity.user_id}

    @runtime.app.get("/frozen")
    async def frozen():
        return gc.get_freeze_count()

    async def loop(beat):
        while True:
            beat()
            await asyncio.sleep(0.05)

    async def blocked(beat):
        await asyncio.Event().wait()

    async def drained():
        say("drain ready=%s" % (not runtime.is_draining))
        if MODE == "hang-in-drain":
            await asyncio.Event().wait()

    runtime.check("broker", lambda: Check(MODE != "no-broker", "away"))
    runtime.loop("worker", blocked if MODE == "stall" else loop, stall_seconds=0.5)
    runtime.on_drain("outbox", drained, timeout_seconds=20)
    if "PUBLIC_PORT" in os.environ:
        runtime.serve(public, "127.0.0.1", int(os.environ["PUBLIC_PORT"]))
    yield
    say("closed")
    if MODE == "hang-in-close":
        await asyncio.Event().wait()

run_service(Settings, build)
'''


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Process:
    """The service under test."""

    def __init__(self, script: Path, *arguments: str, mode: str = "run", **extra: str) -> None:
        self.port = int(extra.get("CRYPTOPULSE_INGESTOR_PORT", free_port()))
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "MODE": mode,
            "RABBITMQ_URL": "amqp://localhost/",
            "REDIS_URL": "redis://localhost/0",
            "INTERNAL_JWT_SECRET": "s" * 32,
            "CRYPTOPULSE_INGESTOR_PORT": str(self.port),
            **extra,
        }
        self.child = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={name: value for name, value in environ.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, trust_env=False, timeout=5)

    def wait_for(self, path: str, status: int, seconds: float = 15.0) -> httpx.Response:
        deadline = time.monotonic() + seconds
        last = "no answer"
        while time.monotonic() < deadline:
            try:
                response = self.get(path)
            except httpx.TransportError:
                assert self.child.poll() is None, self.child.communicate()
            else:
                if response.status_code == status:
                    return response
                last = response.text
            time.sleep(0.02)
        pytest.fail(f"{path} never answered {status}: {last}")

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def end(self, seconds: float = 15.0) -> tuple[int, list[str], str]:
        out, err = self.child.communicate(timeout=seconds)
        return self.child.returncode, out.splitlines(), err


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    script = tmp_path / "service.py"
    script.write_text(SCRIPT)
    started: list[Process] = []

    def launch(*arguments: str, **options: str) -> Process:
        started.append(Process(script, *arguments, **options))
        return started[-1]

    yield launch
    for process in started:
        if process.child.poll() is None:
            process.child.kill()
            process.child.communicate()


def events(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_in_order_and_ends_with_0(start: Start, number: signal.Signals) -> None:
    process = start()
    process.wait_for("/readyz", 200)
    process.signal(number)
    code, lines, err = process.end()

    assert code == 0, (lines, err)
    assert err == ""
    said = [line for line in lines if line.startswith("SAID")]
    assert said == ["SAID drain ready=False", "SAID closed"]
    assert [event["event"] for event in events(lines)][-3:] == [
        "signal received",
        "drained",
        "service stopped",
    ]
    assert all({"timestamp", "level", "event", "service", "version"} <= set(event) for event in events(lines))


def test_a_second_signal_aborts_at_once(start: Start) -> None:
    process = start(mode="hang-in-drain")
    process.wait_for("/readyz", 200)
    process.signal(signal.SIGTERM)
    assert process.wait_for("/readyz", 503).json()["status"] == "draining"
    assert process.get("/livez").status_code == 200
    time.sleep(0.6)
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    code, lines, _ = process.end()

    assert code == 1
    assert time.monotonic() - began < 2
    assert "SAID closed" not in lines


def test_a_request_in_hand_is_finished_and_no_new_one_taken(start: Start) -> None:
    public = free_port()
    process = start(PUBLIC_PORT=str(public))
    process.wait_for("/readyz", 200)
    with httpx.Client(trust_env=False, timeout=10) as client, socket.socket() as busy:
        client.get(f"http://127.0.0.1:{public}/slow")
        busy.connect(("127.0.0.1", public))
        busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
        process.signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{public}/slow", trust_env=False)
        answer = busy.recv(65_536)
    code, _lines, err = process.end()

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"server:" not in answer.lower()
    assert code == 0, err


def test_while_the_drain_steps_run_nobody_new_is_let_in(start: Start) -> None:
    public = free_port()
    process = start(mode="hang-in-drain", PUBLIC_PORT=str(public))
    process.wait_for("/readyz", 200)
    with socket.create_connection(("127.0.0.1", public), timeout=5) as early:
        process.signal(signal.SIGTERM)
        process.wait_for("/readyz", 503)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{public}/slow", trust_env=False)
        early.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert early.recv(65_536).startswith(b"HTTP/1.1 200 OK"), "who was in already is served"


def test_a_signal_while_building_ends_with_0(start: Start) -> None:
    process = start(mode="slow-build")
    assert process.wait_for("/readyz", 503).json()["status"] == "starting"
    assert process.get("/livez").status_code == 200
    process.signal(signal.SIGTERM)

    assert process.end()[0] == 0


def test_a_crash_ends_with_1_and_says_why(start: Start) -> None:
    code, lines, _ = start(mode="crash-in-build").end()

    assert code == 1
    (event,) = [event for event in events(lines) if event["event"] == "service crashed"]
    assert "RuntimeError: no good" in event["exception"]


def test_bad_configuration_ends_with_78_and_one_line_per_fault(start: Start) -> None:
    code, _lines, err = start(REDIS_URL="", INTERNAL_JWT_SECRET="short", CRYPTOPULSE_INGESTOR_BATHC="1").end()

    assert code == 78
    assert len(err.splitlines()) == 3
    assert all(line.startswith("ingestor: ") for line in err.splitlines())


def test_a_taken_port_ends_with_78_and_says_who_holds_it(start: Start) -> None:
    first = start()
    first.wait_for("/readyz", 200)
    code, _lines, err = start(CRYPTOPULSE_INGESTOR_PORT=str(first.port)).end()

    assert code == 78
    assert err.count("\n") == 1
    assert f"(pid {first.child.pid}); set CRYPTOPULSE_INGESTOR_PORT to a free port" in err


def test_a_dead_dependency_makes_it_unready_and_never_ends_it(start: Start) -> None:
    process = start(mode="no-broker")
    response = process.wait_for("/readyz", 503)
    while response.json()["status"] == "starting":
        response = process.wait_for("/readyz", 503)

    assert response.json()["dependencies"] == {"broker": {"state": "down", "detail": "away"}}
    assert process.get("/livez").status_code == 200
    assert process.child.poll() is None


def test_healthcheck_follows_the_loops(start: Start) -> None:
    process = start(mode="stall")
    process.wait_for("/livez", 503)
    code, _lines, err = start("healthcheck", CRYPTOPULSE_INGESTOR_PORT=str(process.port)).end()

    assert code == 1
    assert "stalled loops: worker" in err


def test_healthcheck_of_a_living_service_is_0(start: Start) -> None:
    process = start()
    process.wait_for("/readyz", 200)

    assert start("healthcheck", CRYPTOPULSE_INGESTOR_PORT=str(process.port)).end()[0] == 0


def test_what_lives_as_long_as_the_process_is_no_work_for_the_collector(start: Start) -> None:
    process = start()
    process.wait_for("/readyz", 200)

    assert process.get("/frozen").json() > 10_000


def test_an_internal_route_wants_an_internal_token(start: Start) -> None:
    from cryptopulse.common.security.identity import Identity, InternalSigner

    process = start()
    process.wait_for("/readyz", 200)
    signer = InternalSigner("s" * 32, "gateway")

    assert process.get("/whoami").status_code == 401
    wrong = signer.sign(Identity(user_id="u1"), "alerts")
    assert process.get("/whoami", Authorization=f"Bearer {wrong}").status_code == 401
    token = signer.sign(Identity(user_id="u1"), "ingestor")
    assert process.get("/whoami", Authorization=f"Bearer {token}").json() == {"user": "u1"}
