"""`GET /v1/prices/{symbol}` of a real gateway process, credential, limit, ids and metrics on, beside a bare FastAPI with a Redis GET.

32 keep-alive connections of a load process of its own ask as fast as they are answered; CPU is the server process's alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Final

from redis.asyncio import Redis

from tools.bench.backends import fresh_redis
from tools.bench.gateway_process import SYMBOL, Gateway, Server, running_gateway, server
from tools.bench.measure import Contender, Row, Sample, interleaved, sized

TITLE = "Gateway: GET /v1/prices/{symbol}, 32 connections"
SECONDS: Final = sized(4, 1)
CONNECTIONS: Final = 32
BODY_KEY: Final = f"bench:{SYMBOL}"


async def run() -> list[Row]:
    """Ours and the bare one, interleaved."""
    async with running_gateway() as gateway, contextlib.AsyncExitStack() as stack:
        redis_url = stack.enter_context(fresh_redis())
        redis = await stack.enter_async_context(Redis.from_url(redis_url))
        body = {"symbol": SYMBOL, "price": "67000.12", "ts": 1_700_000_000_000, "source": "consolidated"}
        await redis.set(BODY_KEY, json.dumps(body))
        bare_arguments = ["-m", "uvicorn", "tools.bench.yardsticks.bare_api:app", "--port", "{port}"]
        bare_arguments += [
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--no-access-log",
            "--log-level",
            "warning",
        ]
        token = gateway.token("bench-user")
        async with server(bare_arguments, {"BENCH_REDIS_URL": redis_url}, f"/prices/{SYMBOL}") as bare:
            feed = asyncio.create_task(_feed(gateway))
            contenders = [
                Contender(
                    "CryptoPulse, all of it on", lambda: _loaded(gateway, f"/v1/prices/{SYMBOL}", token)
                ),
                Contender("bare FastAPI, one Redis GET", lambda: _loaded(bare, f"/prices/{SYMBOL}", "")),
            ]
            try:
                return await interleaved(
                    "gateway", "req/s", contenders, rounds=3, hold=">= 5,500 req/s, p99 < 12 ms"
                )
            finally:
                feed.cancel()


async def _feed(gateway: Gateway) -> None:
    """Ten new prices a second, as in service: an answer is made anew for each."""
    while True:
        await gateway.price()
        await asyncio.sleep(0.1)


async def _loaded(target: Server, path: str, token: str) -> Sample:
    cpu = target.cpu_seconds()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.bench.http_load", str(target.port), path, str(CONNECTIONS), str(SECONDS), token,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    answer, _ = await process.communicate()
    found = json.loads(answer)
    if found["faults"]:
        raise RuntimeError(f"{found['faults']} of {found['requests']} answers were not 200: {found['fault']}")
    return Sample(
        int(found["requests"]),
        target.cpu_seconds() - cpu,
        found["seconds"],
        {"p50 ms": found["p50_ms"], "p99 ms": found["p99_ms"]},
    )
