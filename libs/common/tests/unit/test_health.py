"""`/livez` speaks of our loops alone; `/readyz` of every dependency, and only while traffic may come."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.runtime import Check, Runtime, health
from cryptopulse.common.runtime.health import Phase


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def runtime(clock: ManualClock) -> Runtime:
    return Runtime("alerts", clock=clock, version="9.9.9")


async def get(runtime: Runtime, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(runtime.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://internal") as client:
        return await client.get(path, headers=headers)


async def readiness(runtime: Runtime) -> tuple[int, dict[str, Any]]:
    response = await get(runtime, "/readyz")
    return response.status_code, response.json()


async def test_a_starting_service_is_alive_and_not_ready(runtime: Runtime) -> None:
    assert (await get(runtime, "/livez")).status_code == 200
    assert await readiness(runtime) == (503, {"status": "starting", "service": "alerts", "dependencies": {}})


async def test_a_running_service_is_ready_when_every_dependency_answers(runtime: Runtime) -> None:
    async def slow() -> Check:
        await asyncio.sleep(0)
        return Check(ok=True)

    runtime.check("bus", lambda: Check(ok=True, detail="two channels", age_seconds=1.23456))
    runtime.check("redis", slow)
    runtime.health.enter(Phase.RUNNING)

    status, body = await readiness(runtime)

    assert status == 200
    assert body["status"] == "ready"
    assert body["dependencies"] == {
        "bus": {"state": "up", "detail": "two channels", "age_seconds": 1.235},
        "redis": {"state": "up"},
    }


async def test_one_dead_dependency_makes_it_unready_and_leaves_it_alive(runtime: Runtime) -> None:
    runtime.check("bus", lambda: Check(ok=True))
    runtime.check("postgres", lambda: Check(ok=False, detail="refused", age_seconds=3))
    runtime.health.enter(Phase.RUNNING)

    status, body = await readiness(runtime)

    assert status == 503
    assert body["status"] == "unready"
    assert body["dependencies"]["postgres"] == {"state": "down", "detail": "refused", "age_seconds": 3}
    assert (await get(runtime, "/livez")).status_code == 200


async def test_a_check_that_fails_or_hangs_counts_as_down(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_SECONDS", 0.02)

    def broken() -> Check:
        raise RuntimeError("amqp://user:hunter22@host")

    async def hangs() -> Check:
        await asyncio.Event().wait()
        raise AssertionError

    runtime.check("broken", broken)
    runtime.check("hangs", hangs)
    runtime.health.enter(Phase.RUNNING)

    status, body = await readiness(runtime)

    assert status == 503
    assert body["dependencies"]["broken"] == {"state": "down", "detail": "RuntimeError"}
    assert body["dependencies"]["hangs"] == {"state": "down", "detail": "no answer within 0.02 s"}


async def test_a_draining_service_is_not_ready_and_says_goodbye(runtime: Runtime) -> None:
    runtime.health.enter(Phase.RUNNING)
    assert "connection" not in (await get(runtime, "/readyz")).headers
    runtime.health.enter(Phase.DRAINING)

    response = await get(runtime, "/readyz")

    assert runtime.is_draining
    assert response.status_code == 503
    assert response.json()["status"] == "draining"
    assert response.headers["connection"] == "close"
    assert (await get(runtime, "/livez")).status_code == 200


async def test_a_stalled_loop_ends_liveness_and_is_named(runtime: Runtime, clock: ManualClock) -> None:
    async def silent(_beat: Any) -> None:
        await asyncio.Event().wait()

    runtime.loop("relay", silent, stall_seconds=5)
    runtime._loops.start()
    await asyncio.sleep(0)
    assert (await get(runtime, "/livez")).status_code == 200
    clock.advance(6)

    response = await get(runtime, "/livez")

    assert response.status_code == 503
    assert response.json()["status"] == "stalled"
    assert response.json()["loops"]["relay"]["state"] == "stalled"
    assert response.json()["loops"]["relay"]["age_seconds"] == 6
    await runtime._loops.cancel(1)


async def test_two_checks_of_one_name_are_refused(runtime: Runtime) -> None:
    runtime.check("bus", lambda: Check(ok=True))
    with pytest.raises(ValueError, match="exists already"):
        runtime.check("bus", lambda: Check(ok=True))


async def test_the_version_says_what_runs(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOPULSE_COMMIT", "abc1234")
    monkeypatch.setenv("CRYPTOPULSE_BUILT_AT", "2026-01-01T00:00:00Z")

    body = (await get(Runtime("alerts"), "/version")).json()

    assert set(body) == {"service", "version", "commit", "built_at", "python"}
    assert body["service"] == "alerts"
    assert body["commit"] == "abc1234"
    assert body["built_at"] == "2026-01-01T00:00:00Z"


async def test_metrics_are_prometheus_text_with_the_state_of_dependencies(runtime: Runtime) -> None:
    runtime.check("bus", lambda: Check(ok=False))
    runtime.health.enter(Phase.RUNNING)
    await readiness(runtime)

    response = await get(runtime, "/metrics")

    assert response.headers["content-type"].startswith("text/plain")
    assert 'cryptopulse_dependency_up{dependency="bus",service="alerts"} 0.0' in response.text
    assert (
        'cryptopulse_http_requests_total{method="GET",route="/readyz",service="alerts",status="503"}'
        in response.text
    )


async def test_health_answers_are_never_cached(runtime: Runtime) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/version"):
        assert (await get(runtime, path)).headers["cache-control"] == "no-store"


async def test_the_drain_budget_is_the_sum_of_all_limits(runtime: Runtime) -> None:
    before = runtime.drain_budget_seconds

    async def step() -> None:
        return

    runtime.on_drain("outbox", step, timeout_seconds=7)

    assert runtime.drain_budget_seconds == before + 7


async def test_replica_ids_are_unique() -> None:
    assert Runtime("alerts").replica_id != Runtime("alerts").replica_id
