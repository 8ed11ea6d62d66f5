"""A price from Redis by FastAPI and nothing else: no credential, no limit, no metrics."""

from __future__ import annotations

import os
from typing import Any

import orjson
from fastapi import FastAPI
from redis.asyncio import Redis

app = FastAPI()
redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])


@app.get("/prices/{symbol}")
async def price(symbol: str) -> Any:
    """The stored body."""
    found = await redis.get(f"bench:{symbol}")
    return orjson.loads(found or b"null")
