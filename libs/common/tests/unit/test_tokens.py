"""Public tokens: whatever a token says about itself, only our keys, our algorithm and our claims count."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cryptopulse.common.clock import ManualClock
from cryptopulse.common.contracts.identity import ALL_SCOPES
from cryptopulse.common.errors import Unauthenticated
from cryptopulse.common.security.keys import (
    Algorithm,
    Key,
    KeyRefusedError,
    KeyRing,
    private_key,
    public_key,
    secret_key,
    thumbprint,
)
from cryptopulse.common.security.tokens import TokenIssuer, TokenVerifier

ISSUER, AUDIENCE = "https://api.example", "cryptopulse-api"
SECRET = "public-secret-of-more-than-32-bytes!!"


def pem(key: Any) -> str:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return cast("bytes", key.private_bytes(*form)).decode()


def public_pem(key: Any) -> str:
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return cast("bytes", key.public_key().public_bytes(*form)).decode()


ED, ED2 = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
PAIRS: dict[Algorithm, Any] = {"EdDSA": ED, "ES256": EC, "RS256": RSA}


def ring(algorithm: Algorithm) -> KeyRing:
    if algorithm == "HS256":
        return KeyRing(secret_key(SECRET))
    return KeyRing(private_key(pem(PAIRS[algorithm]), algorithm))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def issuer(keys: KeyRing, clock: ManualClock) -> TokenIssuer:
    return TokenIssuer(keys, issuer=ISSUER, audience=AUDIENCE, clock=clock)


def verifier(keys: KeyRing, clock: ManualClock, **options: Any) -> TokenVerifier:
    return TokenVerifier(keys, issuer=ISSUER, audience=AUDIENCE, clock=clock, **options)


def claims(clock: ManualClock, **changes: Any) -> dict[str, Any]:
    now = clock.now_ms() // 1000
    every = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "iat": now, "exp": now + 600, "jti": "j1", "scope": "prices:read",
        "tier": "free",
    }  # fmt: skip
    return {name: value for name, value in (every | changes).items() if value is not None}


def signed(keys: KeyRing, payload: dict[str, Any], **header: Any) -> str:
    key = keys.current
    headers = {"typ": "at+jwt", "kid": key.kid} | header
    return jwt.encode(payload, cast("Any", key.signs_with), algorithm=key.algorithm, headers=headers)


def by_hand(header: Any, payload: Any, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def code_of(check: TokenVerifier, token: str) -> str:
    try:
        check.verify(token)
    except Unauthenticated as error:
        return error.code
    return "valid"


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA", "ES256", "RS256"])
def test_what_was_issued_is_valid_until_it_expires(algorithm: Algorithm, clock: ManualClock) -> None:
    keys = ring(algorithm)
    check = verifier(keys, clock)
    token = issuer(keys, clock).issue("u1", scopes=frozenset({"a", "b"}), tier="pro", session_id="s1")

    found = check.verify(token)

    assert (found.subject, found.scopes, found.tier, found.session_id) == (
        "u1",
        frozenset({"a", "b"}),
        "pro",
        "s1",
    )
    assert found.identity().session_id == "s1"
    clock.advance(629)
    assert code_of(check, token) == "valid"
    clock.advance(2)
    assert code_of(check, token) == "token-expired"


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA", "ES256", "RS256"])
def test_an_altered_token_is_refused(algorithm: Algorithm, clock: ManualClock) -> None:
    keys = ring(algorithm)
    check = verifier(keys, clock)
    header, payload, signature = issuer(keys, clock).issue("u1").split(".")
    richer = by_hand({}, claims(clock, sub="root")).split(".")[1]

    assert code_of(check, f"{header}.{richer}.{signature}") == "bad-token"
    assert code_of(check, f"{header}.{payload}.{signature[:-4]}AAAA") == "bad-token"
    assert code_of(check, f"{header}.{payload}.") == "bad-token"
    assert code_of(check, f"{header}.{payload}") == "bad-token"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("ours", ["HS256", "RS256"])
def test_a_token_without_a_signature_is_refused(ours: Algorithm, algorithm: str, clock: ManualClock) -> None:
    keys = ring(ours)
    token = by_hand({"alg": algorithm, "typ": "at+jwt", "kid": keys.current.kid}, claims(clock))

    assert code_of(verifier(keys, clock), token) == "bad-token"


@pytest.mark.parametrize("ours", ["EdDSA", "ES256", "RS256"])
def test_our_public_key_is_not_taken_for_a_secret(ours: Algorithm, clock: ManualClock) -> None:
    import hashlib
    import hmac

    keys = ring(ours)
    document = json.dumps(keys.current.public_jwk())
    for secret in (public_pem(PAIRS[ours]), document):
        unsigned = by_hand(
            {"alg": "HS256", "typ": "at+jwt", "kid": keys.current.kid}, claims(clock)
        ).rpartition(".")[0]
        tag = hmac.new(secret.encode(), unsigned.encode(), hashlib.sha256).digest()
        token = f"{unsigned}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}"

        assert code_of(verifier(keys, clock), token) == "bad-token"


def test_a_key_inside_the_token_is_not_used(clock: ManualClock) -> None:
    ours, theirs = ring("EdDSA"), KeyRing(private_key(pem(ED2), "EdDSA"))
    jwk = theirs.current.public_jwk()
    for header in (
        {"jwk": jwk},
        {"jku": "http://evil.example/jwks"},
        {"x5u": "http://evil.example"},
        {"kid": ours.current.kid},
    ):
        assert code_of(verifier(ours, clock), signed(theirs, claims(clock), **header)) == "bad-token"


@pytest.mark.parametrize("kid", ["unknown", "../../etc/passwd", "' OR 1=1 --", 7, ["a"], {"a": 1}, ""])
def test_an_unknown_kid_is_refused(kid: Any, clock: ManualClock) -> None:
    for algorithm in ("HS256", "EdDSA"):
        keys = ring(algorithm)
        token = signed(keys, claims(clock))
        header, payload, signature = token.split(".")
        changed = by_hand({"alg": keys.algorithm, "typ": "at+jwt", "kid": kid}, {}).split(".")[0]
        assert header != changed

        assert code_of(verifier(keys, clock), f"{changed}.{payload}.{signature}") == "bad-token"


STRICTLY_BAD: list[dict[str, Any]] = [
    {"iss": None}, {"iss": "https://evil.example"}, {"aud": None}, {"aud": "another"}, {"aud": ["x", "y"]}, {"aud": []},
    {"sub": None}, {"exp": None}, {"iat": None}, {"jti": None}, {"scope": None}, {"tier": None},
]  # fmt: skip
ALWAYS_BAD: list[dict[str, Any]] = [
    {"sub": ""}, {"sub": 7}, {"sub": "x" * 257}, {"sub": ["u1"]}, {"exp": "soon"}, {"exp": True}, {"exp": float("inf")},
    {"exp": float("nan")}, {"exp": 10**400}, {"exp": -(10**400)}, {"iat": "now"}, {"nbf": "now"}, {"scope": ["a"]}, {"tier": {"a": 1}},
    {"jti": 7}, {"sid": ["s"]}, {"iss": ["https://api.example"]}, {"aud": 7}, {"aud": {"cryptopulse-api": 1}},
]  # fmt: skip


@pytest.mark.parametrize("changes", [*STRICTLY_BAD, *ALWAYS_BAD])
def test_with_a_key_pair_every_claim_is_demanded(changes: dict[str, Any], clock: ManualClock) -> None:
    keys = ring("EdDSA")
    assert code_of(verifier(keys, clock), signed(keys, claims(clock))) == "valid"

    assert code_of(verifier(keys, clock), signed_raw(keys, claims(clock, **changes))) == "bad-token"


def signed_raw(keys: KeyRing, payload: dict[str, Any], **extra: Any) -> str:
    """Sign also what a well-behaved library would refuse to encode."""
    header = {"alg": keys.algorithm, "typ": "at+jwt", "kid": keys.current.kid} | extra
    unsigned = by_hand(header, payload).rpartition(".")[0]
    algorithm = jwt.get_algorithm_by_name(keys.algorithm)
    signature = algorithm.sign(unsigned.encode(), algorithm.prepare_key(keys.current.signs_with))
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize("changes", ALWAYS_BAD)
def test_with_a_shared_secret_wrong_claims_are_refused_too(
    changes: dict[str, Any], clock: ManualClock
) -> None:
    keys = ring("HS256")

    assert code_of(verifier(keys, clock), signed_raw(keys, claims(clock, **changes))) == "bad-token"


@pytest.mark.parametrize(
    "changes",
    [{"iss": "https://evil.example"}, {"aud": "another"}, {"aud": []}, {"sub": None}, {"exp": None}],
)
def test_with_a_shared_secret_claims_are_checked_when_present(
    changes: dict[str, Any], clock: ManualClock
) -> None:
    keys = ring("HS256")

    assert code_of(verifier(keys, clock), signed(keys, claims(clock, **changes))) == "bad-token"


def test_with_a_shared_secret_sub_and_exp_are_enough(clock: ManualClock) -> None:
    exp = clock.now_ms() // 1000 + 60
    token = jwt.encode({"sub": "someone-else-s-user", "exp": exp}, SECRET, algorithm="HS256")

    found = verifier(ring("HS256"), clock).verify(token)

    assert found.subject == "someone-else-s-user"
    assert found.scopes == frozenset({ALL_SCOPES})
    assert found.identity().allows("portfolio:write")


def test_an_empty_scope_claim_allows_nothing(clock: ManualClock) -> None:
    found = verifier(ring("HS256"), clock).verify(signed(ring("HS256"), claims(clock, scope="")))

    assert not found.identity().allows("prices:read")


@pytest.mark.parametrize("typ", ["cp-internal+jwt", "refresh", 7, None])
def test_a_token_of_another_type_is_refused(typ: Any, clock: ManualClock) -> None:
    keys = ring("EdDSA")
    header = {"alg": "EdDSA", "kid": keys.current.kid} | ({"typ": typ} if typ is not None else {})
    payload = claims(clock)
    unsigned = by_hand(header, payload).rpartition(".")[0]
    algorithm = jwt.get_algorithm_by_name("EdDSA")
    signature = algorithm.sign(unsigned.encode(), algorithm.prepare_key(keys.current.signs_with))
    token = f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    assert code_of(verifier(keys, clock), token) == "bad-token"


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_a_token_from_the_future_is_refused(name: str, clock: ManualClock) -> None:
    now = clock.now_ms() // 1000
    keys = ring("HS256")

    assert code_of(verifier(keys, clock), signed(keys, claims(clock, **{name: now + 31}))) == "bad-token"
    assert code_of(verifier(keys, clock), signed(keys, claims(clock, **{name: now + 29}))) == "valid"


def test_a_critical_extension_that_nobody_knows_is_refused(clock: ManualClock) -> None:
    keys = ring("HS256")
    assert code_of(verifier(keys, clock), signed_raw(keys, claims(clock), cty="x")) == "valid"
    headers: list[dict[str, Any]] = [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
    ]
    for header in headers:
        assert code_of(verifier(keys, clock), signed_raw(keys, claims(clock), **header)) == "bad-token"


def test_bombs_and_garbage_are_refused_quickly(clock: ManualClock) -> None:
    deep = "[" * 3_000
    bombs = [
        "", ".", "..", "a.b.c", "\u0000.\u0000.\u0000", "\u00e9" * 30, "A" * 1_000_000, f"{'A' * 2_000}.e30.e30",
        ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (deep.encode(), b"{}", b"x")),
        by_hand({"alg": "HS256", "typ": "at+jwt"}, {}).replace(".", ".." , 1),
        by_hand([1, 2], {}), by_hand("HS256", {}), by_hand({"alg": ["HS256"]}, {}), by_hand({"alg": {"a": 1}}, {}), by_hand(None, None),
    ]  # fmt: skip
    for algorithm in ("HS256", "EdDSA"):
        check = verifier(ring(algorithm), clock)
        assert {code_of(check, bomb) for bomb in bombs} == {"bad-token"}


def test_a_signed_payload_that_is_a_bomb_is_refused(clock: ManualClock) -> None:
    keys = ring("HS256")
    algorithm = jwt.get_algorithm_by_name("HS256")
    for body in (b"[" * 5_000, b"[1]", b"7", b"null", b'"x"', b"\xff\xfe", b"{" + b'"a":' * 1_500):
        header = by_hand({"alg": "HS256", "typ": "at+jwt", "kid": "hs256"}, {}).split(".")[0]
        unsigned = f"{header}.{base64.urlsafe_b64encode(body).rstrip(b'=').decode()}"
        signature = algorithm.sign(unsigned.encode(), algorithm.prepare_key(SECRET))
        token = f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

        assert code_of(verifier(keys, clock), token) == "bad-token"


def test_keys_rotate_without_a_gap(clock: ManualClock) -> None:
    first, second = private_key(pem(ED), "EdDSA"), private_key(pem(ED2), "EdDSA")
    third = private_key(pem(ed25519.Ed25519PrivateKey.generate()), "EdDSA")
    start = KeyRing(first, upcoming=second)
    check = verifier(start, clock)
    old = issuer(start, clock).issue("u1")
    early = issuer(KeyRing(second), clock).issue("u1")
    assert code_of(check, early) == "valid", "a replica that rotated first is understood by the others"

    after = start.rotated(third)
    check.replace_keys(after)
    new = issuer(after, clock).issue("u1")

    assert jwt.get_unverified_header(new)["kid"] == second.kid
    assert (code_of(check, old), code_of(check, new)) == ("valid", "valid")
    assert [key["kid"] for key in after.jwks()["keys"]] == [second.kid, third.kid, first.kid]

    check.replace_keys(after.rotated())
    assert code_of(check, old) == "bad-token", (
        "two rotations later the first key is gone, also from what was remembered"
    )
    assert code_of(check, new) == "valid"


def test_a_ring_without_an_upcoming_key_does_not_rotate() -> None:
    with pytest.raises(KeyRefusedError, match="upcoming"):
        ring("EdDSA").rotated()


def test_the_algorithm_of_a_verifier_never_changes(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="fixed by configuration"):
        verifier(ring("EdDSA"), clock).replace_keys(ring("HS256"))


def test_rings_that_make_no_sense_are_refused() -> None:
    ed, other = private_key(pem(ED), "EdDSA"), private_key(pem(EC), "ES256")
    with pytest.raises(KeyRefusedError, match="one algorithm"):
        KeyRing(ed, upcoming=other)
    with pytest.raises(KeyRefusedError, match="same kid"):
        KeyRing(ed, upcoming=ed)
    with pytest.raises(KeyRefusedError, match="cannot sign"):
        KeyRing(public_key(public_pem(ED), "EdDSA"))


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
def test_the_jwks_holds_public_halves_only_and_others_can_verify_with_it(
    algorithm: Algorithm, clock: ManualClock
) -> None:
    keys = ring(algorithm)
    (jwk,) = keys.jwks()["keys"]
    assert not {"d", "p", "q", "dp", "dq", "qi", "k", "oth"} & set(jwk)
    assert (jwk["alg"], jwk["use"], jwk["kid"]) == (algorithm, "sig", keys.current.kid)

    token = issuer(keys, clock).issue("u1")
    seen = jwt.decode(
        token,
        jwt.PyJWK(jwk),
        algorithms=[algorithm],
        audience=AUDIENCE,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert seen["sub"] == "u1"


def test_a_shared_secret_is_never_published() -> None:
    assert ring("HS256").jwks() == {"keys": []}
    assert SECRET not in repr(ring("HS256"))


def test_the_thumbprint_is_that_of_the_standard() -> None:
    # The example of RFC 7638, section 3.1.
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs"
        "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5ha"
        "jrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    key = jwt.PyJWK({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256"}).key

    assert thumbprint(cast("Any", key)) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        ("garbage", "EdDSA"),
        (pem(EC), "EdDSA"),
        (pem(ED), "ES256"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "ES256"),
        (pem(rsa.generate_private_key(public_exponent=65_537, key_size=1024)), "RS256"),
        (pem(RSA), "EdDSA"),
        (public_pem(ED), "EdDSA"),
    ],
)
def test_a_key_that_does_not_fit_is_refused_and_not_shown(text: str, algorithm: Algorithm) -> None:
    with pytest.raises(KeyRefusedError) as caught:
        private_key(text, algorithm)

    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "secret", ["short", public_pem(RSA), json.dumps({"kty": "oct", "k": "A" * 43}), pem(RSA)]
)
def test_a_secret_that_is_short_or_a_key_by_mistake_is_refused(secret: str) -> None:
    with pytest.raises(KeyRefusedError):
        secret_key(secret)


def test_a_key_with_escaped_line_breaks_is_understood() -> None:
    assert private_key(pem(ED).replace("\n", "\\n"), "EdDSA").kid == private_key(pem(ED), "EdDSA").kid


def test_verified_tokens_are_remembered_and_old_ones_forgotten(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ring("HS256")
    check, make = verifier(keys, clock, cache_size=2), issuer(keys, clock)
    decoded: list[str] = []
    original = jwt.decode

    def counting(token: str, *args: Any, **kwargs: Any) -> Any:
        decoded.append(token)
        return original(token, *args, **kwargs)

    monkeypatch.setattr(jwt, "decode", counting)
    tokens = [make.issue(f"u{i}") for i in range(3)]
    for token in (tokens[0], tokens[0], tokens[1], tokens[0], tokens[2], tokens[0], tokens[1]):
        check.verify(token)

    assert decoded == [tokens[0], tokens[1], tokens[2], tokens[1]]


def test_keys_do_not_show_their_secrets() -> None:
    assert repr(Key("k", "HS256", SECRET, SECRET)) == "Key(kid='k', algorithm='HS256')"
