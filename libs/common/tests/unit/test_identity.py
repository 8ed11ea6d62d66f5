"""Between services only a fresh, well-made token for this very service counts; refusals first."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import httpx
import jwt
import pytest
from fastapi import Depends, FastAPI

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.identity import ALL_SCOPES, ANONYMOUS, Identity
from cryptopulse.common.errors import Unauthenticated
from cryptopulse.common.security.identity import InternalSigner, InternalVerifier, authenticate, caller
from cryptopulse.common.web.problems import install_problem_handlers

SECRET = "internal-secret-of-more-than-64-bytes-" * 2
USER = Identity(
    user_id="u1", scopes=frozenset({"alerts:read", "alerts:write"}), tier="pro", kind="key", key_id="abcd1234"
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def verifier(clock: ManualClock) -> InternalVerifier:
    return InternalVerifier(SECRET, "alerts", clock=clock)


def forged(
    clock: ManualClock,
    *,
    secret: str = SECRET,
    algorithm: str = "HS256",
    typ: str | None = "cp-internal+jwt",
    **changes: Any,
) -> str:
    now = clock.now_ms() // 1000
    claims: dict[str, Any] = {
        "iss": "cryptopulse:gateway", "aud": "cryptopulse:alerts", "iat": now, "exp": now + 60, "sub": "u1", "kind": "user",
    }  # fmt: skip
    claims |= changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm, headers={"typ": typ} if typ else {"typ": None})


def refuses(verifier: InternalVerifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except Unauthenticated as error:
        return error.code == "bad-internal-token"
    return False


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "cryptopulse:portfolio"},
        {"aud": "alerts"},
        {"aud": None},
        {"aud": ["cryptopulse:portfolio", 7]},
        {"iss": None},
        {"exp": None},
        {"iat": None},
        {"exp": "soon"},
        {"iat": True},
        {"kind": "admin"},
        {"kind": None},
        {"kind": ["user"]},
        {"sub": 7},
        {"sid": {"a": 1}},
        {"secret": "another-secret-of-more-than-32-bytes!" * 2},
        {"algorithm": "HS512"},
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"typ": None},
    ],
)
def test_a_token_that_is_not_exactly_ours_is_refused(
    verifier: InternalVerifier, clock: ManualClock, changes: dict[str, Any]
) -> None:
    assert not refuses(verifier, forged(clock))
    assert refuses(verifier, forged(clock, **changes))


def test_an_expired_or_future_token_is_refused(verifier: InternalVerifier, clock: ManualClock) -> None:
    now = clock.now_ms() // 1000

    assert refuses(verifier, forged(clock, iat=now - 100, exp=now - 6))
    assert refuses(verifier, forged(clock, iat=now + 6))
    assert not refuses(verifier, forged(clock, iat=now + 4))


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "." * 10, "e30.e30.", "\u00e9.\u00e9.\u00e9", "a" * 10_000]
)
def test_garbage_is_refused(verifier: InternalVerifier, token: str) -> None:
    assert refuses(verifier, token)


def test_a_token_without_a_signature_is_refused(verifier: InternalVerifier, clock: ManualClock) -> None:
    _, payload, _ = forged(clock).split(".")
    header = (
        base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "cp-internal+jwt"}).encode())
        .rstrip(b"=")
        .decode()
    )

    assert refuses(verifier, f"{header}.{payload}.")


def test_a_verified_token_is_not_trusted_beyond_its_end(
    verifier: InternalVerifier, clock: ManualClock
) -> None:
    token = forged(clock)
    assert verifier.verify(token).user_id == "u1"
    clock.advance(30)
    assert verifier.verify(token).user_id == "u1"
    clock.advance(36)

    assert refuses(verifier, token)


@pytest.mark.parametrize(
    "identity",
    [
        USER,
        ANONYMOUS,
        Identity(user_id=None, kind="service"),
        Identity(user_id="u1", scopes=frozenset({ALL_SCOPES}), session_id="s1"),
    ],
)
def test_who_calls_arrives_as_it_was_sent(
    verifier: InternalVerifier, clock: ManualClock, identity: Identity
) -> None:
    token = InternalSigner(SECRET, "gateway", clock=clock).sign(identity, "alerts")

    assert verifier.verify(token) == identity


def test_a_token_is_used_again_for_half_a_minute(clock: ManualClock) -> None:
    signer = InternalSigner(SECRET, "gateway", clock=clock)
    first = signer.sign(USER, "alerts")
    clock.advance(29)
    assert signer.sign(USER, "alerts") == first
    assert signer.sign(USER, "portfolio") != first
    clock.advance(2)

    assert signer.sign(USER, "alerts") != first


def test_a_clock_that_was_set_back_makes_new_tokens(clock: ManualClock) -> None:
    signer = InternalSigner(SECRET, "gateway", clock=clock)
    first = signer.sign(USER, "alerts")
    clock.set_ms(clock.now_ms() - 3_600_000)

    assert signer.sign(USER, "alerts") != first


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        InternalSigner("short", "gateway")


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        (None, 401, "no-internal-token"),
        ("Basic dTpw", 401, "no-internal-token"),
        ("Bearer ", 401, "no-internal-token"),
        ("Bearer garbage", 401, "bad-internal-token"),
        ("bearer {token}", 200, None),
        ("Bearer {token}", 200, None),
    ],
)
async def test_an_internal_route_knows_its_caller(
    verifier: InternalVerifier, clock: ManualClock, header: str | None, status: int, code: str | None
) -> None:
    app = FastAPI(openapi_url=None)
    install_problem_handlers(app)
    authenticate(app, verifier)

    @app.get("/whoami")
    async def whoami(identity: Identity = Depends(caller)) -> dict[str, Any]:
        return {"user": identity.user_id}

    token = InternalSigner(SECRET, "gateway", clock=clock).sign(USER, "alerts")
    headers = {"Authorization": header.format(token=token)} if header else {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://alerts") as client:
        response = await client.get("/whoami", headers=headers)

    assert response.status_code == status
    assert response.json().get("code") == code
    assert response.json().get("user") == (None if code else "u1")


def test_scopes_allow_by_name_or_all() -> None:
    assert USER.allows("alerts:read")
    assert not USER.allows("portfolio:read")
    assert Identity(user_id="u1", scopes=frozenset({ALL_SCOPES})).allows("portfolio:read")
    assert not ANONYMOUS.allows("alerts:read")


def test_principals_of_different_callers_differ() -> None:
    callers = [
        USER,
        ANONYMOUS,
        Identity(user_id="u1"),
        Identity(user_id="u2"),
        Identity(user_id=None, kind="service"),
    ]

    assert len({identity.principal for identity in callers}) == len(callers)


def test_a_secret_follows_another_without_a_call_refused(clock: ManualClock) -> None:
    old, new = "o" * 32, "n" * 32
    rotation = [old, f"{old},{new}", f"{new},{old}", new]
    for before, after in itertools.pairwise(rotation):
        for mine, theirs in ((before, after), (after, before)):
            token = InternalSigner(mine, "gateway", clock=clock).sign(USER, "alerts")
            assert InternalVerifier(theirs, "alerts", clock=clock).verify(token) == USER

    ended = InternalSigner(old, "gateway", clock=clock).sign(USER, "alerts")
    assert refuses(InternalVerifier(new, "alerts", clock=clock), ended)
    assert refuses(InternalVerifier(f"{new},{'x' * 32}", "alerts", clock=clock), ended)


@pytest.mark.parametrize("secrets", [f"{'n' * 32},", f"{'n' * 32},short", ",".join(["n" * 20] * 2)])
def test_each_secret_of_a_rotation_is_long(secrets: str) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        InternalSigner(secrets, "gateway")
