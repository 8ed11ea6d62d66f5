"""What says how the system is: health, status of the feeds, time, keys for tokens, and the documents."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.entrypoints.http.operations import Call, Operation, json_response

PEER_SERVICES: Final = ("ingestor", "indicators", "alerts", "portfolio")


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class HealthCheck(_Open):
    """One part of the system."""

    ok: bool
    detail: str


class HealthAnswer(_Open):
    """`ok`: everything works. `degraded`: something does not, prices are served. `down`: prices cannot be served."""

    status: str
    version: str
    uptime_s: int
    simulated: bool
    feed: str
    checks: dict[str, HealthCheck]


class TimeAnswer(BaseModel):
    """Our clock in milliseconds since 1970, UTC."""

    ts: int


class FeedView(_Open):
    """One venue: its connection, how old its newest tick is, reconnects, budgets."""

    venue: str
    state: str
    active: bool
    paused: bool
    simulated: bool
    last_tick_age_ms: int | None
    reported_age_ms: int
    reconnects: int


class StatusAnswer(BaseModel):
    """The feeds, and how fresh prices are."""

    ts: int
    simulated: bool
    symbols: int
    newest_price_age_ms: int | None
    data: list[FeedView]
    next_cursor: str | None = None


class JwksAnswer(_Open):
    """Public keys of access tokens; empty while they are signed with a shared secret."""

    keys: list[dict[str, Any]]


def newest_age_ms(use: UseCases) -> int | None:
    """The age of the newest price of all, None before the first."""
    newest = use.market.newest_received_us
    return None if not newest else max(0, (use.clock.now_us() - newest) // 1_000)


async def get_health(use: UseCases, _call: Call) -> Response:
    """Sums up this gateway and the services behind it."""
    own_ok, own = await use.readiness()
    checks: dict[str, dict[str, Any]] = {
        name: {"ok": found.get("state") == "up", "detail": str(found.get("detail", ""))}
        for name, found in own.get("dependencies", {}).items()
    }
    for service in PEER_SERVICES:
        checks[service] = use.peers.get(service) or {"ok": False, "detail": "not asked yet"}
    age = newest_age_ms(use)
    is_fresh = age is not None and age < 60_000
    checks["prices"] = {
        "ok": is_fresh,
        "detail": "no price yet" if age is None else f"newest price {age} ms old",
    }
    has_prices = age is not None
    all_ok = own_ok and all(found["ok"] for found in checks.values())
    status = "ok" if all_ok else "degraded" if has_prices or own_ok else "down"
    body = {
        "status": status,
        "version": use.version,
        "uptime_s": max(0, (use.clock.now_ms() - use.started_ms) // 1_000),
        "simulated": use.feeds.is_simulated,
        "feed": "simulated" if use.feeds.is_simulated else "live" if use.feeds.is_live else "none",
        "checks": checks,
    }
    return json_response(body, 503 if status == "down" else 200)


async def get_time(use: UseCases, _call: Call) -> Response:
    """Our clock."""
    return json_response({"ts": use.clock.now_ms()})


async def get_status(use: UseCases, _call: Call) -> Response:
    """The state of the feeds."""
    return json_response(
        {
            "ts": use.clock.now_ms(),
            "simulated": use.feeds.is_simulated,
            "symbols": len(use.market.symbols()),
            "newest_price_age_ms": newest_age_ms(use),
            "data": use.feeds.public(),
            "next_cursor": None,
        },
        headers={"Cache-Control": "public, max-age=1"},
    )


async def get_jwks(use: UseCases, _call: Call) -> Response:
    """The public keys of access tokens."""
    return json_response(use.tokens.jwks(), headers={"Cache-Control": "public, max-age=300"})


def _get(path: str, name: str, summary: str, response: type, *, cost: float = 1) -> RouteSpec:
    return RouteSpec(
        "GET", path, name, summary, None, cost, None, response, tags=("system",), errors=(401, 429, 503)
    )


OPERATIONS: Final = (
    Operation(_get("/health/", "get_health", "Health of the whole system", HealthAnswer), get_health,
              aliases=("/health",), is_limited=False),
    Operation(_get("/v1/time", "get_time", "Our clock", TimeAnswer), get_time),
    Operation(_get("/v1/status", "get_status", "State of the feeds", StatusAnswer), get_status),
    Operation(_get("/.well-known/jwks.json", "get_jwks", "Public keys of access tokens", JwksAnswer), get_jwks, is_limited=False),
)  # fmt: skip
