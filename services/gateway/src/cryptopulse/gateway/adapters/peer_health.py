"""Asks the other services' `/readyz`, side by side and briefly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx
import orjson

ASK_SECONDS: Final = 1.5


class PeerHealth:
    """One small client for all of them."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = dict(urls)
        self._http = httpx.AsyncClient(timeout=ASK_SECONDS, trust_env=False)

    async def ask(self) -> dict[str, dict[str, Any]]:
        """`{ok, detail}` of every service."""
        names = list(self._urls)
        found = await asyncio.gather(*(self._one(self._urls[name]) for name in names))
        return dict(zip(names, found, strict=True))

    async def _one(self, url: str) -> dict[str, Any]:
        try:
            answer = await self._http.get(f"{url.rstrip('/')}/readyz")
        except httpx.HTTPError as error:
            return {"ok": False, "detail": f"does not answer ({type(error).__name__})"}
        if answer.status_code == 200:
            return {"ok": True, "detail": "ready"}
        return {"ok": False, "detail": _failing(answer.content)}

    async def close(self) -> None:
        """Close the client."""
        await self._http.aclose()


def _failing(body: bytes) -> str:
    try:
        found = orjson.loads(body).get("dependencies", {})
        names = sorted(name for name, check in found.items() if check.get("state") != "up")
    except (orjson.JSONDecodeError, AttributeError):
        return "not ready"
    return f"not ready: {', '.join(names)}" if names else "not ready"
