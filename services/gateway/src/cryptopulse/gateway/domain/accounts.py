"""Accounts: users, sessions, refresh rotation, locks, and what makes a password acceptable."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

PASSWORD_MIN: Final = 8
PASSWORD_MAX: Final = 128
LOCK_AFTER: Final = 10
LOCK_BASE_SECONDS: Final = 60
LOCK_MAX_SECONDS: Final = 3_600
REFRESH_DAYS: Final = 30
SESSION_DAYS: Final = 90
REUSE_GRACE_SECONDS: Final = 10
MAIL_TOKEN_MINUTES: Final = {"verify": 48 * 60, "reset": 30}
DISABLED: Final = "this account is disabled: ask the operators"
"""What is told, with the code `account-disabled`, to who has proven that the account is his."""

COMMON_PASSWORDS: Final = frozenset(
    [
        "12345678",
        "123456789",
        "1234567890",
        "123123123",
        "11111111",
        "00000000",
        "87654321",
        "12341234",
        "password",
        "password1",
        "password12",
        "password123",
        "passw0rd",
        "p@ssw0rd",
        "qwertyui",
        "qwertyuiop",
        "qwerty123",
        "qwerty12",
        "1q2w3e4r",
        "1q2w3e4r5t",
        "1qaz2wsx",
        "abcd1234",
        "abc12345",
        "a1b2c3d4",
        "iloveyou",
        "sunshine",
        "princess",
        "football",
        "baseball",
        "superman",
        "trustno1",
        "letmein1",
        "welcome1",
        "welcome123",
        "admin123",
        "administrator",
        "changeme",
        "changeme1",
        "whatever",
        "starwars",
        "computer",
        "internet",
        "samsung1",
        "michelle",
        "jennifer",
        "corvette",
        "dragon123",
        "monkey123",
        "shadow123",
        "master123",
        "michael1",
        "charlie1",
        "jordan23",
        "liverpool",
        "chelsea1",
        "arsenal1",
        "asdfghjk",
        "asdfasdf",
        "zxcvbnm1",
        "zxcvbnm123",
        "q1w2e3r4",
        "q1w2e3r4t5",
        "987654321",
        "0987654321",
        "66666666",
        "88888888",
        "99999999",
        "55555555",
        "aaaaaaaa",
        "bitcoin1",
        "bitcoin123",
        "ethereum",
        "satoshi1",
        "cryptocurrency",
        "hodlhodl",
        "tothemoon",
    ]
)
"""The most frequent passwords of published leaks with eight or more characters, and those of our field."""


@dataclass(frozen=True, slots=True)
class User:
    """A user as stored. `is_admin` is never set through the API."""

    id: str
    email: str
    password_hash: str
    tier: str
    is_admin: bool
    verified_at: datetime | None
    failed_logins: int
    locked_until: datetime | None
    created_at: datetime
    disabled_at: datetime | None = None
    """Since when an operator keeps him out; None while he may come in."""


@dataclass(frozen=True, slots=True)
class Session:
    """A refresh family: one login on one device."""

    id: str
    user_id: str
    device: str
    address: str
    created_at: datetime
    last_used_at: datetime
    ends_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token as stored, with its family."""

    session: Session
    expires_at: datetime
    spent_at: datetime | None


def is_user_id(text: str) -> bool:
    """True for what may be the id of a user here; tokens from elsewhere name users in other ways."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def password_fault(password: str, email: str) -> str | None:
    """What is wrong with a password, None when nothing is. Length counts, composition does not."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        return f"holds {PASSWORD_MIN} to {PASSWORD_MAX} characters"
    lowered = password.lower()
    if lowered in COMMON_PASSWORDS or len(set(lowered)) < 3:
        return "is among the passwords that are tried first: choose another"
    if lowered in {email, email.partition("@")[0]}:
        return "must differ from the e-mail address"
    return None


def token_hash(token: str) -> bytes:
    """What is stored of an opaque token."""
    return hashlib.sha256(token.encode()).digest()


def successor(token: str, secret: bytes) -> str:
    """The one token that follows `token`: two tabs that refresh at the same moment get the same one."""
    digest = hmac.new(secret, b"refresh:" + token.encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def is_reuse(token: RefreshToken, now: datetime) -> bool:
    """True when a spent token is shown again later than two racing tabs explain: it was stolen."""
    return token.spent_at is not None and now - token.spent_at > timedelta(seconds=REUSE_GRACE_SECONDS)


def lock_seconds(failed: int) -> int:
    """How long a login is locked after `failed` wrong passwords: none before the tenth, then doubling up to an hour."""
    if failed < LOCK_AFTER:
        return 0
    return int(min(LOCK_MAX_SECONDS, LOCK_BASE_SECONDS * 2 ** min(failed - LOCK_AFTER, 10)))
