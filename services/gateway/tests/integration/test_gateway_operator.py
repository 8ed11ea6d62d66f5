"""The operator's commands as processes against a running gateway: rights and keys end at once, nothing secret is shown."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

FORM = {"email": "ada@example.org", "password": "correct horse battery"}


async def command(gateway: Any, *arguments: str) -> tuple[int, str]:
    """`python -m cryptopulse.gateway ...` with the settings of the running one; its exit code and what it says."""
    settings = gateway.settings
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cryptopulse.gateway", *arguments,
        env={
            "PATH": "/usr/bin:/bin",
            "RABBITMQ_URL": settings.rabbitmq_url.get_secret_value(),
            "REDIS_URL": settings.redis_url.get_secret_value(),
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "JWT_SECRET": settings.jwt_secret.get_secret_value(),
            "INTERNAL_JWT_SECRET": settings.internal_jwt_secret.get_secret_value(),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_an_operator_administers_users_and_keys(gateway: Any) -> None:
    http = gateway.http
    await http.post("/v1/auth/register", json=FORM)
    pair = (await http.post("/v1/auth/login", json=FORM)).json()
    mine = {"Authorization": f"Bearer {pair['access_token']}"}
    made = await http.post("/v1/api-keys", json={"name": "bot", "scopes": ["market:read"]}, headers=mine)
    assert made.status_code == 201, made.text
    secret = made.json()["key"]
    hers = {"X-API-Key": secret}
    assert (await http.get("/v1/me", headers=mine)).status_code == 200

    code, text = await command(gateway, "users", "list")
    assert (code, json.loads(text)["email"]) == (0, FORM["email"])
    assert "argon2" not in text
    code, text = await command(gateway, "users", "grant-admin", FORM["email"])
    assert (code, json.loads(text)["is_admin"]) == (0, True)
    code, text = await command(gateway, "keys", "list", FORM["email"])
    key = json.loads(text)
    assert (code, key["name"]) == (0, "bot")
    assert secret not in text
    assert "hash" not in key

    assert (await http.get("/v1/prices/BTC", headers=hers)).status_code != 401
    code, text = await command(gateway, "keys", "revoke", key["id"])
    assert code == 0, text
    await asyncio.sleep(1.5)
    assert (await http.get("/v1/prices/BTC", headers=hers)).status_code == 401
    code, text = await command(gateway, "keys", "revoke", key["id"])
    assert (code, "no key" in text) == (1, True)

    code, text = await command(gateway, "users", "revoke-admin", FORM["email"])
    assert (code, json.loads(text)["is_admin"]) == (0, False)
    await asyncio.sleep(1.5)
    assert (await http.get("/v1/me", headers=mine)).status_code == 401
    code, text = await command(gateway, "users", "end-sessions", "nobody@example.org")
    assert (code, "nobody has the address" in text) == (1, True)
    assert (await command(gateway, "users", "--help"))[0] == 0
    assert (await command(gateway, "users", "destroy"))[0] == 2
