"""Looks at the running system from outside, as a client does: prices and health over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
from dataclasses import dataclass
from typing import Any

_PATIENCE_SECONDS = 2.0
_MAX_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class Api:
    """The public door of the gateway."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{self.host}:{self.port}"

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer; status 0 when there is none yet."""
        return await asyncio.to_thread(self._get, path)

    async def price(self, symbol: str) -> dict[str, Any] | None:
        """The price of a symbol, when there is a fresh one."""
        status, body = await self.get(f"/prices/{symbol}")
        return body if status == 200 and body.get("price") and not body.get("stale") else None

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = json.loads(answer.read(_MAX_ANSWER))
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()
        return answer.status, body if isinstance(body, dict) else {}


def price_line(body: dict[str, Any]) -> str:
    """One price, readable."""
    sources = body.get("sources_used") or []
    origin = str(body.get("source", ""))
    if sources:
        origin = f"{origin} of {', '.join(map(str, sources))}"
    change = body.get("change_24h_pct")
    day = f", 24 h {change} %" if change is not None else ""
    label = ", SIMULATED" if body.get("simulated") else ""
    return f"{body.get('symbol', '?'):<10} {body.get('price', '?'):>14}  {body.get('status', '?')} ({origin}{day}{label})"
