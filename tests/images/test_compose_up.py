"""Where a Docker engine answers: `make up` with the simulator, healthy in time, a price through the gateway, scaled, one gateway killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from cryptopulse.common.testing.servers.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
HEALTHY_SECONDS = 60.0


def engine() -> str:
    """Why there is no engine to test with; empty when there is one."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            return f"`{' '.join(command)}` fails: {done.stderr.strip()[-200:]}"
    return ""


@pytest.fixture(scope="module")
def compose() -> Iterator[tuple[list[str], int]]:
    """The system under a project name of its own; its `docker compose` and its port."""
    if reason := engine():
        pytest.skip(f"NO DOCKER ENGINE, so `make up` is not tested here: {reason}")
    subprocess.run([str(ROOT / "scripts/compose-secrets")], check=True)
    port = free_port()
    command = ["env", f"PORT={port}", "docker", "compose", "--project-name", "cryptopulse-test", "--env-file", ".env",
               "--env-file", "deploy/compose/sim.env", "--profile", "sim"]  # fmt: skip
    subprocess.run([*command, "build"], cwd=ROOT, check=True)
    began = time.monotonic()
    try:
        subprocess.run([*command, "up", "--detach", "--wait"], cwd=ROOT, check=True)
        took = time.monotonic() - began
        print(f"\nall healthy in {took:.0f} s")
        assert took < HEALTHY_SECONDS
        yield command, port
    finally:
        subprocess.run([*command, "down", "--volumes", "--timeout", "5"], cwd=ROOT, check=False)


def price(port: int) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        answer = httpx.get(f"http://127.0.0.1:{port}/prices/BTC", trust_env=False, timeout=10)
        if answer.status_code == 200 or time.monotonic() > deadline:
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found
        time.sleep(0.5)


def test_a_price_comes_through_and_a_killed_replica_leaves_no_gap(compose: tuple[list[str], int]) -> None:
    command, port = compose
    assert price(port)["simulated"] is True
    scaled = [
        *command,
        "up",
        "--detach",
        "--wait",
        "--no-recreate",
        "--scale",
        "indicators=3",
        "--scale",
        "gateway=2",
    ]
    subprocess.run(scaled, cwd=ROOT, check=True)
    with connect(f"ws://127.0.0.1:{port}/ws/crypto/", proxy=None) as socket:
        socket.send(json.dumps({"type": "subscribe", "coins": ["bitcoin"]}))
        victim = subprocess.run([*command, "ps", "--quiet", "indicators"], cwd=ROOT, check=True, capture_output=True,
                                text=True).stdout.split()[0]  # fmt: skip
        subprocess.run(["docker", "kill", victim], check=True)
        deadline, updates = time.monotonic() + 20, 0
        while time.monotonic() < deadline and updates < 5:
            updates += json.loads(socket.recv(timeout=20))["type"] == "price_update"
        assert updates == 5
    for _ in range(20):
        assert httpx.get(f"http://127.0.0.1:{port}/health/", trust_env=False, timeout=10).status_code == 200
