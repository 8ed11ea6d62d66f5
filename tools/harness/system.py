"""The whole system as processes for end-to-end tests: five services and a venue simulator, on real backends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from cryptopulse.common.config import SERVICES
from cryptopulse.common.database.migrate import migrate
from cryptopulse.common.runtime.command import migrations_of
from cryptopulse.common.testing.servers.ports import free_port
from tools.local_stack.config import settings_of
from tools.local_stack.programs import ALONE, addresses

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
STOP_SECONDS = 25.0
SHORT_HISTORY = {
    "CRYPTOPULSE_INGESTOR_HISTORY_MINUTES_DAYS": "1",
    "CRYPTOPULSE_INGESTOR_HISTORY_HOURS_DAYS": "10",
    "CRYPTOPULSE_INGESTOR_HISTORY_DAYS_DAYS": "30",
}
"""A quarter of what is fetched by default: folding the first history is most of what a start costs."""
SYMBOLS = "BTC-USDT,BTC-USD,ETH-USDT,ETH-USD,SOL-USDT,SOL-USD"


class SystemFailedError(AssertionError):
    """A process of the system did not do what it must; the text holds the end of its log."""


@dataclass
class Backends:
    """Where the servers are."""

    rabbitmq: str
    redis: str
    postgres: str


@dataclass
class System:
    """Processes by name, their logs, and clients of the gateway."""

    backends: Backends
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    simulator_arguments: tuple[str, ...] = ("--rate", "60")
    with_simulator: bool = True
    services: tuple[str, ...] = tuple(SERVICES)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    doors: dict[str, int] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.ports = {service: free_port() for service in SERVICES}
        self.simulator_ports = {
            name: free_port() for name in ("binance", "coinbase", "coingecko", "kraken", "control")
        }
        self.secret = secrets.token_urlsafe(48)
        self.environment = self._environment()
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)
        try:
            if self.with_simulator:
                self.start_simulator()
            await asyncio.gather(*(self._migrate(name) for name in self.services if SERVICES[name].schema))
            for service in self.services:
                self.start(service)
            for service in self.services:
                await self.until_alive(service)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- processes ---------------------------------------------------------------------------------------------

    def start_simulator(self) -> None:
        """Start the venues on loopback."""
        ports = [
            part for name, port in self.simulator_ports.items() for part in (f"--{name}-port", str(port))
        ]
        self.spawn("simulator", [sys.executable, "-m", "tools.venue_sim", *ports, *self.simulator_arguments])

    def start(self, service: str) -> None:
        """Start one service."""
        self.spawn(service, [sys.executable, "-m", f"cryptopulse.{service}"])

    def start_second(self, service: str) -> str:
        """Start a second replica of one service beside the first, on ports of its own; its name.

        A second gateway's public port is in `doors`.
        """
        name = f"{service}2"
        self.ports[name] = free_port()
        settings = {f"CRYPTOPULSE_{service.upper()}_PORT": str(self.ports[name])}
        if service == "gateway":
            self.doors[name] = free_port()
            settings["PORT"] = str(self.doors[name])
        self.spawn(name, [sys.executable, "-m", f"cryptopulse.{service}"], settings)
        return name

    async def stop_second(self, name: str) -> int:
        """SIGTERM to a second replica, which is forgotten; its exit code."""
        code = (await self._end(name))[name]
        del self.processes[name], self.ports[name]
        self.doors.pop(name, None)
        return code

    async def revive(self) -> None:
        """Start again what has ended; return when all five are ready."""
        for service in SERVICES:
            if self.processes[service].poll() is not None:
                self.start(service)
        for service in SERVICES:
            await self.until_ready(service)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal, SIGKILL unless said otherwise; waits for the end after SIGKILL."""
        process = self.processes[name]
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait(10)

    async def stop(self) -> dict[str, int]:
        """SIGTERM to all, services first; the exit codes by name."""
        codes = await self._end(*SERVICES, *(name for name in self.processes if name not in SERVICES))
        await self.client.aclose()
        return codes

    async def stop_services(self) -> dict[str, int]:
        """SIGTERM to the five; their exit codes. `revive` starts them again."""
        return await self._end(*SERVICES)

    async def _end(self, *names: str) -> dict[str, int]:
        processes = {name: self.processes[name] for name in names if name in self.processes}
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
        codes = {}
        for name, process in processes.items():
            try:
                codes[name] = await asyncio.to_thread(process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait(5)
        return codes

    def log(self, name: str, lines: int = 40) -> str:
        """The end of a process's log."""
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def spawn(self, name: str, command: list[str], settings: Mapping[str, str] | None = None) -> None:
        """Start a process with the system's environment, which ends with the system."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | dict(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def _migrate(self, service: str) -> None:
        """As the service's `migrate` does, without a Python for each."""
        facts = SERVICES[service]
        folder = migrations_of(settings_of(service))
        assert folder is not None
        await migrate(self.backends.postgres, schema=facts.schema, role=facts.role, directory=folder)

    def _environment(self) -> dict[str, str]:
        ports = self.simulator_ports
        coinbase = f"127.0.0.1:{ports['coinbase']}"
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CRYPTOPULSE_", "PYTEST"))
        }
        return {
            **kept,
            "RABBITMQ_URL": self.backends.rabbitmq,
            "REDIS_URL": self.backends.redis,
            "DATABASE_URL": self.backends.postgres,
            "JWT_SECRET": self.secret,
            "INTERNAL_JWT_SECRET": secrets.token_urlsafe(48),
            "PORT": str(self.port),
            "FEED": "sim",
            "SYMBOLS": SYMBOLS,
            "LOG_FORMAT": "json",
            "BINANCE_WS_URL": f"ws://127.0.0.1:{ports['binance']}",
            "BINANCE_API_URL": f"http://127.0.0.1:{ports['binance']}/api/v3",
            "COINBASE_WS_URL": f"ws://{coinbase}",
            "COINBASE_API_URL": f"http://{coinbase}/api/v3/brokerage",
            "COINGECKO_API_URL": f"http://127.0.0.1:{ports['coingecko']}/api/v3",
            "CRYPTOPULSE_ALERTS_WEBHOOKS_ALLOW_INSECURE": "true",
            **addresses(self.ports),
            **ALONE,
            **SHORT_HISTORY,
            **self.settings,
        }

    # --- waiting -----------------------------------------------------------------------------------------------

    async def until_alive(self, service: str) -> None:
        """Wait until the service answers `/livez`; fails with its log when it ended."""

        async def alive() -> bool:
            answer = await self.client.get(f"http://127.0.0.1:{self.ports[service]}/livez")
            return answer.status_code == httpx.codes.OK

        await self.until(alive, what=f"{service} is alive", of=service)

    async def until_ready(self, service: str, *, seconds: float = START_SECONDS) -> None:
        """Wait until the service answers `/readyz` with 200."""
        said = "no answer"

        async def ready() -> bool:
            nonlocal said
            answer = await self.client.get(f"http://127.0.0.1:{self.ports[service]}/readyz")
            said = answer.text
            return answer.status_code == httpx.codes.OK

        try:
            await self.until(ready, what=f"{service} is ready", of=service, seconds=seconds)
        except SystemFailedError as error:
            error.add_note(said)
            raise

    async def until(
        self, claim: Any, *, what: str, of: str = "gateway", seconds: float = START_SECONDS
    ) -> Any:
        """Poll an async claim until it is true; its value. Fails with the log of process `of`."""
        deadline = time.monotonic() + seconds
        last: object = None
        while time.monotonic() < deadline:
            process = self.processes.get(of)
            if process is not None and process.poll() is not None:
                raise SystemFailedError(
                    f"{of} ended with {process.returncode} while waiting: {what}\n{self.log(of)}"
                )
            with contextlib.suppress(httpx.HTTPError):
                last = await claim()
                if last:
                    return last
            await asyncio.sleep(0.1)
        raise SystemFailedError(f"not so within {seconds:.0f} s: {what} (last {last!r})\n{self.log(of)}")

    async def price(self, name: str = "BTC") -> dict[str, Any]:
        """Wait for a price of `name` that is not stale; the gateway's answer."""

        async def priced() -> dict[str, Any] | None:
            answer = await self.client.get(f"/prices/{name}")
            if answer.status_code != httpx.codes.OK:
                return None
            body: dict[str, Any] = answer.json()
            return body if body["price"] is not None and not body["stale"] else None

        found: dict[str, Any] = await self.until(priced, what=f"a price of {name}")
        return found

    async def login(self, email: str = "trader@example.com") -> dict[str, str]:
        """Register (when new) and log in; the headers that carry the token."""
        body = {"email": email, "password": "correct horse battery staple"}
        registered = await self.client.post("/v1/auth/register", json=body)
        if registered.status_code not in (httpx.codes.CREATED, httpx.codes.CONFLICT):
            raise SystemFailedError(f"register: {registered.status_code} {registered.text}")
        answer = await self.client.post("/v1/auth/login", json=body)
        if answer.status_code != httpx.codes.OK:
            raise SystemFailedError(f"login: {answer.status_code} {answer.text}")
        return {"authorization": f"Bearer {answer.json()['access_token']}"}

    async def control(self, method: str, path: str, **options: Any) -> Any:
        """Call the simulator's control API."""
        answer = await self.client.request(
            method, f"http://127.0.0.1:{self.simulator_ports['control']}{path}", **options
        )
        answer.raise_for_status()
        return answer.json()
