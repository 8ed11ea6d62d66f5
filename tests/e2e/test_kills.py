"""Any one of the five may be killed: the others go on, health tells, and it recovers when started again."""

from __future__ import annotations

import httpx
import pytest

from cryptopulse.common.config import SERVICES
from tools.harness.system import System

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.timeout(300)
async def test_a_killed_service_is_reported_and_recovers(system: System) -> None:
    await system.price("BTC")
    headers = await system.login()
    for victim in SERVICES:
        system.kill(victim)
        for survivor in SERVICES:
            if survivor != victim:
                answer = await system.client.get(f"http://127.0.0.1:{system.ports[survivor]}/livez")
                assert answer.status_code == httpx.codes.OK, survivor
        if victim != "gateway":
            await system.until(
                lambda name=victim: _is_told(system, name), what=f"/health/ tells of {victim}", seconds=30
            )
        system.start(victim)
        await system.until_ready(victim)
        await system.until(lambda: _is_healthy(system), what=f"all is well after {victim}", seconds=45)
        fresh = await system.price("BTC")
        assert fresh["stale"] is False
    listed = await system.client.get("/portfolio", headers=headers)
    assert listed.status_code == httpx.codes.OK


async def _is_told(system: System, victim: str) -> bool:
    answer = await system.client.get("/health/")
    return answer.json()["checks"][victim]["ok"] is False


async def _is_healthy(system: System) -> bool:
    answer = await system.client.get("/health/")
    return answer.status_code == httpx.codes.OK and answer.json()["status"] == "ok"
