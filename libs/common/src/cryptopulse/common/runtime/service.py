"""What `build` gets to work with: the process's health, loops, drain steps and HTTP servers, and their life in order."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final

from fastapi import FastAPI

from cryptopulse.common.clock import Clock, SystemClock
from cryptopulse.common.runtime.health import CheckFn, Health, Phase
from cryptopulse.common.runtime.memory import LongLived
from cryptopulse.common.runtime.servers import HttpServer
from cryptopulse.common.runtime.shutdown import DrainStep, Signals, run_steps
from cryptopulse.common.runtime.tasks import LagMeter, LoopFn, Loops
from cryptopulse.common.runtime.version import publish, version_of
from cryptopulse.common.telemetry import tracing
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.web.body_limit import BodyLimit
from cryptopulse.common.web.deadline import Deadline
from cryptopulse.common.web.middleware import RequestScope
from cryptopulse.common.web.problems import install_problem_handlers

INTERNAL_BODY_BYTES: Final = 32 * 1024 * 1024
"""What one internal request may carry: room for an imported file of a hundred thousand rows."""
LOOPS_STOP_SECONDS: Final = 5.0
SERVERS_STOP_SECONDS: Final = 6.0
CLOSE_SECONDS: Final = 10.0
FLUSH_SECONDS: Final = 3.0

log = get_logger(__name__)


class Runtime:
    """One process of a service.

    `build` registers checks, loops, drain steps, routes and servers here; they are started in `run` after it has yielded.
    `replica_id` is unique among all processes of the service, also over restarts.
    """

    def __init__(self, name: str, *, clock: Clock | None = None, version: str | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.name = name
        self._version = version_of(name)
        self.version = version or self._version.version
        self.replica_id = f"{name}-{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"
        self._loops = Loops(name, self.clock)
        self._lag = LagMeter(name)
        self._memory = LongLived()
        self.health = Health(name, self._version, self.clock, self._loops, self._lag)
        self._drain_steps: list[DrainStep] = []
        self._servers: list[HttpServer] = []
        self.app = internal_app(name, self.health)

    @property
    def is_draining(self) -> bool:
        """True from the first SIGTERM on, or from `withdraw`."""
        return self.health.phase is Phase.DRAINING

    def withdraw(self) -> None:
        """Drain from now on without ending: `/readyz` says 503 and answers close their connections, until SIGTERM comes."""
        self.health.enter(Phase.DRAINING)

    def check(self, name: str, fn: CheckFn) -> None:
        """Let `/readyz` depend on `fn`: sync and cheap, or async and answered within 2 s. A raised error counts as down."""
        self.health.add_check(name, fn)

    def loop(self, name: str, coro_fn: LoopFn, *, stall_seconds: float = 30.0) -> None:
        """Run `coro_fn(beat)` from after `build` until the drain.

        It calls `beat()` at least every `stall_seconds`, or `/livez` turns to 503. An exception that escapes is logged and
        counted, and the loop starts again after a growing pause. A loop that returns is finished.
        """
        self._loops.add(name, coro_fn, stall_seconds=stall_seconds)

    def on_drain(self, name: str, coro_fn: Callable[[], Awaitable[None]], *, timeout_seconds: float) -> None:
        """Run `coro_fn` at SIGTERM, in order of registration, before the loops are cancelled and `build` is closed."""
        self._drain_steps.append(DrainStep(name, coro_fn, timeout_seconds))

    def serve(
        self, app: Any, host: str, port: int, *, ws: Any = "none", setting: str = "PORT", **options: Any
    ) -> HttpServer:
        """Serve another app from this process, beside the internal one. Takes the port now, answers after `build`.

        At SIGTERM it stops accepting first, and is closed after the drain steps. `ws` and `options` are uvicorn's;
        `setting` is the variable that a taken port is blamed on.
        """
        server = HttpServer(app, host, port, setting=setting, ws=ws, **options)
        server.bind()
        self._servers.append(server)
        return server

    @property
    def drain_budget_seconds(self) -> float:
        """The longest that a drain can take: the platform's stop timeout must be longer."""
        steps = sum(step.timeout_seconds for step in self._drain_steps)
        servers = SERVERS_STOP_SECONDS * (2 if self._servers else 1)
        return steps + servers + LOOPS_STOP_SECONDS + CLOSE_SECONDS + FLUSH_SECONDS

    async def run(
        self,
        built: AbstractAsyncContextManager[None],
        *,
        host: str,
        port: int,
        port_setting: str,
        drain_delay_seconds: float = 0.0,
        signals: Signals | None = None,
    ) -> None:
        """The whole life: answer health, build, run, and drain when told to. Returns after a clean stop."""
        signals = signals or Signals()
        signals.install()
        asyncio.get_running_loop().set_exception_handler(_log_loop_error)
        publish(self._version)
        lag = asyncio.create_task(self._lag.run(), name="event-loop-lag")
        internal = HttpServer(self.app, host, port, setting=port_setting)
        stack = AsyncExitStack()
        try:
            internal.bind()
            await internal.start()
            await _until_built(stack.enter_async_context(built), signals.stop)
            self._memory.start()
            self._loops.start()
            for server in self._servers:
                await server.start()
            self.health.enter(Phase.RUNNING)
            log.info(
                "service started",
                replica=self.replica_id,
                port=internal.port,
                drain_budget_seconds=round(self.drain_budget_seconds + drain_delay_seconds, 1),
            )
            await self._until_told(signals.stop, [internal, *self._servers])
            await self._drain(drain_delay_seconds)
        except _StoppedWhileBuildingError:
            self.health.enter(Phase.DRAINING)
        finally:
            await self._close(stack, internal)
            self._memory.stop()
            lag.cancel()
            signals.remove()
        log.info("service stopped")

    async def _until_told(self, stop: asyncio.Event, servers: list[HttpServer]) -> None:
        """Wait for a signal; a server that ends by itself is a crash."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), 1.0)
            except TimeoutError:
                if any(server.failed for server in servers):
                    raise RuntimeError("an HTTP server ended by itself") from None

    async def _drain(self, delay_seconds: float) -> None:
        started = self.clock.monotonic()
        self.health.enter(Phase.DRAINING)
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        for server in self._servers:
            server.stop_accepting()
        troubled = await run_steps(self._drain_steps)
        log.info("drained", seconds=round(self.clock.monotonic() - started, 3), troubled=troubled)

    async def _close(self, stack: AsyncExitStack, internal: HttpServer) -> None:
        for server in self._servers:
            await server.stop(SERVERS_STOP_SECONDS)
        left = await self._loops.cancel(LOOPS_STOP_SECONDS)
        if left:
            log.warning("loops did not end", loops=left)
        # Before the adapters: a request over a kept connection would meet a closed pool and fail.
        await internal.stop(SERVERS_STOP_SECONDS)
        await run_steps([DrainStep("close adapters", stack.aclose, CLOSE_SECONDS)])
        await asyncio.to_thread(tracing.shutdown, FLUSH_SECONDS)


class _StoppedWhileBuildingError(Exception):
    """Told to stop before `build` was through."""


async def _until_built(entering: Awaitable[None], stop: asyncio.Event) -> None:
    """Wait for `build`, which a signal may interrupt."""
    building = asyncio.ensure_future(entering)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({building, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if building.done():
        building.result()
        return
    building.cancel()
    await asyncio.wait({building}, timeout=CLOSE_SECONDS)
    raise _StoppedWhileBuildingError


def internal_app(name: str, health: Health) -> FastAPI:
    """The app of the internal port: health, metrics and version; services add the routes that others call."""
    app = FastAPI(
        title=f"CryptoPulse {name}, internal",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False},
    )
    install_problem_handlers(app)
    app.add_middleware(BodyLimit, limit=INTERNAL_BODY_BYTES)
    app.add_middleware(Deadline)
    app.add_middleware(RequestScope, service=name, is_draining=lambda: health.phase is Phase.DRAINING)
    app.include_router(health.routes())
    return app


def _log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("unhandled error in the event loop", what=context.get("message", ""), exc_info=error)
