"""The whole public API does what its document says: generated requests, good and bad, with a credential, on the running system."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import jwt
import pytest

from cryptopulse.common.clock import SystemClock
from tools.harness.system import System

CONFIG = """
[checks.not_a_server_error]
# 503 with Retry-After is a documented answer: a stale price, or a part of the system that is away.
expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""
ENDS_THE_SESSION = "logout|/v1/me|sessions"
CHECKS = "not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance,unsupported_method"


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_generated_requests_find_no_fault(system: System, tmp_path: Path) -> None:
    await system.price("BTC")
    claims = {"sub": "conformance", "exp": SystemClock().now_ms() // 1_000 + 1_800, "tier": "enterprise"}
    token = jwt.encode(claims, system.secret, "HS256")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    child = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "--config-file", str(config),
        "run", f"http://127.0.0.1:{system.port}/v1/openapi.json",
        "-H", f"Authorization: Bearer {token}",
        "--phases", "examples,fuzzing",
        "--mode", "all",
        "--max-examples", "2",
        "--workers", "2",
        "--generation-deterministic",
        "-c", CHECKS,
        "--exclude-path-regex", ENDS_THE_SESSION,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(child.communicate(), 330)
    assert child.returncode == 0, output.decode()[-12_000:]
