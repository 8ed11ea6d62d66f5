"""`/v1/admin`: refused to everybody but a token that holds `admin` by name, and on the internal port alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from cryptopulse.common.runtime import Runtime
from cryptopulse.gateway.entrypoints.http.admin import DOCUMENT, OPERATIONS, admin_routes
from cryptopulse.gateway.entrypoints.http.app import routes
from cryptopulse.gateway.entrypoints.http.operations import Gate

NOBODY = "00000000-0000-4000-8000-000000000000"
ADMIN_SCOPES = frozenset({"*", "admin"})
OPS = [
    (item.spec.method, item.spec.path.replace("{provider}", "binance").replace("{user_id}", NOBODY))
    for item in OPERATIONS
]


@pytest_asyncio.fixture
async def inside(gateway: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The internal port of the gateway under test."""
    app = Runtime("gateway").app
    app.router.routes.extend(admin_routes(routes(OPERATIONS, Gate(gateway.use)), "0.1.0"))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://inside") as client:
        yield client


async def a_key(gateway: Any) -> dict[str, str]:
    """An API key of a caller who is an administrator: keys never are."""
    body = {"name": "bot", "scopes": ["alerts", "portfolio"]}
    answer = await gateway.http.post("/v1/api-keys", json=body, headers=gateway.token(scopes=ADMIN_SCOPES))
    return {"X-API-Key": answer.json()["key"]}


@pytest.mark.parametrize(("method", "path"), OPS)
async def test_every_operation_is_refused_to_all_but_administrators(
    gateway: Any, inside: httpx.AsyncClient, method: str, path: str
) -> None:
    refused = {
        "nobody": ({}, 401, "unauthenticated"),
        "a user": (gateway.token(), 403, "missing-scope"),
        "a user with everything else": (gateway.token(scopes=frozenset({"*"})), 403, "missing-scope"),
        "a key": (await a_key(gateway), 403, "login-required"),
    }
    for who, (headers, status, code) in refused.items():
        answer = await inside.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), who
    assert gateway.services.calls == []


@pytest.mark.parametrize(("method", "path"), OPS)
async def test_the_public_port_does_not_know_them(gateway: Any, method: str, path: str) -> None:
    answer = await gateway.http.request(method, path, headers=gateway.token(scopes=ADMIN_SCOPES))
    assert answer.status_code == 404
    assert path not in (await gateway.http.get("/v1/openapi.json")).text


async def test_no_key_can_be_given_the_scope(gateway: Any) -> None:
    body = {"name": "bot", "scopes": ["admin"]}
    answer = await gateway.http.post("/v1/api-keys", json=body, headers=gateway.token(scopes=ADMIN_SCOPES))
    assert answer.status_code in {403, 422}


async def test_users_by_page_without_their_secrets(gateway: Any, inside: httpx.AsyncClient) -> None:
    for name in ("ada", "bob", "eve"):
        body = {"email": f"{name}@example.org", "password": "correct horse battery"}
        assert (await gateway.http.post("/v1/auth/register", json=body)).status_code == 201
    headers = gateway.token(scopes=ADMIN_SCOPES)
    first = (await inside.get("/v1/admin/users?limit=2", headers=headers)).json()
    rest = (
        await inside.get(f"/v1/admin/users?limit=2&cursor={first['next_cursor']}", headers=headers)
    ).json()
    assert {row["email"][:3] for row in (*first["data"], *rest["data"])} == {"ada", "bob", "eve"}
    assert rest["next_cursor"] is None
    assert "argon2" not in str(first)
    refused = await inside.get("/v1/admin/users?cursor=x", headers=headers)
    assert refused.json()["code"] == "invalid-cursor"


async def test_an_administrators_login_carries_the_scope(gateway: Any, inside: httpx.AsyncClient) -> None:
    body = {"email": "root@example.org", "password": "correct horse battery"}
    await gateway.http.post("/v1/auth/register", json=body)
    seen = []
    for is_admin in (False, True):
        gateway.accounts.users = {
            ident: replace(user, is_admin=is_admin) for ident, user in gateway.accounts.users.items()
        }
        pair = (await gateway.http.post("/v1/auth/login", json=body)).json()
        headers = {"Authorization": f"Bearer {pair['access_token']}"}
        seen.append((await inside.get("/v1/admin/limits", headers=headers)).status_code)
    assert seen == [403, 200]


async def test_limits_feeds_and_dead_letters(gateway: Any, inside: httpx.AsyncClient) -> None:
    headers = gateway.token(scopes=ADMIN_SCOPES)
    limits = (await inside.get("/v1/admin/limits", headers=headers)).json()
    row = next(row for row in limits["data"] if (row["tier"], row["bucket"]) == ("anonymous", "reads"))
    assert (row["quota"], row["window_seconds"], row["burst"]) == (600, 60, 400)
    assert (await inside.get("/v1/admin/providers", headers=headers)).json() == {"data": []}
    found = (await inside.get("/v1/admin/dlq", headers=headers)).json()
    assert found == {"data": [{"queue": "alerts.candles.v1.dlq", "messages": 2}]}


async def test_a_feed_is_paused_and_resumed(gateway: Any, inside: httpx.AsyncClient) -> None:
    headers = gateway.token(scopes=ADMIN_SCOPES)
    gateway.services.says("ingestor", "POST", "/feeds/binance/pause", {"venue": "binance", "paused": True})
    answer = await inside.post("/v1/admin/providers/binance/pause", headers=headers)
    assert answer.json() == {"venue": "binance", "paused": True}


async def test_the_document_names_every_route(inside: httpx.AsyncClient) -> None:
    document = (await inside.get(DOCUMENT)).json()
    listed = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert listed == {(item.spec.method, item.spec.path) for item in OPERATIONS}
