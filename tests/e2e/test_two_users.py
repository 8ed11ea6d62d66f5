"""Two users over every operation of the document that names something of somebody's: what is another's is not there.

Generated from the OpenAPI document of the running system: an operation with a kind of id that is not known here fails.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import websockets

from tools.harness.receiver import Receiver
from tools.harness.system import System

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLIC = {"symbol", "name", "coin_id"}
"""Ids that belong to nobody."""
BUY = {"type": "buy", "asset": "BTC", "quantity": "1", "price": "100", "timestamp": "2024-01-01T00:00:00Z"}
SEED_BUY = {
    "coin_id": "bitcoin", "coin_name": "Bitcoin", "coin_symbol": "btc", "amount": 1, "price_usd": 100,
    "transaction_type": "buy",
}  # fmt: skip
BODIES: dict[tuple[str, str], Any] = {
    ("post", "transactions"): BUY,
    ("patch", "transaction_id"): {"note": "mine now"},
    ("patch", "alert_id"): {"note": "mine now"},
    ("post", "snooze"): {"seconds": 60},
    ("patch", "key_id"): {"name": "mine now"},
    ("post", "rotate"): {},
    ("patch", "portfolio_id"): {"name": "mine now"},
    ("patch", "webhook_id"): {"description": "mine now"},
    ("post", "rotate-secret"): {},
}
FILE = "timestamp,type,asset,quantity,price,currency,counter_asset,fee,fee_asset,account\n"
LONG_FILE = FILE + "2024-01-01T00:00:00Z,buy,BTC,1,100,USD,,,,main\n" * 6_000
CONDITION = {"type": "price_above", "value": "1000000000"}


@dataclass
class User:
    """Someone with one of everything; `ids` by the parameter's name in the document."""

    client: httpx.AsyncClient
    headers: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request with the user's credential."""
        kind = {"content-type": "text/csv"} if "content" in options else {}
        return await self.client.request(method, path, headers=self.headers | kind, **options)

    async def made(self, path: str, body: Any = None, *, status: int = 201) -> dict[str, Any]:
        """What a POST made."""
        answer = await self.call("POST", path, json=body)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def with_everything(system: System, email: str, hook: str) -> User:
    """A user who owns one of each kind of thing."""
    user = User(system.client, await system.login(email))
    portfolio = str((await user.made("/v1/portfolios", {"name": "mine"}))["id"])
    transaction = str((await user.made(f"/v1/portfolios/{portfolio}/transactions", BUY))["id"])
    job = await user.call(
        "POST",
        f"/v1/portfolios/{portfolio}/transactions/import",
        content=LONG_FILE,
        params={"commit": "false"},
    )
    assert job.status_code == 202, job.text
    webhook = (await user.made("/v1/webhooks", {"url": hook}))["id"]
    rule = {"symbol": "BTC-USDT", "condition": CONDITION, "webhook_ids": [webhook]}
    alert = (await user.made("/v1/alerts", rule))["id"]
    answer = await user.call("POST", f"/v1/alerts/{alert}/test")
    assert answer.is_success, answer.text
    delivery = (await user.call("GET", f"/v1/webhooks/{webhook}/deliveries")).json()["data"][0]["id"]
    user.ids = {
        "portfolio_id": portfolio,
        "transaction_id": transaction,
        "job_id": str(job.json()["id"]),
        "webhook_id": webhook,
        "alert_id": alert,
        "event_id": answer.json()["id"],
        "delivery_id": delivery,
        "key_id": str(
            (await user.made("/v1/api-keys", {"name": "mine", "scopes": ["portfolio:read"]}))["id"]
        ),
        "session_id": (await user.call("GET", "/v1/auth/sessions")).json()["data"][0]["id"],
    }
    return user


def another(identifier: str) -> str:
    """An id of the same shape that nobody has."""
    if identifier.isdigit():
        return str(int(identifier) + 10**9)
    return identifier[:-6] + "f0f0f0"


def owned_operations(document: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """(method, path, names of the ids in it) of all operations with an id of somebody's."""
    found = []
    for path, item in document["paths"].items():
        names = [name for name in re.findall(r"{(\w+)}", path) if name not in PUBLIC]
        found += [(method, path, names) for method in item if names]
    return found


def body_of(method: str, path: str) -> Any:
    """A good body, so that nothing but the id is wrong."""
    if path.startswith("/api/") and method == "post":
        return SEED_BUY
    return BODIES.get((method, path.rstrip("/").rpartition("/")[2].strip("{}")))


async def tried(user: User, method: str, path: str, ids: dict[str, str]) -> tuple[int, str]:
    """The status and the body, without what tells one request from the other."""
    options: dict[str, Any] = (
        {"params": {"since": "2024-01-01T00:00:00Z"}} if path.endswith("/replay") else {}
    )
    if path.endswith("/import"):
        options["content"] = FILE
    elif (body := body_of(method, path)) is not None:
        options["json"] = body
    answer = await user.call(method.upper(), path.format(**ids), **options)
    text = re.sub(r'"request_id":"[^"]*"', "", answer.text)
    for value in sorted(ids.values(), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "ID", text)
    return answer.status_code, text


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_what_is_anothers_is_not_there(system: System) -> None:
    await system.price("BTC")
    async with Receiver() as receiver:
        alice = await with_everything(system, "alice@example.com", receiver.url)
        bob = await with_everything(system, "bob@example.com", receiver.url + "/bob")
        await every_operation(system, alice, bob)
        await ids_in_bodies_and_cursors(alice, bob)
        await sockets(system, alice, bob)
        for method, path, _ in owned_operations((await system.client.get("/v1/openapi.json")).json()):
            if method == "get":
                assert (await tried(alice, method, path, alice.ids))[0] == httpx.codes.OK, path


async def every_operation(system: System, alice: User, bob: User) -> None:
    """Alice's ids as Bob, wholly and under Bob's own parents, answer as ids of nobody do."""
    operations = owned_operations((await system.client.get("/v1/openapi.json")).json())
    assert len(operations) > 50
    unknown = {name for _, _, names in operations for name in names} - alice.ids.keys()
    assert not unknown, f"no test knows what these ids name: {unknown}"
    for method, path, names in operations:
        choices = [alice.ids]
        if len(names) > 1:
            choices.append({**bob.ids, names[-1]: alice.ids[names[-1]]})
        for ids in choices:
            nobody = {
                name: value if bob.ids.get(name) == value else another(value) for name, value in ids.items()
            }
            theirs = await tried(bob, method, path, ids)
            assert theirs[0] == httpx.codes.NOT_FOUND, (method, path, theirs)
            assert theirs == await tried(bob, method, path, nobody), (method, path)


async def ids_in_bodies_and_cursors(alice: User, bob: User) -> None:
    """A rule of Bob's that points at what is Alice's fares as one that points nowhere, and her cursor leads him nowhere."""
    hooked = {"symbol": "BTC-USDT", "condition": CONDITION, "webhook_ids": [alice.ids["webhook_id"]]}
    for hook in (alice.ids["webhook_id"], another(alice.ids["webhook_id"])):
        answer = await bob.call("POST", "/v1/alerts", json={**hooked, "webhook_ids": [hook]})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown-webhook")
    condition = {"type": "portfolio_value", "op": "above", "value": "0.01"}
    for portfolio in (alice.ids["portfolio_id"], another(alice.ids["portfolio_id"])):
        wanted = {"condition": {**condition, "portfolio_id": int(portfolio)}}
        answer = await bob.call("POST", "/v1/alerts", json=wanted)
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown-portfolio")
    await alice.made("/v1/portfolios", {"name": "second"})
    cursor = (await alice.call("GET", "/v1/portfolios", params={"limit": 1})).json()["next_cursor"]
    answer = await bob.call("GET", "/v1/portfolios", params={"limit": 1, "cursor": cursor})
    assert answer.json()["code"] == "invalid-cursor"


async def sockets(system: System, alice: User, bob: User) -> None:
    """Bob's socket may not follow Alice's portfolio, and hears nothing of her alerts."""
    url = f"ws://127.0.0.1:{system.port}/v1/ws"
    async with websockets.connect(url, additional_headers=bob.headers, proxy=None) as socket:
        mine = alice.ids["portfolio_id"]
        codes = []
        for number, value in enumerate((mine, another(mine))):
            channels = [{"ch": f"portfolio:{value}"}, {"ch": "alerts"}]
            await socket.send(json.dumps({"op": "subscribe", "id": number, "channels": channels}))
            ack = await frame_of(socket, "ack")
            codes.append(
                [
                    {**row, "symbol": None, "ch": row.get("ch", "").partition(":")[0]}
                    for row in ack["rejected"]
                ]
            )
        assert codes[0]
        assert [row["code"] for row in codes[0]] == [row["code"] for row in codes[1]]
        await alice.call("POST", f"/v1/alerts/{alice.ids['alert_id']}/test")
        await bob.call("POST", f"/v1/alerts/{bob.ids['alert_id']}/test")
        heard = (await frame_of(socket, "alert"))["event"]
        assert heard["alert_id"] == bob.ids["alert_id"]


async def frame_of(socket: Any, kind: str) -> dict[str, Any]:
    """The next frame of a kind."""
    async with asyncio.timeout(15):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            if frame["type"] == kind:
                return frame
