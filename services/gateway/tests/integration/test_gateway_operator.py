"""The operator's commands beside a running gateway: rights and keys end at once, nothing secret is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cryptopulse.common.runtime.command import main
from cryptopulse.gateway import bootstrap
from cryptopulse.gateway.entrypoints.operator import tools
from cryptopulse.gateway.settings import Settings

FORM = {"email": "ada@example.org", "password": "correct horse battery"}


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
