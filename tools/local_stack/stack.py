"""`make run`: servers, secrets, feed, services, first prices, and the orderly end of all of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cryptopulse.common.testing.servers.boot import Servers
from cryptopulse.common.testing.servers.docker import DockerEngine
from cryptopulse.common.testing.servers.faults import StackError
from cryptopulse.common.testing.servers.server import FOR_RUN
from tools.local_stack import feed, run_env
from tools.local_stack.api import Api
from tools.local_stack.config import DEFAULT_HOST, RunConfig, check_services, read_config, variables
from tools.local_stack.console import say, shout, stop_signals
from tools.local_stack.programs import (
    ALONE,
    STOP_ORDER,
    Program,
    addresses,
    internal_ports,
    service_environment,
    services,
)
from tools.local_stack.supervisor import Supervisor
from tools.local_stack.system import provide
from tools.local_stack.taken import holder_of, is_free
from tools.local_stack.venues import simulator
from tools.local_stack.watch import watch

# Stands for the URLs of servers that are not up yet, while the services' settings are checked.
_TO_COME = {
    "RABBITMQ_URL": "amqp://127.0.0.1/",
    "REDIS_URL": "redis://127.0.0.1/0",
    "DATABASE_URL": "postgresql://127.0.0.1/cryptopulse",
}

_PUBLIC_URL = "CRYPTOPULSE_GATEWAY_PUBLIC_URL"
_LOOPBACK_WEBHOOKS = "CRYPTOPULSE_ALERTS_WEBHOOKS_ALLOW_INSECURE"


class Stack:
    """One run of the whole system in one folder."""

    def __init__(self, environ: Mapping[str, str], checkout: Path) -> None:
        self._began = time.monotonic()
        self._environ = environ
        self._checkout = checkout
        self._config: RunConfig = read_config(environ, checkout)
        self._folder = self._config.folder
        self._env_file = self._folder / "env"

    def run(self) -> int:
        """Run until a signal comes; the exit code. Raises `ConfigError` or `StackError` with what to do."""
        self._require_port()
        secrets, made = self._check_settings()
        choices = provide(self._environ, DockerEngine())
        for choice in choices:
            say("setup", f"{choice.backend.title}: {choice.reason}")
        probe = self._start_probe()
        servers = Servers(
            self._folder, choices, FOR_RUN, environ=self._environ, say=lambda text: say("setup", text)
        )
        try:
            urls = servers.start()
            say("setup", f"RabbitMQ, Redis and Postgres are up ({time.monotonic() - self._began:.1f} s)")
            if made:
                say("setup", f"made random secrets in {self._env_file} ({', '.join(made)})")
            is_simulated = self._is_simulated(probe)
            return self._run_services(servers, {**secrets, **urls}, is_simulated=is_simulated)
        finally:
            _end(probe)
            say("stop", "stopping RabbitMQ, Redis and Postgres")
            servers.stop()
            say("stop", "everything that was started is gone; the data stay in " + str(self._folder))

    def _require_port(self) -> None:
        port = self._config.port
        if not is_free(DEFAULT_HOST, port):
            raise StackError(
                f"port {port} is taken by {holder_of(port)}; stop that, or take another port: "
                f"make run PORT={port + 1}"
            )

    def _check_settings(self) -> tuple[dict[str, str], list[str]]:
        """Secrets to add, after the services' own check of everything they will be given."""
        known = [one for group in variables().values() for one in group]
        found, made = run_env.secrets_for(known, self._environ, self._env_file)
        given = {name: value for name, value in self._environ.items() if value}
        # Each service says itself what FEED it knows; `auto` is ours alone by then.
        check_services({**_TO_COME, **given, **found, "FEED": "sim", "PORT": str(self._config.port)})
        self._folder.mkdir(parents=True, exist_ok=True)
        run_env.write(self._env_file, found)
        return found, made

    def _start_probe(self) -> subprocess.Popen[str] | None:
        if self._config.feed != "auto":
            return None
        return subprocess.Popen(
            [sys.executable, "-m", "tools.local_stack.feed"],
            env=dict(self._environ),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def _is_simulated(self, probe: subprocess.Popen[str] | None) -> bool:
        if probe is None:
            return self._config.feed == "sim"
        try:
            venues, _ = probe.communicate(timeout=feed.PROBE_SECONDS + 2.0)
        except subprocess.TimeoutExpired:
            venues = ""
        if venues.strip():
            say("feed", f"live: {venues.strip().replace(' ', ', ')} answered")
            return False
        shout("no live venue answers from here", "every price you see is simulated")
        say("feed", "running on the venue simulator; FEED=live insists on the venues")
        return True

    def _run_services(self, servers: Servers, given: dict[str, str], *, is_simulated: bool) -> int:
        environ = {name: value for name, value in self._environ.items() if value}
        programs: list[Program] = []
        values = {
            **given,
            **addresses(internal_ports(environ)),
            "PORT": str(self._config.port),
            "FEED": "sim" if is_simulated else "live",
            "LOG_FORMAT": "json",
        }
        # A laptop's receivers listen on loopback without TLS; containers keep the guard closed.
        values.setdefault(_LOOPBACK_WEBHOOKS, environ.get(_LOOPBACK_WEBHOOKS, "true"))
        values.setdefault(_PUBLIC_URL, environ.get(_PUBLIC_URL, f"http://localhost:{self._config.port}"))
        logs = self._folder / "log"
        venue_ports: list[int] = []
        if is_simulated:
            program, venue_urls, venue_ports = simulator(environ, logs)
            programs.append(program)
            values |= venue_urls
        run_env.write(self._env_file, values)
        programs += services(service_environment({**ALONE, **environ}, values), logs, venue_ports=venue_ports)
        supervisor = Supervisor(programs, pid_folder=self._folder / "pids", cwd=self._checkout, say=say)
        api = Api(DEFAULT_HOST, self._config.port)
        return asyncio.run(self._foreground(supervisor, servers, api, environ))

    async def _foreground(
        self, supervisor: Supervisor, servers: Servers, api: Api, environ: Mapping[str, str]
    ) -> int:
        stop = asyncio.Event()
        _stop_on_signals(stop, supervisor)
        watching = asyncio.create_task(watch(api, environ.get("SYMBOLS", ""), self._began))
        guarding = asyncio.create_task(_guard(servers, stop))
        try:
            await supervisor.run(stop)
        finally:
            for task in (watching, guarding):
                task.cancel()
            await asyncio.gather(watching, guarding, return_exceptions=True)
            say("stop", "stopping the services")
            await supervisor.stop(STOP_ORDER)
        return supervisor.exit_code


def _stop_on_signals(stop: asyncio.Event, supervisor: Supervisor) -> None:
    """The first signal stops in order; another one, a second later or more, at once."""
    first_at: list[float] = []

    def on_signal(name: str) -> None:
        now = time.monotonic()
        if not first_at:
            first_at.append(now)
            say("stop", f"{name}: stopping in order; once more to stop at once")
            stop.set()
        elif now - first_at[0] > 1.0:
            supervisor.kill()

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, on_signal, number.name)


async def _guard(servers: Servers, stop: asyncio.Event) -> None:
    """Start a local server again that ended under us; the services find it on the same port."""
    while not stop.is_set():
        for name in servers.restart_dead():
            say(name, "ended; started again on the same data and port")
        await asyncio.sleep(1.0)


def _end(probe: subprocess.Popen[str] | None) -> None:
    if probe is None:
        return
    if probe.poll() is None:
        os.kill(probe.pid, signal.SIGKILL)
        probe.wait()
    if probe.stdout is not None:
        probe.stdout.close()
