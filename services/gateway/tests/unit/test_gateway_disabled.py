"""Users whom an operator keeps out: each way in refuses them, nothing tells of it to who has proven nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from cryptopulse.common.runtime import Runtime
from cryptopulse.gateway.application.accounts import Device
from cryptopulse.gateway.entrypoints.http.admin import OPERATIONS, admin_routes
from cryptopulse.gateway.entrypoints.http.app import routes
from cryptopulse.gateway.entrypoints.http.operations import Gate

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
FORM = {"email": EMAIL, "password": PASSWORD}


class Ada:
    """A user with a session, a key and an administrator who deals with her."""

    def __init__(self, gateway: Any, inside: httpx.AsyncClient, operator: dict[str, str]) -> None:
        self.gateway = gateway
        self.inside = inside
        self.operator = operator

    async def enter(self) -> None:
        """Sign up, log in, make a key."""
        http = self.gateway.http
        self.id = (await http.post("/v1/auth/register", json=FORM)).json()["id"]
        self.pair = (await http.post("/v1/auth/login", json=FORM)).json()
        self.session = {"Authorization": f"Bearer {self.pair['access_token']}"}
        made = await http.post(
            "/v1/api-keys", json={"name": "bot", "scopes": ["market:read"]}, headers=self.session
        )
        self.key = {"X-API-Key": made.json()["key"]}

    async def is_told(self, verb: str) -> httpx.Response:
        """What the administrator is answered."""
        return await self.inside.post(f"/v1/admin/users/{self.id}/{verb}", headers=self.operator)

    async def post(self, path: str, **body: str) -> tuple[int, str]:
        """Status and code of a call without credentials."""
        return _told(await self.gateway.http.post(f"/v1/auth/{path}", json=body))

    async def get(self, headers: dict[str, str], path: str = "/v1/time") -> tuple[int, str]:
        """Status and code of a call with credentials."""
        return _told(await self.gateway.http.get(path, headers=headers))


def _told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "") if answer.status_code >= 400 else ""


@pytest_asyncio.fixture
async def ada(gateway: Any) -> AsyncIterator[Ada]:
    app = Runtime("gateway").app
    app.router.routes.extend(admin_routes(routes(OPERATIONS, Gate(gateway.use)), "0.1.0"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://inside") as inside:
        user = Ada(gateway, inside, gateway.token(scopes=frozenset({"*", "admin"})))
        await user.enter()
        yield user


async def test_every_way_in_is_closed_and_opens_again(ada: Ada) -> None:
    assert (await ada.get(ada.session))[0] == (await ada.get(ada.key))[0] == 200
    answer = await ada.is_told("disable")
    assert answer.status_code == 200
    assert answer.json()["disabled_at"] is not None
    assert await ada.get(ada.session) == (401, "revoked")
    for _ in range(2):
        assert await ada.get(ada.key) == (403, "account-disabled")
    assert await ada.post("login", **FORM) == (403, "account-disabled")
    refused = await ada.post("refresh", refresh_token=ada.pair["refresh_token"])
    assert refused == (401, "invalid-refresh-token")

    assert (await ada.is_told("enable")).json()["disabled_at"] is None
    assert (await ada.get(ada.key))[0] == 200
    assert await ada.get(ada.session) == (401, "revoked")
    pair = (await ada.gateway.http.post("/v1/auth/login", json=FORM)).json()
    assert (await ada.get({"Authorization": f"Bearer {pair['access_token']}"}))[0] == 200


async def test_only_the_right_password_is_told_of_it(ada: Ada) -> None:
    wrong = {"email": EMAIL, "password": "wrong password"}
    before = await ada.gateway.http.post("/v1/auth/login", json=wrong)
    await ada.is_told("disable")
    times: dict[str, list[float]] = {PASSWORD: [], "wrong password": []}
    for _ in range(4):
        for password, taken in times.items():
            started = time.perf_counter()
            answer = await ada.gateway.http.post(
                "/v1/auth/login", json={"email": EMAIL, "password": password}
            )
            taken.append(time.perf_counter() - started)
            if password != PASSWORD:
                same = ("status", "code", "detail", "title", "type")
                assert [answer.json()[name] for name in same] == [before.json()[name] for name in same]
    # The password is verified either way; what differs is no more than noise.
    assert statistics.median(times["wrong password"]) < 3 * statistics.median(times[PASSWORD])
    assert statistics.median(times[PASSWORD]) < 3 * statistics.median(times["wrong password"])


async def test_a_locked_account_that_is_disabled_looks_locked(ada: Ada) -> None:
    await ada.is_told("disable")
    ada.gateway.limits._table["anonymous", "account"] = ada.gateway.limits.of("enterprise", "writes")
    for _ in range(10):
        await ada.post("login", email=EMAIL, password="wrong password")
    assert await ada.post("login", **FORM) == (401, "wrong-credentials")
    ada.gateway.clock.advance(61)
    assert await ada.post("login", **FORM) == (403, "account-disabled")


async def test_a_reset_is_no_way_round(ada: Ada) -> None:
    await ada.post("password/forgot", email=EMAIL)
    token, mails = ada.gateway.mailer.token, len(ada.gateway.mailer.sent)
    await ada.is_told("disable")
    stored = ada.gateway.accounts.users[ada.id].password_hash
    assert (await ada.post("password/forgot", email=EMAIL))[0] == 202
    assert len(ada.gateway.mailer.sent) == mails
    assert await ada.post("password/reset", token=token, password="another long one") == (
        403,
        "account-disabled",
    )
    assert ada.gateway.accounts.users[ada.id].password_hash == stored


async def test_a_login_that_raced_with_it_gains_nothing(ada: Ada) -> None:
    await ada.is_told("disable")
    user = ada.gateway.accounts.users[ada.id]
    raced = await ada.gateway.use.accounts._open_session(
        user, Device("a phone", "192.0.2.1"), ada.gateway.use.accounts._now()
    )
    access = {"Authorization": f"Bearer {raced.access_token}"}
    assert await ada.get(access) == (401, "revoked")
    assert await ada.post("refresh", refresh_token=raced.refresh_token) == (403, "account-disabled")
    await ada.is_told("enable")
    assert await ada.get(access) == (401, "revoked")
    assert await ada.post("refresh", refresh_token=raced.refresh_token) == (401, "invalid-refresh-token")


@pytest.mark.parametrize("credential", ["session", "key"])
async def test_open_sockets_close(ada: Ada, credential: str) -> None:
    headers = getattr(ada, credential)
    async with ada.gateway.ws(additional_headers=headers) as ws:
        await ws.recv()
        await ada.is_told("disable")
        await ws.wait_closed()
        assert ws.close_code == 4001


async def test_a_socket_whose_right_ends_while_it_opens_is_closed(
    ada: Ada, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = ada.gateway.use.limits.count

    async def slowly(*arguments: Any) -> Any:
        await ada.is_told("disable")
        return await count(*arguments)

    monkeypatch.setattr(ada.gateway.use.limits, "count", slowly)
    async with ada.gateway.ws(additional_headers=ada.session) as ws:
        await ws.wait_closed()
        assert ws.close_code == 4001
    assert not ada.gateway.hub.connections


async def test_nobody_disables_himself_nor_whom_nobody_knows(ada: Ada) -> None:
    ada.operator = ada.gateway.token(ada.id, scopes=frozenset({"*", "admin"}))
    assert _told(await ada.is_told("disable")) == (409, "own-account")
    for ident in ("00000000-0000-4000-8000-000000000000", "binance"):
        answer = await ada.inside.post(f"/v1/admin/users/{ident}/disable", headers=ada.operator)
        assert answer.status_code == 404


async def test_disabling_twice_keeps_the_first_time(ada: Ada) -> None:
    first = (await ada.is_told("disable")).json()["disabled_at"]
    ada.gateway.clock.advance(60)
    assert (await ada.is_told("disable")).json()["disabled_at"] == first
