"""docs/recipes.md is true: every block runs as it stands against the running system, in order."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import httpx
import pytest

from tools.harness.system import System

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script() -> str:
    """All blocks as one shell script that stops at the first failure."""
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 8
    parts = ["set -euo pipefail"]
    for kind, text in blocks:
        parts.append(text if kind == "bash" else f"{sys.executable} - <<'PYTHON'\n{text}PYTHON")
    return "\n".join(parts)


@pytest.mark.timeout(240)
async def test_every_recipe_runs(system: System) -> None:
    await system.price("BTC")

    async def indicators_are_there() -> bool:
        answer = await system.client.get("/indicators/BTC", params={"interval": "1m"})
        venue = await system.client.get("/v1/prices/BTC-USDT", params={"source": "binance"})
        return answer.status_code == venue.status_code == httpx.codes.OK

    await system.until(indicators_are_there, what="indicators and a venue's price")
    environ = {**os.environ, "API": f"http://127.0.0.1:{system.port}", "no_proxy": "*"}
    child = await asyncio.create_subprocess_exec(
        "bash", "-c", script(), env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode == 0, output.decode()
    assert b"BTC-USD" in output
