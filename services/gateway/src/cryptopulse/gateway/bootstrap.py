"""The composition root: creates the adapters, wires the use cases, registers checks, loops, servers and drain steps."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from starlette.routing import WebSocketRoute

from cryptopulse.common.bus.rabbit import RabbitBus
from cryptopulse.common.cache import client as cache
from cryptopulse.common.clock import SystemClock
from cryptopulse.common.config.settings import SettingsError
from cryptopulse.common.contracts.services import SERVICES
from cryptopulse.common.database.pool import Database
from cryptopulse.common.errors import StoreUnavailable
from cryptopulse.common.runtime import Check, Runtime, dead_letters
from cryptopulse.common.security.identity import InternalSigner
from cryptopulse.common.security.keys import KeyRefusedError, KeyRing, private_key, public_key, secret_key
from cryptopulse.common.security.tokens import TokenIssuer, TokenVerifier
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.common.web.client import ServiceClient
from cryptopulse.gateway.adapters.account_repository import PostgresAccounts
from cryptopulse.gateway.adapters.followed import RedisFollowed
from cryptopulse.gateway.adapters.key_repository import PostgresIdempotency, PostgresKeys
from cryptopulse.gateway.adapters.latest_prices import RedisPriceStore
from cryptopulse.gateway.adapters.mail import LogMailer, SmtpMailer, SmtpServer
from cryptopulse.gateway.adapters.passwords import Argon2Passwords
from cryptopulse.gateway.adapters.peer_health import PeerHealth
from cryptopulse.gateway.adapters.public_tokens import PublicTokens
from cryptopulse.gateway.adapters.rate_limiter import RedisLimiter
from cryptopulse.gateway.adapters.revocations import CHANGED, RESTORED, RedisRevocations
from cryptopulse.gateway.adapters.services_client import HttpServices
from cryptopulse.gateway.adapters.target_watch import TargetWatch
from cryptopulse.gateway.application.accounts import AccountService
from cryptopulse.gateway.application.administer import Administration
from cryptopulse.gateway.application.authenticate import Authenticator
from cryptopulse.gateway.application.distribute import Distributor
from cryptopulse.gateway.application.fan_out import Hub
from cryptopulse.gateway.application.feeds import Feeds
from cryptopulse.gateway.application.limiting import Limits
from cryptopulse.gateway.application.manage_keys import KeyService
from cryptopulse.gateway.application.market import Market
from cryptopulse.gateway.application.seed_fan_out import SeedHub
from cryptopulse.gateway.application.subscribe import Subscriptions
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain.limits import Policies
from cryptopulse.gateway.entrypoints.bus import BusConsumers
from cryptopulse.gateway.entrypoints.http.admin import OPERATIONS, admin_routes
from cryptopulse.gateway.entrypoints.http.app import public_app, routes
from cryptopulse.gateway.entrypoints.http.edge import Origins
from cryptopulse.gateway.entrypoints.http.operations import Gate
from cryptopulse.gateway.entrypoints.http_protocol import HttpProtocol
from cryptopulse.gateway.entrypoints.socket_door import SocketDoor
from cryptopulse.gateway.entrypoints.socket_protocol import SocketProtocol
from cryptopulse.gateway.entrypoints.stream_seed import SeedStream
from cryptopulse.gateway.entrypoints.stream_v1 import StreamV1
from cryptopulse.gateway.entrypoints.timers import Polled, Timers
from cryptopulse.gateway.settings import Settings

AUDIENCE = "cryptopulse"
STATEMENT_MS = 2_000
"""Somebody waits for each statement here: shorter than clients do."""
FAREWELL_SECONDS = 4.0
OPERATOR_SECONDS = 10.0
WITHDRAWAL_SECONDS = 30.0
"""Shorter than the target group's deregistration delay, at whose end the balancer cuts what is left."""
SESSIONS_KEPT = timedelta(days=30)

log = get_logger(__name__)


@asynccontextmanager
async def build(settings: Settings, runtime: Runtime) -> AsyncIterator[None]:  # noqa: PLR0915 - the wiring reads best in one piece
    """Wire the gateway. Absent backends are no reason to stop: they are checks, and heal by themselves."""
    clock = runtime.clock
    redis = cache.connect(settings.redis_url.get_secret_value())
    pinger = cache.Pinger(redis)
    facts = settings.facts()
    db = Database(
        settings.database_url.get_secret_value(),
        schema=facts.schema,
        role=facts.role,
        application_name=runtime.replica_id,
        statement_timeout_ms=STATEMENT_MS,
    )
    bus = RabbitBus(settings.rabbitmq_url.get_secret_value(), service=runtime.name, clock=clock)
    ring = key_ring(settings)
    tokens = PublicTokens(
        ring,
        TokenIssuer(ring, issuer=settings.public_url, audience=AUDIENCE, clock=clock),
        TokenVerifier(ring, issuer=settings.public_url, audience=AUDIENCE, clock=clock),
    )
    signer = InternalSigner(settings.internal_jwt_secret, runtime.name, clock=clock)
    urls = {
        "ingestor": settings.ingestor_url,
        "indicators": settings.indicators_url,
        "alerts": settings.alerts_url,
        "portfolio": settings.portfolio_url,
    }
    clients = {name: ServiceClient(url, name, signer, clock=clock) for name, url in urls.items()}
    services = HttpServices(clients)
    peers = PeerHealth(urls)
    prices = RedisPriceStore(redis)
    revocations = RedisRevocations(redis, clock)
    passwords = Argon2Passwords(threads=settings.argon2_threads, memory_kib=settings.argon2_memory_kib)
    accounts, keys = PostgresAccounts(db), PostgresKeys(db)
    idempotency = PostgresIdempotency(db, clock)
    mailer = _mailer(settings, runtime)

    market, hub, feeds = Market(clock), Hub(clock), Feeds(clock)
    consumers = BusConsumers(bus, hub, RedisFollowed(redis), clock)
    subscriptions = Subscriptions(hub, market, feeds, prices, services, consumers)
    distributor = Distributor(hub, market, feeds, subscriptions, clock)
    seeds = SeedHub(market, clock)
    limits = Limits(Policies(settings.limits), RedisLimiter(redis, clock))
    authenticator = Authenticator(tokens, keys, revocations, clock, limits)
    use = UseCases(
        clock=clock,
        market=market,
        prices=prices,
        hub=hub,
        feeds=feeds,
        authenticator=authenticator,
        limits=limits,
        accounts=AccountService(
            store=accounts,
            passwords=passwords,
            tokens=tokens,
            revocations=revocations,
            mailer=mailer,
            clock=clock,
            secret=derived(settings, "refresh"),
            lifetime_seconds=settings.access_token_seconds,
            public_url=settings.public_url,
        ),
        keys=KeyService(keys, revocations, clock),
        administration=Administration(accounts, keys, revocations, clock),
        services=services,
        idempotency=idempotency,
        tokens=tokens,
        cursor_secret=derived(settings, "cursor").hex(),
        version=runtime.version,
        started_ms=clock.now_ms(),
        follow=consumers.follow,
        dead_letters=partial(_dead_letters, settings),
        readiness=runtime.health.readiness,
    )

    def revoked(ident: str) -> None:
        if ident.startswith((CHANGED, RESTORED)):
            authenticator.forget_keys()
        else:
            hub.revoke(ident)

    revocations.listen(revoked)

    async def clean() -> None:
        await idempotency.clean()
        await accounts.clean(datetime.fromtimestamp(clock.now_us() / 1e6, UTC) - SESSIONS_KEPT)

    await db.start()
    await pinger.start()
    await bus.start()
    await consumers.start(distributor)
    _load_in_background(runtime, market, hub, prices)

    polled = Polled(
        prices.catalogue, prices.forming, prices.coin, consumers.sweep, consumers.keep_up, clean, peers.ask
    )
    timers = Timers(use, distributor, subscriptions, seeds, polled)
    for name, loop in (
        ("classes", timers.classes),
        ("catalogue", timers.catalogue),
        ("forming", timers.forming),
        ("follow", timers.follow),
        ("market", timers.market),
        ("watches", timers.watches),
        ("coins", timers.coins),
        ("peers", timers.peers),
        ("housekeeping", timers.housekeeping),
        ("revocations", revocations.run),
    ):
        runtime.loop(name, loop, stall_seconds=60.0)

    runtime.check("redis", pinger.check)
    runtime.check("postgres", db.check)
    runtime.check("rabbitmq", lambda: Check(bus.is_connected, "" if bus.is_connected else "not connected"))
    runtime.check("streams", lambda: _held(consumers.held_seconds, settings.ready_after_seconds))

    origins = Origins(settings.cors_allowed_origins)
    door = SocketDoor(use, origins, settings.trusted_proxies)
    seed_stream = SeedStream(use, door, seeds, subscriptions)
    sockets = [WebSocketRoute("/v1/ws", StreamV1(use, door, subscriptions).serve)]
    sockets += [
        WebSocketRoute(path, seed_stream.serve)
        for path in ("/ws/crypto/", "/ws/crypto", "/ws/prices/", "/ws/prices")
    ]
    app = public_app(
        use,
        origins,
        sockets=sockets,
        trusted_hops=settings.trusted_proxies,
        is_draining=lambda: runtime.is_draining,
    )
    runtime.serve(
        app,
        settings.public_host,
        settings.public_port,
        http=HttpProtocol,
        ws=SocketProtocol,
        setting="PORT",
        ws_max_size=64 * 1024,
        ws_ping_interval=20.0,
        ws_ping_timeout=10.0,
        ws_per_message_deflate=False,
    )

    admin = routes(OPERATIONS, Gate(use))
    runtime.app.router.routes.extend(admin_routes(admin, runtime.version))

    runtime.on_drain("sockets", lambda: hub.depart(FAREWELL_SECONDS), timeout_seconds=FAREWELL_SECONDS + 2)
    if settings.target_group_arn:
        watch = TargetWatch(settings.target_group_arn, settings.public_port)

        async def withdraw() -> None:
            runtime.withdraw()
            await hub.depart(WITHDRAWAL_SECONDS)

        runtime.loop("balancer", watch.until_draining(withdraw), stall_seconds=WITHDRAWAL_SECONDS + 30)
    try:
        yield
    finally:
        await bus.close()
        for client in clients.values():
            await client.close()
        await peers.close()
        await pinger.close()
        await redis.aclose()
        await db.close()
        passwords.close()


def _held(seconds: float, needed: float) -> Check:
    is_enough = seconds >= needed
    return Check(
        is_enough, "" if is_enough else f"clients resume here once {needed:g} s of messages are held"
    )


async def _dead_letters(settings: Settings) -> dict[str, int]:
    names = [name for service in SERVICES for name in dead_letters.candidates(service, settings.shards)]
    return await dead_letters.counts(settings.rabbitmq_url.get_secret_value(), names)


@asynccontextmanager
async def administration(settings: Settings) -> AsyncIterator[Administration]:
    """What an operator's command needs: the stores alone."""
    clock, facts = SystemClock(), settings.facts()
    redis = cache.connect(settings.redis_url.get_secret_value())
    url = settings.database_url.get_secret_value()
    db = Database(url, schema=facts.schema, role=facts.role, application_name="operator")
    try:
        await db.start()
        for _ in range(round(OPERATOR_SECONDS / 0.05)):
            if db.check().ok:
                break
            await asyncio.sleep(0.05)
        yield Administration(PostgresAccounts(db), PostgresKeys(db), RedisRevocations(redis, clock), clock)
    finally:
        await redis.aclose()
        await db.close()


def derived(settings: Settings, purpose: str) -> bytes:
    """A key for one purpose, from the one secret that is configured."""
    secret = settings.jwt_secret.get_secret_value().encode()
    return hmac.new(secret, f"cryptopulse:{purpose}".encode(), hashlib.sha256).digest()


def key_ring(settings: Settings) -> KeyRing:
    """The keys of access tokens. Raises `SettingsError` for a file that cannot be used."""
    if settings.jwt_algorithm == "HS256":
        return KeyRing(current=secret_key(settings.jwt_secret))
    if settings.jwt_private_key_file is None:
        name = "CRYPTOPULSE_GATEWAY_JWT_PRIVATE_KEY_FILE"
        raise SettingsError([f"{name}: is required with JWT_ALGORITHM={settings.jwt_algorithm}"])
    try:
        current = private_key(settings.jwt_private_key_file.read_text(), settings.jwt_algorithm)
        others = tuple(
            public_key(path.read_text(), settings.jwt_algorithm) for path in settings.jwt_public_key_files
        )
    except (OSError, KeyRefusedError) as error:
        raise SettingsError([f"JWT_ALGORITHM: a key file cannot be used: {error}"]) from error
    return KeyRing(current=current, retired=others)


def _mailer(settings: Settings, runtime: Runtime) -> SmtpMailer | LogMailer:
    if not settings.smtp_host:
        return LogMailer()
    mailer = SmtpMailer(
        SmtpServer(
            host=settings.smtp_host,
            port=settings.smtp_port,
            sender=settings.mail_from,
            username=settings.smtp_username or None,
            password=settings.smtp_password.get_secret_value() or None,
            use_tls=settings.smtp_tls == "tls",
            start_tls={"starttls": True, "tls": None, "none": False}[settings.smtp_tls],
        )
    )
    runtime.loop("mail", mailer.run, stall_seconds=120.0)
    return mailer


def _load_in_background(runtime: Runtime, market: Market, hub: Hub, prices: RedisPriceStore) -> None:
    """Fill prices and signals from Redis, once it answers; what the bus brought meanwhile is newer and stays."""

    async def load(beat: Callable[[], None]) -> None:
        while True:
            beat()
            try:
                found, signals = await prices.load_all(), await prices.signals()
            except StoreUnavailable as error:
                log.warning("prices could not be loaded yet", error=str(error))
                await asyncio.sleep(1)
                continue
            for update in found:
                market.apply(update)
            hub.load_signals(signals)
            log.info("prices were loaded", prices=len(found), signals=len(signals))
            return

    runtime.loop("cold load", load, stall_seconds=60.0)
