"""The operator's commands beside a running gateway: rights and keys end at once, nothing secret is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cryptopulse.common.cache import keys
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.runtime.command import main
from cryptopulse.gateway import bootstrap
from cryptopulse.gateway.adapters.revocations import RedisRevocations
from cryptopulse.gateway.entrypoints.operator import tools
from cryptopulse.gateway.settings import Settings

FORM = {"email": "ada@example.org", "password": "correct horse battery"}


async def until(check: Callable[[], bool | Awaitable[bool]], seconds: float = 5) -> None:
    for _ in range(int(seconds / 0.05)):
        found = check()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("did not happen in time")


@pytest.fixture
def command(
    gateway: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[tuple[int, str]]]:
    """`python -m cryptopulse.gateway ...` with the settings of the running one; its exit code and what it says."""
    settings = gateway.settings
    for name in ("rabbitmq_url", "redis_url", "database_url", "jwt_secret", "internal_jwt_secret"):
        monkeypatch.setenv(name.upper(), getattr(settings, name).get_secret_value())

    async def told(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        found = tools(bootstrap.administration)
        code = await asyncio.to_thread(main, Settings, bootstrap.build, tools=found, argv=arguments)
        said = capsys.readouterr()
        return code, said.out + said.err

    return told


async def test_an_operator_administers_users_and_keys(
    gateway: Any, command: Callable[..., Awaitable[tuple[int, str]]]
) -> None:
    http = gateway.http
    await http.post("/v1/auth/register", json=FORM)
    pair = (await http.post("/v1/auth/login", json=FORM)).json()
    mine = {"Authorization": f"Bearer {pair['access_token']}"}
    made = await http.post("/v1/api-keys", json={"name": "bot", "scopes": ["market:read"]}, headers=mine)
    assert made.status_code == 201, made.text
    secret = made.json()["key"]
    hers = {"X-API-Key": secret}
    assert (await http.get("/v1/me", headers=mine)).status_code == 200

    code, text = await command("users", "list")
    assert (code, json.loads(text)["email"]) == (0, FORM["email"])
    assert "argon2" not in text
    code, text = await command("users", "grant-admin", FORM["email"])
    assert (code, json.loads(text)["is_admin"]) == (0, True)
    code, text = await command("keys", "list", FORM["email"])
    key = json.loads(text)
    assert (code, key["name"]) == (0, "bot")
    assert secret not in text
    assert "hash" not in key

    assert (await http.get("/v1/prices/BTC", headers=hers)).status_code != 401
    code, text = await command("keys", "revoke", key["id"])
    assert code == 0, text
    await asyncio.sleep(1.5)
    assert (await http.get("/v1/prices/BTC", headers=hers)).status_code == 401
    code, text = await command("keys", "revoke", key["id"])
    assert (code, "no key" in text) == (1, True)

    code, text = await command("users", "revoke-admin", FORM["email"])
    assert (code, json.loads(text)["is_admin"]) == (0, False)
    await asyncio.sleep(1.5)
    assert (await http.get("/v1/me", headers=mine)).status_code == 401
    code, text = await command("users", "end-sessions", "nobody@example.org")
    assert (code, "nobody has the address" in text) == (1, True)
    assert (await command("users", "--help"))[0] == 0
    assert (await command("users", "destroy"))[0] == 2


async def test_a_disabled_user_is_out_of_every_gateway_until_he_is_enabled(
    gateway: Any, command: Callable[..., Awaitable[tuple[int, str]]]
) -> None:
    http = gateway.http
    ident = (await http.post("/v1/auth/register", json=FORM)).json()["id"]
    pair = (await http.post("/v1/auth/login", json=FORM)).json()
    session = {"Authorization": f"Bearer {pair['access_token']}"}
    made = await http.post("/v1/api-keys", json={"name": "bot", "scopes": ["market:read"]}, headers=session)
    key = {"X-API-Key": made.json()["key"]}
    elsewhere = RedisRevocations(gateway.redis, SystemClock())
    following = asyncio.create_task(elsewhere.run(lambda: None))

    async def answered(headers: dict[str, str], status: int, code: str) -> bool:
        answer = await http.get("/v1/time", headers=headers)
        return (answer.status_code, answer.json().get("code", "")) == (status, code)

    assert await answered(session, 200, "")
    assert await answered(key, 200, "")
    async with (
        connect(f"ws://{gateway.url}/v1/ws", additional_headers=session, proxy=None) as by_session,
        connect(f"ws://{gateway.url}/v1/ws", additional_headers=key, proxy=None) as by_key,
    ):
        code, text = await command("users", "disable", FORM["email"])
        assert (code, json.loads(text)["disabled_at"] is not None) == (0, True)
        await asyncio.wait_for(asyncio.gather(by_session.wait_closed(), by_key.wait_closed()), 5)
        assert (by_session.close_code, by_key.close_code) == (4001, 4001)
    await until(lambda: elsewhere.is_revoked(f"user:{ident}"))
    assert await answered(session, 401, "revoked")
    assert await answered(key, 403, "account-disabled")
    refused = await http.post("/v1/auth/login", json=FORM)
    assert (refused.status_code, refused.json()["code"]) == (403, "account-disabled")
    assert refused.headers["content-type"] == "application/problem+json"
    refused = await http.post("/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
    assert refused.status_code == 401

    code, text = await command("users", "enable", FORM["email"])
    assert (code, json.loads(text)["disabled_at"]) == (0, None)
    await until(lambda: answered(key, 200, ""), 5)
    assert await answered(session, 401, "revoked")
    assert (await http.post("/v1/auth/login", json=FORM)).status_code == 200
    await until(lambda: not elsewhere.is_revoked(f"user:{ident}"))
    following.cancel()


async def test_a_gateway_that_was_away_learns_who_may_come_in_again(gateway: Any) -> None:
    here, there = (RedisRevocations(gateway.redis, SystemClock()) for _ in range(2))
    await here.revoke(["user:ada", "session-1"])
    first = asyncio.create_task(there.run(lambda: None))
    await until(lambda: there.is_revoked("user:ada"))
    first.cancel()
    await here.restore(["user:ada"])
    again = asyncio.create_task(there.run(lambda: None))
    await until(lambda: not there.is_revoked("user:ada"))
    assert there.is_revoked("session-1")
    await here.revoke(["user:ada"])
    await until(lambda: there.is_revoked("user:ada"))
    assert set(await gateway.redis.zrange(keys.REVOCATIONS, 0, -1)) == {b"user:ada", b"session-1"}
    late = RedisRevocations(gateway.redis, SystemClock())
    third = asyncio.create_task(late.run(lambda: None))
    await until(lambda: late.is_revoked("user:ada"))
    again.cancel()
    third.cancel()
