"""What a process tells its platform: alive (its loops beat), ready (its dependencies answer), measured, and which version."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from cryptopulse.common.clock import Clock
from cryptopulse.common.runtime.tasks import LagMeter, Loops
from cryptopulse.common.runtime.version import Version
from cryptopulse.common.telemetry.checks import Check
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.telemetry.metrics import exposition, gauge

CheckFn = Callable[[], Check | Awaitable[Check]]
CHECK_TIMEOUT_SECONDS: Final = 2.0

_UP: Final = gauge(
    "cryptopulse_dependency_up",
    "1 while a dependency answers, 0 while it does not.",
    ("service", "dependency"),
)
_DRAINING: Final = gauge("cryptopulse_draining", "1 from the first SIGTERM on.", ("service",))
log = get_logger(__name__)


class Phase(Enum):
    """Where a process is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


class Health:
    """The state behind `/livez` and `/readyz`."""

    def __init__(self, service: str, version: Version, clock: Clock, loops: Loops, lag: LagMeter) -> None:
        self._service = service
        self._version = version
        self._clock = clock
        self._loops = loops
        self._lag = lag
        self._checks: dict[str, CheckFn] = {}
        self._last: dict[str, bool] = {}
        self._started_at = clock.monotonic()
        self._phase = Phase.STARTING
        _DRAINING.labels(service).set(0)

    @property
    def phase(self) -> Phase:
        """Where the process is in its life."""
        return self._phase

    def enter(self, phase: Phase) -> None:
        """Go on to the next phase; there is no way back."""
        self._phase = phase
        _DRAINING.labels(self._service).set(1 if phase is Phase.DRAINING else 0)

    def add_check(self, name: str, check: CheckFn) -> None:
        """Let `/readyz` depend on `check`."""
        if name in self._checks:
            raise ValueError(f"a check named {name} exists already")
        self._checks[name] = check

    def liveness(self) -> tuple[bool, dict[str, Any]]:
        """True while every loop beats. No dependency is asked: a broker's outage must not restart the fleet."""
        now = self._clock.monotonic()
        states = self._loops.states()
        stalled = [state.name for state in states if state.stalled(now)]
        body: dict[str, Any] = {
            "status": "stalled" if stalled else "alive",
            "uptime_seconds": round(now - self._started_at, 3),
            "event_loop_lag_seconds": round(self._lag.worst_seconds, 4),
            "loops": {
                state.name: {
                    "state": "finished" if state.finished else "stalled" if state.stalled(now) else "beating",
                    "age_seconds": round(state.age(now), 3),
                    "stall_seconds": state.stall_seconds,
                    "restarts": state.restarts,
                    **({"last_error": state.last_error.partition(":")[0]} if state.last_error else {}),
                }
                for state in states
            },
        }
        return not stalled, body

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """True while traffic may come: running, and every dependency answers."""
        results = dict(
            zip(
                self._checks,
                await asyncio.gather(*(self._ask(check) for check in self._checks.values())),
                strict=True,
            )
        )
        for name, result in results.items():
            self._note(name, result)
        ready = self._phase is Phase.RUNNING and all(result.ok for result in results.values())
        status = self._phase.value if self._phase is not Phase.RUNNING else "ready" if ready else "unready"
        return ready, {
            "status": status,
            "service": self._service,
            "dependencies": {name: _shown(result) for name, result in results.items()},
        }

    async def _ask(self, check: CheckFn) -> Check:
        try:
            answer = check()
            if inspect.isawaitable(answer):
                answer = await asyncio.wait_for(answer, CHECK_TIMEOUT_SECONDS)
        except TimeoutError:
            return Check(ok=False, detail=f"no answer within {CHECK_TIMEOUT_SECONDS:g} s")
        except Exception as error:  # a check that fails is an answer, whatever it raises
            return Check(ok=False, detail=type(error).__name__)
        return answer

    def _note(self, name: str, result: Check) -> None:
        _UP.labels(self._service, name).set(1 if result.ok else 0)
        if self._last.get(name) is not result.ok:
            if result.ok:
                log.info("dependency answers", dependency=name)
            elif self._phase is Phase.RUNNING:
                log.warning("dependency does not answer", dependency=name, detail=result.detail)
            self._last[name] = result.ok

    def routes(self) -> APIRouter:
        """`/livez`, `/readyz`, `/metrics` and `/version`."""
        router = APIRouter(include_in_schema=False)

        async def livez() -> Response:
            ok, body = self.liveness()
            return _json(200 if ok else 503, body)

        async def readyz() -> Response:
            ok, body = await self.readiness()
            return _json(200 if ok else 503, body)

        async def metrics() -> Response:
            self._loops.publish_ages()
            content, media_type = exposition()
            return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-store"})

        async def version() -> Response:
            return _json(200, self._version.as_dict())

        for path, endpoint in (
            ("/livez", livez),
            ("/readyz", readyz),
            ("/metrics", metrics),
            ("/version", version),
        ):
            router.add_api_route(path, endpoint, methods=["GET", "HEAD"])
        return router


def _shown(result: Check) -> dict[str, Any]:
    shown: dict[str, Any] = {"state": "up" if result.ok else "down"}
    if result.detail:
        shown["detail"] = result.detail
    if result.age_seconds is not None:
        shown["age_seconds"] = round(result.age_seconds, 3)
    return shown


def _json(status: int, body: dict[str, Any]) -> Response:
    return Response(
        orjson.dumps(body),
        status_code=status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )
