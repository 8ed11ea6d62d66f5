"""A whole public app on loopback with hand-written fakes behind its ports: everything but stores, bus and services is real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
import pytest_asyncio
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from cryptopulse.common.clock import SystemClock
from cryptopulse.common.contracts.candles import Candle
from cryptopulse.common.contracts.catalogue import Coin
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.contracts.indicators import IndicatorUpdate
from cryptopulse.common.contracts.prices import PriceBatch, PriceUpdate
from cryptopulse.common.contracts.resolver import Catalogue, Pair
from cryptopulse.common.errors import StoreUnavailable, UpstreamUnavailable
from cryptopulse.common.runtime.servers import HttpServer
from cryptopulse.common.security.keys import KeyRing, secret_key
from cryptopulse.common.security.tokens import TokenIssuer, TokenVerifier
from cryptopulse.gateway.adapters.passwords import Argon2Passwords
from cryptopulse.gateway.adapters.public_tokens import PublicTokens
from cryptopulse.gateway.application.accounts import AccountService
from cryptopulse.gateway.application.administer import Administration
from cryptopulse.gateway.application.authenticate import Authenticator
from cryptopulse.gateway.application.distribute import Distributor
from cryptopulse.gateway.application.fan_out import Hub
from cryptopulse.gateway.application.feeds import Feeds
from cryptopulse.gateway.application.limiting import Limits
from cryptopulse.gateway.application.manage_keys import KeyService
from cryptopulse.gateway.application.market import Market
from cryptopulse.gateway.application.ports import Answer, KeyRecord, StoredAnswer
from cryptopulse.gateway.application.seed_fan_out import SeedHub
from cryptopulse.gateway.application.subscribe import Subscriptions
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain.accounts import RefreshToken, Session, User
from cryptopulse.gateway.domain.limits import Policies, Policy, Verdict, gcra
from cryptopulse.gateway.entrypoints.http.app import public_app
from cryptopulse.gateway.entrypoints.http.edge import Origins
from cryptopulse.gateway.entrypoints.http_protocol import HttpProtocol
from cryptopulse.gateway.entrypoints.socket_door import SocketDoor
from cryptopulse.gateway.entrypoints.socket_protocol import SocketProtocol
from cryptopulse.gateway.entrypoints.stream_seed import SeedStream
from cryptopulse.gateway.entrypoints.stream_v1 import StreamV1

SECRET = "a-secret-of-at-least-thirty-two-bytes"
ORIGIN = "https://app.example.org"


class TravelClock(SystemClock):
    """The machine's clock, moved on by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def advance(self, seconds: float) -> None:
        self.ahead += seconds

    def now_us(self) -> int:
        return super().now_us() + round(self.ahead * 1e6)

    def now_ms(self) -> int:
        return self.now_us() // 1_000

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@dataclass
class FakeAccounts:
    users: dict[str, User] = field(default_factory=dict)
    alive: dict[str, Session] = field(default_factory=dict)
    tokens: dict[bytes, RefreshToken] = field(default_factory=dict)
    mails: dict[bytes, tuple[str, str, datetime]] = field(default_factory=dict)

    async def add_user(self, user: User) -> bool:
        if any(known.email == user.email for known in self.users.values()):
            return False
        self.users[user.id] = user
        return True

    async def list_users(self, limit: int, after: tuple[datetime, str] | None) -> list[User]:
        rows = sorted(self.users.values(), key=lambda user: (user.created_at, user.id), reverse=True)
        return [row for row in rows if after is None or (row.created_at, row.id) < after][:limit]

    async def user_by_email(self, email: str) -> User | None:
        return next((user for user in self.users.values() if user.email == email), None)

    async def user_by_id(self, user_id: str) -> User | None:
        return self.users.get(user_id)

    async def record_failure(self, user_id: str, locked_until: datetime | None) -> None:
        user = self.users[user_id]
        self.users[user_id] = replace(
            user, failed_logins=user.failed_logins + 1, locked_until=locked_until or user.locked_until
        )

    async def record_success(self, user_id: str, password_hash: str | None) -> None:
        user = self.users[user_id]
        self.users[user_id] = replace(
            user, failed_logins=0, locked_until=None, password_hash=password_hash or user.password_hash
        )

    async def set_password(self, user_id: str, password_hash: str, at: datetime) -> None:
        self.users[user_id] = replace(self.users[user_id], password_hash=password_hash)

    async def set_verified(self, user_id: str, at: datetime) -> None:
        self.users[user_id] = replace(self.users[user_id], verified_at=at)

    async def set_admin(self, email: str, is_admin: bool) -> str | None:
        user = await self.user_by_email(email)
        if user is not None:
            self.users[user.id] = replace(user, is_admin=is_admin)
        return None if user is None else user.id

    async def set_disabled(self, user_id: str, at: datetime | None) -> None:
        user = self.users[user_id]
        self.users[user_id] = replace(user, disabled_at=at and (user.disabled_at or at))

    async def delete_user(self, user_id: str) -> list[str]:
        self.users.pop(user_id)
        return [ident for ident, item in self.alive.items() if item.user_id == user_id]

    async def add_session(self, session: Session, token_hash: bytes, expires_at: datetime) -> None:
        self.alive[session.id] = session
        self.tokens[token_hash] = RefreshToken(session, expires_at, None)

    async def refresh_token(self, token_hash: bytes) -> RefreshToken | None:
        found = self.tokens.get(token_hash)
        return None if found is None else replace(found, session=self.alive[found.session.id])

    async def rotate(
        self, spent: bytes, successor: bytes, session_id: str, at: datetime, expires_at: datetime
    ) -> None:
        token = self.tokens[spent]
        self.tokens[spent] = replace(token, spent_at=token.spent_at or at)
        self.tokens.setdefault(successor, RefreshToken(token.session, expires_at, None))

    async def sessions(self, user_id: str) -> list[Session]:
        return [item for item in self.alive.values() if item.user_id == user_id]

    async def revoke_sessions(
        self, user_id: str, reason: str, at: datetime, *, only: str | None = None, keep: str | None = None
    ) -> list[str]:
        ended = [
            ident
            for ident, item in self.alive.items()
            if item.user_id == user_id and item.revoked_at is None and only in {None, ident} and keep != ident
        ]
        for ident in ended:
            self.alive[ident] = replace(self.alive[ident], revoked_at=at)
        return ended

    async def add_mail_token(
        self, token_hash: bytes, user_id: str, purpose: str, expires_at: datetime
    ) -> None:
        self.mails[token_hash] = (user_id, purpose, expires_at)

    async def use_mail_token(self, token_hash: bytes, purpose: str, at: datetime) -> str | None:
        found = self.mails.pop(token_hash, None)
        return None if found is None or found[1] != purpose or found[2] <= at else found[0]


@dataclass
class FakeKeys:
    accounts: FakeAccounts
    records: dict[str, KeyRecord] = field(default_factory=dict)
    lookups: int = 0

    async def add(self, record: KeyRecord) -> None:
        self.records[record.id] = record

    async def find(self, key_id: str) -> KeyRecord | None:
        self.lookups += 1
        found = self.records.get(key_id)
        owner = self.accounts.users.get(found.user_id) if found else None
        return found and replace(found, is_owner_disabled=owner is not None and owner.disabled_at is not None)

    async def of_user(self, user_id: str, limit: int, after: tuple[datetime, str] | None) -> list[KeyRecord]:
        rows = [row for row in self.records.values() if row.user_id == user_id and row.revoked_at is None]
        rows.sort(key=lambda row: (row.created_at, row.id), reverse=True)
        return [row for row in rows if after is None or (row.created_at, row.id) < after][:limit]

    async def count(self, user_id: str) -> int:
        return len(await self.of_user(user_id, 1_000, None))

    async def change(self, key_id: str, user_id: str, changes: Mapping[str, Any]) -> KeyRecord | None:
        found = self.records.get(key_id)
        if found is None or found.user_id != user_id:
            return None
        self.records[key_id] = replace(found, **changes)
        return self.records[key_id]

    async def used(self, key_id: str, at: datetime, address: str) -> None:
        self.records[key_id] = replace(self.records[key_id], last_used_at=at, last_address=address)


@dataclass
class FakeRevocations:
    revoked: set[str] = field(default_factory=set)
    listeners: list[Any] = field(default_factory=list)

    def is_revoked(self, ident: str) -> bool:
        return ident in self.revoked

    async def revoke(self, idents: Sequence[str]) -> None:
        for ident in idents:
            if not ident.startswith("changed:"):
                self.revoked.add(ident)
            for listener in self.listeners:
                listener(ident)

    async def restore(self, idents: Sequence[str]) -> None:
        for ident in idents:
            self.revoked.discard(ident)
            for listener in self.listeners:
                listener(f"restored:{ident}")


@dataclass
class FakeMailer:
    sent: list[tuple[str, str, str]] = field(default_factory=list)

    async def send(self, to: str, subject: str, text: str) -> None:
        self.sent.append((to, subject, text))

    @property
    def token(self) -> str:
        """The token of the newest mail: the line that stands alone."""
        return next(line for line in self.sent[-1][2].splitlines() if line and " " not in line)


class FakeLimiter:
    """GCRA in memory; `is_away` stands for a store that does not answer."""

    def __init__(self, clock: SystemClock) -> None:
        self.clock = clock
        self.tats: dict[tuple[str, str], float] = {}
        self.is_away = False

    def take_local(self, policy: Policy, principal: str, cost: float) -> Verdict | None:
        return None if self.is_away else self._take(policy, principal, cost)

    def _take(self, policy: Policy, principal: str, cost: float) -> Verdict:
        key = (policy.name, principal)
        now = self.clock.monotonic() * 1e6
        verdict, self.tats[key] = gcra(policy, self.tats.get(key, 0.0), now, cost)
        return verdict

    async def take(
        self, policy: Policy, principal: str, cost: float, *, open_on_failure: bool
    ) -> Verdict | None:
        if self.is_away:
            if open_on_failure:
                return None
            raise StoreUnavailable("away")
        return self._take(policy, principal, cost)


@dataclass
class FakePrices:
    stored: dict[tuple[str, str], PriceUpdate] = field(default_factory=dict)
    bars: list[Candle] = field(default_factory=list)
    values: dict[tuple[str, str, str], IndicatorUpdate] = field(default_factory=dict)
    positions: dict[tuple[str, str, str, str], tuple[int, int]] = field(default_factory=dict)
    away: bool = False
    takes_seconds: float = 0.0
    asked: int = 0

    async def load_all(self) -> list[PriceUpdate]:
        return list(self.stored.values())

    async def load(self, symbol: str, source: str) -> PriceUpdate | None:
        return self.stored.get((symbol, source))

    async def forming(self, wanted: list[tuple[str, str, str]]) -> list[Candle]:
        return [bar for bar in self.bars if (bar.symbol, bar.source, bar.interval) in wanted]

    async def indicators(self, symbol: str, source: str, interval: str) -> IndicatorUpdate | None:
        return self.values.get((symbol, source, interval))

    async def position(self, kind: str, symbol: str, source: str, interval: str) -> tuple[int, int] | None:
        self.asked += 1
        await asyncio.sleep(self.takes_seconds)
        if self.away:
            raise StoreUnavailable("away")
        return self.positions.get((kind, symbol, source, interval))


@dataclass
class FakeServices:
    """Answers by (service, method, path); what is not said is away. Every call is kept."""

    answers: dict[tuple[str, str, str], Answer] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)

    bars: list[dict[str, Any]] = field(default_factory=list)

    def _candles(self, symbol: str, query: dict[str, str]) -> Answer:
        """Candles as the indicators service pages them."""
        low, high = int(query.get("from", 0)), int(query.get("to", 1 << 60))
        rows = [bar for bar in self.bars if low <= bar["open_time"] < high]
        limit = int(query.get("limit", 500))
        rows = rows[:limit] if "from" in query else rows[-limit:]
        page = {
            "symbol": symbol,
            "interval": query["interval"],
            "source": "consolidated",
            "data": rows,
            "next_cursor": None,
        }
        return Answer(200, json.dumps(page).encode(), {"content-type": "application/json"})

    def says(self, service: str, method: str, path: str, body: Any, status: int = 200) -> None:
        kind = "application/problem+json" if status >= 400 else "application/json"
        content = b"" if body is None else json.dumps(body).encode()
        self.answers[service, method, path] = Answer(status, content, {"content-type": kind})

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        *,
        identity: Identity,
        query: str = "",
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        self.calls.append(
            {"service": service, "method": method, "path": path, "identity": identity, "query": query,
             "content": content, "headers": dict(headers or {})}
        )  # fmt: skip
        parts = path.split("/")
        if service == "indicators" and self.bars and (parts[1] == "candles" or parts[-1] == "history"):
            return self._candles(parts[2], dict(parse_qsl(query)))
        found = self.answers.get((service, method, path))
        if found is None:
            raise UpstreamUnavailable(f"{service} does not answer", retry_after_seconds=2)
        return found


@dataclass
class FakeIdempotency:
    held: dict[tuple[str, str], StoredAnswer] = field(default_factory=dict)

    async def claim(self, principal: str, key: str, request_hash: bytes) -> StoredAnswer | None:
        found = self.held.get((principal, key))
        if found is None:
            self.held[principal, key] = StoredAnswer(request_hash, None, {}, b"")
        return found

    async def finish(self, principal: str, key: str, answer: StoredAnswer) -> None:
        self.held[principal, key] = answer

    async def release(self, principal: str, key: str) -> None:
        self.held.pop((principal, key), None)


@dataclass
class FakeTicks:
    hub: Hub
    followed: set[str] = field(default_factory=set)

    async def follow(self, symbol: str) -> None:
        self.followed.add(symbol)
        self.hub.followed.add(symbol)

    async def follow_indicators(self, interval: str) -> None:
        self.followed.add(interval)


class Gateway:
    """The app under test and everything around it."""

    def __init__(self) -> None:
        self.clock = TravelClock()
        self.market = Market(self.clock)
        self.hub = Hub(self.clock)
        self.feeds = Feeds(self.clock)
        self.accounts = FakeAccounts()
        self.keys = FakeKeys(self.accounts)
        self.revocations = FakeRevocations()
        self.mailer = FakeMailer()
        self.limiter = FakeLimiter(self.clock)
        self.prices = FakePrices()
        self.services = FakeServices()
        self.idempotency = FakeIdempotency()
        self.ticks = FakeTicks(self.hub)
        self.limits = Policies("anonymous.reads=600/60:400,anonymous.auth=600/60:200")
        ring = KeyRing(current=secret_key(SECRET))
        about = {"issuer": "https://api.example.org", "audience": "cryptopulse", "clock": self.clock}
        self.issuer = TokenIssuer(ring, **about)  # type: ignore[arg-type]  # one dict for both
        self.tokens = PublicTokens(ring, self.issuer, TokenVerifier(ring, **about))  # type: ignore[arg-type]  # as above
        self.passwords = Argon2Passwords(threads=1, memory_kib=64, passes=1)
        self.authenticator = Authenticator(
            self.tokens, self.keys, self.revocations, self.clock, Limits(self.limits, self.limiter)
        )
        self.subscriptions = Subscriptions(
            self.hub, self.market, self.feeds, self.prices, self.services, self.ticks
        )
        self.seeds = SeedHub(self.market, self.clock)
        self.distributor = Distributor(self.hub, self.market, self.feeds, self.subscriptions, self.clock)
        self.revocations.listeners.append(self._revoked)
        self.url = ""
        self.http: httpx.AsyncClient
        self.use = self._use_cases()
        self._server: HttpServer | None = None
        self.ping_seconds = 20.0

    def _revoked(self, ident: str) -> None:
        if ident.startswith(("changed:", "restored:")):
            self.authenticator.forget_keys()
        else:
            self.hub.revoke(ident)

    def _use_cases(self) -> UseCases:
        async def dead_letters() -> dict[str, int]:
            return {"alerts.candles.v1.dlq": 2}

        async def ready() -> tuple[bool, dict[str, Any]]:
            return True, {"dependencies": {"redis": {"state": "up"}}}

        return UseCases(
            clock=self.clock,
            market=self.market,
            prices=self.prices,
            hub=self.hub,
            feeds=self.feeds,
            authenticator=self.authenticator,
            limits=Limits(self.limits, self.limiter),
            accounts=AccountService(
                store=self.accounts,
                passwords=self.passwords,
                tokens=self.tokens,
                revocations=self.revocations,
                mailer=self.mailer,
                clock=self.clock,
                secret=b"refresh",
                lifetime_seconds=600,
                public_url="https://api.example.org",
            ),
            keys=KeyService(self.keys, self.revocations, self.clock),
            administration=Administration(self.accounts, self.keys, self.revocations, self.clock),
            services=self.services,
            idempotency=self.idempotency,
            tokens=self.tokens,
            cursor_secret="0123456789abcdef0123456789abcdef",
            version="0.1.0",
            started_ms=self.clock.now_ms(),
            follow=self.ticks.follow,
            dead_letters=dead_letters,
            readiness=ready,
            peers={
                name: {"ok": True, "detail": "ready"}
                for name in ("ingestor", "indicators", "alerts", "portfolio")
            },
        )

    async def start(self) -> None:
        origins = Origins([ORIGIN])
        door = SocketDoor(self.use, origins)
        seed = SeedStream(self.use, door, self.seeds, self.subscriptions)
        sockets = [WebSocketRoute("/v1/ws", StreamV1(self.use, door, self.subscriptions).serve)]
        sockets += [WebSocketRoute(path, seed.serve) for path in ("/ws/crypto/", "/ws/prices/")]
        app = public_app(self.use, origins, sockets=sockets)
        self._server = HttpServer(
            app,
            "127.0.0.1",
            0,
            setting="PORT",
            http=HttpProtocol,
            ws=SocketProtocol,
            ws_max_size=64 * 1024,
            ws_ping_interval=self.ping_seconds,
            ws_ping_timeout=self.ping_seconds,
            ws_per_message_deflate=False,
        )
        await self._server.start()
        self.url = f"127.0.0.1:{self._server.port}"
        self.http = httpx.AsyncClient(base_url=f"http://{self.url}", trust_env=False)

    async def stop(self) -> None:
        self.hub.close_all()
        await self.http.aclose()
        if self._server is not None:
            await self._server.stop(2)
        self.passwords.close()

    def knows(self, *symbols: str, coins: Mapping[str, str] | None = None) -> None:
        """Make pairs (and coin ids by asset) known to the resolver."""
        coins = coins or {"BTC": "bitcoin", "ETH": "ethereum"}
        self.market.use_catalogue(
            Catalogue(
                version=1,
                pairs=[Pair(symbol, ["binance"]) for symbol in symbols],
                coins=[
                    Coin(id=ident, symbol=asset.lower(), name=ident.title()) for asset, ident in coins.items()
                ],
                asset_coins=dict(coins),
            )
        )

    def price(
        self, symbol: str, price: str, *, seq: int = 1, source: str = "consolidated", **more: Any
    ) -> PriceUpdate:
        """Let a price come from the bus."""
        now = self.clock.now_us()
        values: dict[str, Any] = {
            "symbol": symbol, "source": source, "price": Decimal(price), "low": Decimal(price), "high": Decimal(price),
            "epoch": 1, "seq": seq, "event_us": now, "received_us": now, **more,
        }  # fmt: skip
        update = PriceUpdate(**values)
        self.distributor.prices(PriceBatch(shard=0, epoch=1, sent_us=now, prices=[update]))
        return update

    def token(self, user: str = "user-1", **more: Any) -> dict[str, str]:
        """The header of a caller."""
        return {"Authorization": f"Bearer {self.issuer.issue(user, **more)}"}

    def ws(self, path: str = "/v1/ws", **options: Any) -> connect:
        """A client's socket."""
        return connect(f"ws://{self.url}{path}", proxy=None, **options)


async def _running() -> AsyncIterator[Gateway]:
    found = Gateway()
    found.knows("BTC-USD", "BTC-USDT", "ETH-USD", "USDT-USD")
    await found.start()
    yield found
    await found.stop()


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Gateway]:
    """A running gateway that knows BTC and ETH."""
    async for found in _running():
        yield found


@pytest_asyncio.fixture
async def other_gateway() -> AsyncIterator[Gateway]:
    """Another replica: it shares nothing with the first one but what a test tells both."""
    async for found in _running():
        yield found


async def hear(ws: ClientConnection, kind: str | None = None) -> dict[str, Any]:
    """The next message, or the next one of a kind."""
    while True:
        message: dict[str, Any] = json.loads(await asyncio.wait_for(ws.recv(), 5))
        if kind is None or message["type"] == kind:
            return message


@pytest.fixture
def listen() -> Any:
    """`hear`, for tests."""
    return hear


def soon(seconds: float) -> datetime:
    """A time ahead."""
    return datetime.now(UTC) + timedelta(seconds=seconds)
