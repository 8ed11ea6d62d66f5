"""Accounts: sign-up, login, refresh with rotation and reuse detection, sessions, passwords, by the rules of `domain/accounts.py`."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptopulse.common.clock import Clock
from cryptopulse.common.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    LimitExceeded,
    NotFound,
    Unauthenticated,
)
from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.gateway.application.ports import Accounts, Mailer, Passwords, Revocations, Tokens
from cryptopulse.gateway.domain import accounts as rules
from cryptopulse.gateway.domain.accounts import Session, User

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a login comes from."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login or refresh gives: `expires_in` seconds for the access token."""

    access_token: str
    refresh_token: str
    expires_in: int


class AccountService:
    """The use cases of accounts."""

    def __init__(
        self,
        *,
        store: Accounts,
        passwords: Passwords,
        tokens: Tokens,
        revocations: Revocations,
        mailer: Mailer,
        clock: Clock,
        secret: bytes,
        lifetime_seconds: int,
        public_url: str,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._tokens = tokens
        self._revocations = revocations
        self._mailer = mailer
        self._clock = clock
        self._secret = secret
        self._lifetime = lifetime_seconds
        self._public_url = public_url.rstrip("/")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC)

    async def register(self, email: str, password: str) -> User:
        """A new user, and a mail with the link that proves the address."""
        email = email.strip().lower()
        self._check_password(password, email)
        now = self._now()
        user = User(
            id=str(uuid.uuid4()),
            email=email,
            password_hash=await self._passwords.hash(password),
            tier="free",
            is_admin=False,
            verified_at=None,
            failed_logins=0,
            locked_until=None,
            created_at=now,
        )
        if not await self._store.add_user(user):
            raise Conflict("this address has an account: log in, or reset the password", code="email-taken")
        await self._mail(
            user,
            "verify",
            "Confirm your address",
            "Confirm that this is your address by sending this token to POST /v1/auth/verify-email",
        )
        return user

    async def login(self, email: str, password: str, device: Device) -> TokenPair:
        """A new session. An unknown user, a wrong password and a locked account look and last the same.

        That an account is disabled is told only to who knows its password.
        """
        user = await self._store.user_by_email(email.strip().lower())
        now = self._now()
        matches = await self._passwords.verify(user.password_hash if user else None, password)
        is_locked = user is not None and user.locked_until is not None and user.locked_until > now
        if user is None or not matches or is_locked:
            if user is not None and not is_locked:
                pause = rules.lock_seconds(user.failed_logins + 1)
                until = now + timedelta(seconds=pause) if pause else None
                await self._store.record_failure(user.id, until)
            raise Unauthenticated("the address or the password is wrong", code="wrong-credentials")
        _check_enabled(user)
        renewed = (
            await self._passwords.hash(password) if self._passwords.is_outdated(user.password_hash) else None
        )
        await self._store.record_success(user.id, renewed)
        return await self._open_session(user, device, now)

    async def _open_session(self, user: User, device: Device, now: datetime) -> TokenPair:
        session = Session(
            id=str(uuid.uuid4()),
            user_id=user.id,
            device=device.name[:200],
            address=device.address,
            created_at=now,
            last_used_at=now,
            ends_at=now + timedelta(days=rules.SESSION_DAYS),
        )
        refresh = secrets.token_urlsafe(32)
        expires = now + timedelta(days=rules.REFRESH_DAYS)
        await self._store.add_session(session, rules.token_hash(refresh), expires)
        return self._pair(user, session.id, refresh)

    def _pair(self, user: User, session_id: str, refresh: str) -> TokenPair:
        claims: dict[str, Any] = {"sub": user.id, "tier": user.tier, "sid": session_id}
        if user.is_admin:
            claims["scope"] = "* admin"
        return TokenPair(self._tokens.make(claims, self._lifetime), refresh, self._lifetime)

    async def refresh(self, refresh_token: str) -> TokenPair:
        """The next pair of a session. A spent token shown again ends the whole session: one of the two is a thief."""
        found = await self._store.refresh_token(rules.token_hash(refresh_token))
        now = self._now()
        if found is None or found.session.revoked_at is not None:
            raise Unauthenticated(
                "the refresh token is not valid: log in again", code="invalid-refresh-token"
            )
        if rules.is_reuse(found, now):
            await self.end_session(found.session.user_id, found.session.id, "refresh token reused")
            log.warning("refresh token was reused", session=found.session.id, user=found.session.user_id)
            raise Unauthenticated("the refresh token was used before: log in again", code="refresh-reuse")
        if now >= min(found.expires_at, found.session.ends_at):
            raise Unauthenticated("the refresh token has expired: log in again", code="invalid-refresh-token")
        user = await self._store.user_by_id(found.session.user_id)
        if user is None:
            raise Unauthenticated(
                "the refresh token is not valid: log in again", code="invalid-refresh-token"
            )
        _check_enabled(user)
        following = rules.successor(refresh_token, self._secret)
        expires = min(now + timedelta(days=rules.REFRESH_DAYS), found.session.ends_at)
        await self._store.rotate(
            rules.token_hash(refresh_token), rules.token_hash(following), found.session.id, now, expires
        )
        return self._pair(user, found.session.id, following)

    async def logout(self, refresh_token: str) -> None:
        """End the session of a refresh token; nothing happens when there is none."""
        found = await self._store.refresh_token(rules.token_hash(refresh_token))
        if found is not None:
            await self.end_session(found.session.user_id, found.session.id, "logout")

    async def end_session(self, user_id: str, session_id: str, reason: str) -> None:
        """End one session of a user. Raises `NotFound` when it is not his or has ended."""
        ended = await self._store.revoke_sessions(user_id, reason, self._now(), only=session_id)
        await self._revocations.revoke([session_id] if ended else [])
        if not ended:
            raise NotFound("there is no such session")

    async def end_all(self, user_id: str, reason: str, keep: str | None = None) -> int:
        """End all sessions of a user, but for `keep`; how many."""
        ended = await self._store.revoke_sessions(user_id, reason, self._now(), keep=keep)
        await self._revocations.revoke(ended)
        return len(ended)

    async def sessions(self, user_id: str) -> list[Session]:
        """The living sessions of a user, newest first."""
        now = self._now()
        return [
            item
            for item in await self._store.sessions(user_id)
            if item.revoked_at is None and item.ends_at > now
        ]

    async def user(self, user_id: str) -> User:
        """A user. Raises `NotFound`: a token from elsewhere names somebody who has no account here."""
        found = await self._store.user_by_id(user_id) if rules.is_user_id(user_id) else None
        if found is None:
            raise NotFound("this caller has no account here: the token comes from elsewhere")
        return found

    async def page(self, limit: int, after: tuple[datetime, str] | None) -> list[User]:
        """Users, newest first, after a position (created, id)."""
        return await self._store.list_users(limit, after)

    async def change_password(self, user_id: str, old: str, new: str, keep: str | None) -> None:
        """A new password; every other session ends."""
        user = await self.user(user_id)
        if user.locked_until is not None and user.locked_until > self._now():
            raise LimitExceeded("too many wrong passwords: wait", retry_after_seconds=60)
        if not await self._passwords.verify(user.password_hash, old):
            pause = rules.lock_seconds(user.failed_logins + 1)
            until = self._now() + timedelta(seconds=pause) if pause else None
            await self._store.record_failure(user.id, until)
            raise Unauthenticated("the present password is wrong", code="wrong-credentials")
        self._check_password(new, user.email)
        await self._store.set_password(user.id, await self._passwords.hash(new), self._now())
        await self.end_all(user.id, "password changed", keep)

    async def forgot(self, email: str) -> None:
        """Mail a single-use token to an address that has an account in use; nothing tells whether it has one."""
        user = await self._store.user_by_email(email.strip().lower())
        if user is not None and user.disabled_at is None:
            await self._mail(
                user,
                "reset",
                "Reset your password",
                "Choose a new password by sending this token to POST /v1/auth/password/reset",
            )

    async def reset(self, token: str, password: str) -> None:
        """A new password by a mailed token; all sessions end. Who is disabled stays so, with the old password."""
        self._check_password(password, "")
        user_id = await self._store.use_mail_token(rules.token_hash(token), "reset", self._now())
        if user_id is None:
            raise Invalid("the token is not valid, was used or has expired", code="invalid-token")
        _check_enabled(await self.user(user_id))
        await self._store.set_password(user_id, await self._passwords.hash(password), self._now())
        await self.end_all(user_id, "password reset")

    async def verify_email(self, token: str) -> None:
        """The address of a mailed token is proven."""
        user_id = await self._store.use_mail_token(rules.token_hash(token), "verify", self._now())
        if user_id is None:
            raise Invalid("the token is not valid, was used or has expired", code="invalid-token")
        await self._store.set_verified(user_id, self._now())

    async def delete(self, user_id: str, password: str) -> None:
        """Delete an account with its sessions and keys; the password is asked for once more."""
        user = await self.user(user_id)
        if not await self._passwords.verify(user.password_hash, password):
            raise Unauthenticated("the password is wrong", code="wrong-credentials")
        ended = await self._store.delete_user(user_id)
        await self._revocations.revoke([*ended, f"user:{user_id}"])

    def _check_password(self, password: str, email: str) -> None:
        fault = rules.password_fault(password, email)
        if fault is not None:
            raise Invalid(
                f"the password {fault}",
                code="weak-password",
                errors=(FieldError("/password", "weak-password", fault),),
            )

    async def _mail(self, user: User, purpose: str, subject: str, text: str) -> None:
        token = secrets.token_urlsafe(32)
        minutes = rules.MAIL_TOKEN_MINUTES[purpose]
        expires = self._now() + timedelta(minutes=minutes)
        await self._store.add_mail_token(rules.token_hash(token), user.id, purpose, expires)
        await self._mailer.send(
            user.email,
            f"CryptoPulse: {subject}",
            f"{text} at {self._public_url}:\n\n{token}\n\nIt works once, for {minutes} minutes. "
            "If you did not ask for this mail, do nothing.\n",
        )


def _check_enabled(user: User) -> None:
    if user.disabled_at is not None:
        raise Forbidden(rules.DISABLED, code="account-disabled")
