"""The whole public API does what its document says: generated requests, good and bad, with a credential, on the running system."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from cryptopulse.common.clock import SystemClock
from tools.harness.system import Backends, System

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = "^/v1/(me|auth/sessions.*)$"
LOGOUT = "^/v1/auth/logout"
CHECKS = "sound_answers,status_code_conformance,response_schema_conformance,content_type_conformance,unsupported_method"


async def generated(system: System, authorization: str, *choice: str) -> int:
    """Run generated requests over a choice of paths; how many operations were tested. Fails with what was found."""
    child = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "run", f"http://127.0.0.1:{system.port}/v1/openapi.json",
        "-H", f"Authorization: {authorization}",
        "--phases", "examples,fuzzing",
        "--mode", "all",
        "--max-examples", "2",
        "--workers", "2",
        "--generation-deterministic",
        "-c", CHECKS,
        *choice,
        cwd=system.folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.e2e.conformance_checks", "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(child.communicate(), 200)
    text = re.sub(r"[%\w]{600,}", "...", output.decode(errors="replace"))
    assert child.returncode == 0, text[-12_000:]
    tested = re.search(r"Tested: (\d+)", text)
    assert tested is not None, text[-3_000:]
    return int(tested[1])


async def what_is_beyond_a_bound(system: System, authorization: str, document: dict[str, Any]) -> int:
    """Every number over the most that the document allows is refused, and the answer names that most; how many there were."""
    examples = {"symbol": "BTC-USD", "name": "rsi_14"}
    tried = 0
    for path, entries in document["paths"].items():
        names = re.findall(r"{(\w+)}", path)
        if not set(names) <= set(examples):
            continue
        for parameter in entries.get("get", {}).get("parameters", ()):
            most = parameter["schema"].get("maximum")
            if most is None or parameter["in"] != "query":
                continue
            for number in (most + 1, 10**9, 10**30):
                answer = await system.client.get(
                    path.format(**examples),
                    params={parameter["name"]: number},
                    headers={"Authorization": authorization},
                )
                assert answer.status_code in {400, 422}, (path, parameter["name"], number, answer.text)
                assert str(most) in answer.text, (path, answer.text)
            tried += 1
    return tried


@pytest.fixture
async def system(
    rabbit_vhost: str, redis_db: str, make_postgres_db: Callable[[], str], tmp_path: Path
) -> AsyncIterator[System]:
    """One of its own: it is left full of whatever was generated, and with its limits used up."""
    backends = Backends(rabbit_vhost, redis_db, make_postgres_db())
    async with System(backends, tmp_path / "system") as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_generated_requests_find_no_fault(system: System) -> None:
    await system.price("BTC")
    document = (await system.client.get("/v1/openapi.json")).json()
    operations = sum(len(entries) for entries in document["paths"].values())
    claims = {"sub": "conformance", "exp": SystemClock().now_ms() // 1_000 + 1_800, "tier": "enterprise"}
    token = jwt.encode(claims, system.secret, "HS256")
    assert await what_is_beyond_a_bound(system, f"Bearer {token}", document) > 15
    tested = await generated(system, f"Bearer {token}", "--exclude-path-regex", f"{SESSIONS}|{LOGOUT}")
    session = (await system.login())["authorization"]
    tested += await generated(system, session, "--include-path-regex", SESSIONS)
    tested += await generated(system, session, "--include-path-regex", LOGOUT)
    assert tested == operations
