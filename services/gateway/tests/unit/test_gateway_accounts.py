"""Accounts and API keys: refusals first, then rotation, reuse, locks, sessions, keys with scopes and overlap."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cryptopulse.common.errors import LimitExceeded
from cryptopulse.gateway.adapters.passwords import WAITING_MAX, Argon2Passwords

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"


async def sign_up(gateway: Any, email: str = EMAIL) -> dict[str, Any]:
    answer = await gateway.http.post("/v1/auth/register", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def log_in(gateway: Any, email: str = EMAIL, password: str = PASSWORD) -> Any:
    return await gateway.http.post("/v1/auth/login", json={"email": email, "password": password})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("nonsense", PASSWORD), ("a@b", PASSWORD), (EMAIL, "short"), (EMAIL, "x" * 129), (EMAIL, "password123"),
        (EMAIL, "aaaaaaaaaa"), (EMAIL, EMAIL),
    ],
)  # fmt: skip
async def test_bad_sign_ups_name_the_field(gateway: Any, email: str, password: str) -> None:
    answer = await gateway.http.post("/v1/auth/register", json={"email": email, "password": password})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] in {"/email", "/password"}
    assert password not in answer.text or len(password) < 6


async def test_sign_up_log_in_and_read_the_account(gateway: Any) -> None:
    account = await sign_up(gateway, "Ada@Example.org")
    assert account["email"] == EMAIL
    assert account["email_verified"] is False
    assert "password" not in str(account)
    assert (
        await gateway.http.post("/v1/auth/register", json={"email": EMAIL, "password": PASSWORD})
    ).status_code == 409
    body = (await log_in(gateway, "ADA@example.org")).json()
    assert body.keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (body["token_type"], body["expires_in"]) == ("bearer", 600)
    me = await gateway.http.get("/v1/me", headers=bearer(body["access_token"]))
    assert me.json()["id"] == account["id"]
    assert me.headers["cache-control"] == "no-store"


async def test_the_mailed_token_proves_the_address_once(gateway: Any) -> None:
    account = await sign_up(gateway)
    token = gateway.mailer.token
    assert (await gateway.http.post("/v1/auth/verify-email", json={"token": token})).status_code == 204
    assert gateway.accounts.users[account["id"]].verified_at is not None
    assert (await gateway.http.post("/v1/auth/verify-email", json={"token": token})).status_code == 422


async def test_unknown_user_and_wrong_password_look_and_cost_the_same(
    gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for an unknown account waits for a hash as long: the same work is done, with the same parameters."""
    await sign_up(gateway)
    compared: list[str] = []
    verify = gateway.passwords._hasher.verify

    def counted(stored: str, password: str) -> bool:
        compared.append(stored.rsplit("$", 2)[0])
        return bool(verify(stored, password))

    monkeypatch.setattr(gateway.passwords, "_hasher", SimpleNamespace(verify=counted))
    answers = [await log_in(gateway, email, "wrong password") for email in (EMAIL, "nobody@example.org")]
    assert {answer.status_code for answer in answers} == {401}
    assert len({(answer.json()["code"], answer.json()["detail"]) for answer in answers}) == 1
    assert len(compared) == 2
    assert len(set(compared)) == 1


async def test_more_hashes_than_can_wait_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Argon2Passwords(threads=1, memory_kib=64, passes=1)
    held = threading.Event()
    monkeypatch.setattr(passwords, "_verify", lambda *_: "no" if held.wait(20) else "late")
    waiting = [asyncio.create_task(passwords.verify(None, "a password")) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded) as refused:
        await passwords.verify(None, "one more")
    assert refused.value.code == "login-busy"
    held.set()
    assert await asyncio.gather(*waiting) == [False] * WAITING_MAX
    passwords.close()


async def test_ten_wrong_passwords_lock_the_account_for_a_while(gateway: Any) -> None:
    await sign_up(gateway)
    gateway.limits._table["anonymous", "account"] = gateway.limits.of("enterprise", "writes")
    for _ in range(10):
        assert (await log_in(gateway, password="wrong password")).status_code == 401
    assert (await log_in(gateway)).status_code == 401
    gateway.clock.advance(61)
    assert (await log_in(gateway)).status_code == 200


async def test_tries_at_one_account_are_limited_from_everywhere(gateway: Any) -> None:
    await sign_up(gateway)
    codes = [(await log_in(gateway, password="wrong password")).status_code for _ in range(11)]
    assert codes[-1] == 429


async def test_refresh_rotates_and_racing_tabs_get_the_same_successor(gateway: Any) -> None:
    await sign_up(gateway)
    first = (await log_in(gateway)).json()["refresh_token"]
    one = await gateway.http.post("/v1/auth/refresh", json={"refresh_token": first})
    two = await gateway.http.post("/v1/auth/refresh", json={"refresh_token": first})
    assert one.status_code == two.status_code == 200
    assert one.json()["refresh_token"] == two.json()["refresh_token"] != first
    following = await gateway.http.post(
        "/v1/auth/refresh", json={"refresh_token": one.json()["refresh_token"]}
    )
    assert following.status_code == 200


async def test_a_spent_refresh_token_ends_the_whole_session(gateway: Any) -> None:
    await sign_up(gateway)
    pair = (await log_in(gateway)).json()
    following = (
        await gateway.http.post("/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
    ).json()
    gateway.clock.advance(11)
    stolen = await gateway.http.post("/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
    assert (stolen.status_code, stolen.json()["code"]) == (401, "refresh-reuse")
    after = await gateway.http.post("/v1/auth/refresh", json={"refresh_token": following["refresh_token"]})
    assert after.status_code == 401
    assert (await gateway.http.get("/v1/me", headers=bearer(following["access_token"]))).status_code == 401


async def test_an_access_token_is_no_refresh_token_and_the_other_way_round(gateway: Any) -> None:
    await sign_up(gateway)
    pair = (await log_in(gateway)).json()
    wrong = await gateway.http.post(
        "/v1/auth/refresh", json={"refresh_token": pair["access_token"][:150].replace(".", "_")}
    )
    assert wrong.status_code == 401
    assert (await gateway.http.get("/v1/me", headers=bearer(pair["refresh_token"]))).status_code == 401


async def test_logout_ends_the_session_at_once(gateway: Any) -> None:
    await sign_up(gateway)
    pair = (await log_in(gateway)).json()
    assert (await gateway.http.get("/v1/me", headers=bearer(pair["access_token"]))).status_code == 200
    for _ in range(2):
        answer = await gateway.http.post("/v1/auth/logout", json={"refresh_token": pair["refresh_token"]})
        assert answer.status_code == 204
    assert (await gateway.http.get("/v1/me", headers=bearer(pair["access_token"]))).status_code == 401


async def test_sessions_are_listed_and_ended_by_their_owner_only(gateway: Any) -> None:
    await sign_up(gateway)
    await sign_up(gateway, "bob@example.org")
    one, two = (await log_in(gateway)).json(), (await log_in(gateway)).json()
    bob = (await log_in(gateway, "bob@example.org")).json()
    rows = (await gateway.http.get("/v1/auth/sessions", headers=bearer(one["access_token"]))).json()["data"]
    assert len(rows) == 2
    assert [row["current"] for row in rows].count(True) == 1
    other = next(row for row in rows if not row["current"])
    path = f"/v1/auth/sessions/{other['id']}"
    assert (await gateway.http.delete(path, headers=bearer(bob["access_token"]))).status_code == 404
    assert (await gateway.http.delete(path, headers=bearer(one["access_token"]))).status_code == 204
    assert (await gateway.http.get("/v1/me", headers=bearer(two["access_token"]))).status_code == 401
    everything = await gateway.http.post("/v1/auth/logout-all", headers=bearer(one["access_token"]))
    assert everything.json() == {"ended": 1}
    assert (await gateway.http.get("/v1/me", headers=bearer(one["access_token"]))).status_code == 401


async def test_a_changed_password_ends_the_other_sessions(gateway: Any) -> None:
    await sign_up(gateway)
    here, there = (await log_in(gateway)).json(), (await log_in(gateway)).json()
    change = {"old_password": "wrong password", "new_password": "another long secret"}
    headers = bearer(here["access_token"])
    assert (
        await gateway.http.post("/v1/auth/password/change", json=change, headers=headers)
    ).status_code == 401
    change["old_password"] = PASSWORD
    assert (
        await gateway.http.post("/v1/auth/password/change", json=change, headers=headers)
    ).status_code == 204
    assert (await gateway.http.get("/v1/me", headers=headers)).status_code == 200
    assert (await gateway.http.get("/v1/me", headers=bearer(there["access_token"]))).status_code == 401
    assert (await log_in(gateway, password="another long secret")).status_code == 200


async def test_forgotten_passwords_are_reset_by_mail_and_nothing_tells_who_exists(gateway: Any) -> None:
    await sign_up(gateway)
    pair = (await log_in(gateway)).json()
    known = await gateway.http.post("/v1/auth/password/forgot", json={"email": EMAIL})
    unknown = await gateway.http.post("/v1/auth/password/forgot", json={"email": "nobody@example.org"})
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
    form = {"token": gateway.mailer.token, "password": "another long secret"}
    assert (await gateway.http.post("/v1/auth/password/reset", json=form)).status_code == 204
    assert (await gateway.http.post("/v1/auth/password/reset", json=form)).status_code == 422
    assert (await gateway.http.get("/v1/me", headers=bearer(pair["access_token"]))).status_code == 401
    assert (await log_in(gateway, password="another long secret")).status_code == 200


async def test_an_account_is_deleted_with_its_password_only(gateway: Any) -> None:
    await sign_up(gateway)
    pair = (await log_in(gateway)).json()
    headers = bearer(pair["access_token"])
    assert (
        await gateway.http.post("/v1/me/delete", json={"password": "wrong"}, headers=headers)
    ).status_code == 401
    assert (
        await gateway.http.post("/v1/me/delete", json={"password": PASSWORD}, headers=headers)
    ).status_code == 204
    assert (await gateway.http.get("/v1/me", headers=headers)).status_code == 401
    assert (await log_in(gateway)).status_code == 401


async def make_key(gateway: Any, **more: Any) -> Any:
    body = {"name": "bot", "scopes": ["alerts:read"], **more}
    return await gateway.http.post("/v1/api-keys", json=body, headers=gateway.token("ada"))


async def test_a_key_works_within_its_scopes_and_is_shown_once(gateway: Any) -> None:
    gateway.services.says("alerts", "GET", "/alerts", {"data": [], "next_cursor": None})
    made = (await make_key(gateway)).json()
    assert made["key"].startswith(made["prefix"])
    for headers in ({"X-API-Key": made["key"]}, bearer(made["key"])):
        assert (await gateway.http.get("/v1/alerts", headers=headers)).status_code == 200
    assert gateway.services.calls[-1]["identity"].user_id == "ada"
    assert (await gateway.http.get("/v1/portfolios", headers={"X-API-Key": made["key"]})).status_code == 403
    listed = (await gateway.http.get("/v1/api-keys", headers=gateway.token("ada"))).json()
    assert made["key"] not in str(listed)
    assert listed["data"][0]["last_used_at"] is not None


async def test_keys_cannot_manage_keys_nor_grant_what_is_not_held(gateway: Any) -> None:
    made = (await make_key(gateway)).json()
    by_key = await gateway.http.post(
        "/v1/api-keys", json={"name": "x", "scopes": ["alerts:read"]}, headers={"X-API-Key": made["key"]}
    )
    assert by_key.status_code == 403
    for scope in ("admin", "*", "nonsense"):
        assert (await make_key(gateway, scopes=[scope])).status_code == 422
    narrow = gateway.token("ada", scopes=frozenset({"alerts:read"}))
    wide = await gateway.http.post(
        "/v1/api-keys", json={"name": "x", "scopes": ["portfolio"]}, headers=narrow
    )
    assert wide.status_code == 422


async def test_damaged_keys_never_reach_the_store(gateway: Any) -> None:
    made = (await make_key(gateway)).json()
    key = made["key"]
    damaged = key[:-7] + ("a" if key[-7] != "a" else "b") + key[-6:]
    for text in (damaged, key[:-1], key.upper(), "cp_live_"):
        answer = await gateway.http.get("/v1/alerts", headers={"X-API-Key": text})
        assert (
            (answer.status_code, answer.json()["code"]) == (401, "invalid-key")
            if text != key.upper()
            else (401, answer.json()["code"])
        )
    assert gateway.keys.lookups == 0


async def test_a_key_ends_when_deleted_expired_or_elsewhere(gateway: Any) -> None:
    gateway.services.says("alerts", "GET", "/alerts", {"data": [], "next_cursor": None})
    made = (await make_key(gateway)).json()
    header = {"X-API-Key": made["key"]}
    assert (await gateway.http.get("/v1/alerts", headers=header)).status_code == 200
    path = f"/v1/api-keys/{made['id']}"
    assert (await gateway.http.delete(path, headers=gateway.token("bob"))).status_code == 404
    assert (await gateway.http.delete(path, headers=gateway.token("ada"))).status_code == 204
    assert (await gateway.http.get("/v1/alerts", headers=header)).status_code == 401
    elsewhere = (await make_key(gateway, addresses=["203.0.113.0/24"])).json()
    refused = await gateway.http.get("/v1/alerts", headers={"X-API-Key": elsewhere["key"]})
    assert (refused.status_code, refused.json()["code"]) == (403, "address-not-allowed")
    past = await make_key(gateway, expires_at="2020-01-01T00:00:00Z")
    assert past.status_code == 422


async def test_a_key_bound_to_addresses_opens_no_socket_from_elsewhere(gateway: Any, listen: Any) -> None:
    here = (await make_key(gateway, addresses=["127.0.0.0/8", "2001:db8::/32"])).json()["key"]
    elsewhere = (await make_key(gateway, addresses=["2001:db8::/32"])).json()["key"]
    async with gateway.ws() as ws:
        await ws.send(json.dumps({"op": "auth", "id": 1, "token": here}))
        assert (await listen(ws, "ack"))["authenticated"] is True
    async with gateway.ws() as ws:
        await ws.send(json.dumps({"op": "auth", "id": 1, "token": elsewhere}))
        refused = await listen(ws, "error")
        assert (refused["code"], "address" in refused["detail"]) == ("invalid_token", True)
        await ws.wait_closed()
        assert ws.close_code == 4500


async def test_a_rotated_key_overlaps_with_its_successor(gateway: Any) -> None:
    gateway.services.says("alerts", "GET", "/alerts", {"data": [], "next_cursor": None})
    old = (await make_key(gateway)).json()
    path = f"/v1/api-keys/{old['id']}/rotate"
    new = (await gateway.http.post(path, json={"overlap_seconds": 60}, headers=gateway.token("ada"))).json()
    assert new["replaces"] == old["id"]
    for key in (old["key"], new["key"]):
        assert (await gateway.http.get("/v1/alerts", headers={"X-API-Key": key})).status_code == 200
    gateway.clock.advance(120)
    assert (await gateway.http.get("/v1/alerts", headers={"X-API-Key": old["key"]})).status_code == 401
    assert (await gateway.http.get("/v1/alerts", headers={"X-API-Key": new["key"]})).status_code == 200


async def test_keys_are_paged_by_cursors_that_belong_to_their_owner(gateway: Any) -> None:
    for _ in range(3):
        await make_key(gateway)
    first = (await gateway.http.get("/v1/api-keys?limit=2", headers=gateway.token("ada"))).json()
    assert len(first["data"]) == 2
    query = {"limit": "2", "cursor": first["next_cursor"]}
    rest = (await gateway.http.get("/v1/api-keys", params=query, headers=gateway.token("ada"))).json()
    assert len(rest["data"]) == 1
    assert rest["next_cursor"] is None
    stolen = await gateway.http.get("/v1/api-keys", params=query, headers=gateway.token("bob"))
    assert stolen.json()["code"] == "invalid-cursor"
