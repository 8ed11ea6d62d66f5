"""Accounts over HTTP: sign-up, login, refresh, logout, sessions, passwords, profile."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from cryptopulse.common.contracts.http.spec import WRITE_ERRORS, RouteSpec
from cryptopulse.common.errors import NotFound
from cryptopulse.gateway.application.accounts import Device, TokenPair
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain.accounts import PASSWORD_MAX, PASSWORD_MIN, Session, User
from cryptopulse.gateway.entrypoints.http.operations import (
    Auth,
    Call,
    Handler,
    Operation,
    empty_response,
    json_response,
)

Email = Annotated[
    str,
    Field(
        min_length=3,
        max_length=254,
        pattern=r"^[^\s@\x00-\x1f]{1,64}@[^\s@\x00-\x1f]+\.[^\s@.\x00-\x1f]+$",
        examples=["ada@example.org"],
        description="An e-mail address; case does not count.",
    ),
]
Password = Annotated[
    str, Field(min_length=PASSWORD_MIN, max_length=PASSWORD_MAX, examples=["correct horse battery"])
]
OpaqueToken = Annotated[str, Field(min_length=20, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Credentials(_In):
    """An address and a password."""

    email: Email
    password: Password


class LoginRequest(_In):
    """An address and a password; nothing tells which of the two is wrong."""

    email: Annotated[str, Field(max_length=254, examples=["ada@example.org"])]
    password: Annotated[str, Field(max_length=PASSWORD_MAX, examples=["correct horse battery"])]


class RefreshRequest(_In):
    """A refresh token, good for one use."""

    refresh_token: OpaqueToken


class PasswordChange(_In):
    """The present password and the next."""

    old_password: Annotated[str, Field(max_length=PASSWORD_MAX)]
    new_password: Password


class Forgot(_In):
    """Whose password is forgotten."""

    email: Email


class Reset(_In):
    """The token from the mail, and the new password."""

    token: OpaqueToken
    password: Password


class VerifyEmail(_In):
    """The token from the mail."""

    token: OpaqueToken


class DeleteAccount(_In):
    """The password once more."""

    password: Annotated[str, Field(max_length=PASSWORD_MAX)]


class Account(BaseModel):
    """An account."""

    id: str
    email: str
    tier: str
    email_verified: bool
    created_at: datetime


class TokenAnswer(BaseModel):
    """A token pair. The access token goes into `Authorization: Bearer`; refresh before `expires_in` seconds are over."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme
    expires_in: Annotated[int, Field(examples=[600])]


class SessionView(BaseModel):
    """One login on one device."""

    id: str
    device: str
    address: str
    created_at: datetime
    last_used_at: datetime
    ends_at: datetime
    current: bool


class SessionList(BaseModel):
    """Living sessions, newest first."""

    data: list[SessionView]
    next_cursor: str | None = None


class Accepted(BaseModel):
    """Taken note of; the same answer whether or not there is such an account."""

    accepted: Literal[True] = True


class Ended(BaseModel):
    """How many sessions ended."""

    ended: int


def _dump(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json().encode(), status, media_type="application/json")


def _account(user: User) -> Account:
    return Account(
        id=user.id,
        email=user.email,
        tier=user.tier,
        email_verified=user.verified_at is not None,
        created_at=user.created_at,
    )


def _tokens(pair: TokenPair) -> Response:
    return _dump(
        TokenAnswer(
            access_token=pair.access_token, refresh_token=pair.refresh_token, expires_in=pair.expires_in
        )
    )


def _session(item: Session, current: str | None) -> SessionView:
    return SessionView(
        id=item.id,
        device=item.device,
        address=item.address,
        created_at=item.created_at,
        last_used_at=item.last_used_at,
        ends_at=item.ends_at,
        current=item.id == current,
    )


async def register(use: UseCases, call: Call) -> Response:
    """Sign up."""
    form = call.model(Credentials)
    return _dump(_account(await use.accounts.register(form.email, form.password)), 201)


async def login(use: UseCases, call: Call) -> Response:
    """Log in."""
    form = call.model(LoginRequest)
    await use.limits.count_account(f"account:{form.email.strip().lower()}")
    device = Device((call.header("user-agent") or "")[:200], call.address)
    return _tokens(await use.accounts.login(form.email, form.password, device))


async def refresh(use: UseCases, call: Call) -> Response:
    """The next token pair."""
    return _tokens(await use.accounts.refresh(call.model(RefreshRequest).refresh_token))


async def logout(use: UseCases, call: Call) -> Response:
    """End a session."""
    try:
        await use.accounts.logout(call.model(RefreshRequest).refresh_token)
    except NotFound:
        return empty_response()
    return empty_response()


async def logout_all(use: UseCases, call: Call) -> Response:
    """End all sessions."""
    return json_response({"ended": await use.accounts.end_all(call.user_id, "logout everywhere")})


async def list_sessions(use: UseCases, call: Call) -> Response:
    """Where this account is logged in."""
    user = await use.accounts.user(call.user_id)
    rows = [_session(item, call.identity.session_id) for item in await use.accounts.sessions(user.id)]
    return _dump(SessionList(data=rows))


async def delete_session(use: UseCases, call: Call) -> Response:
    """End one session."""
    await use.accounts.end_session(call.user_id, call.params["session_id"], "ended by its user")
    return empty_response()


async def change_password(use: UseCases, call: Call) -> Response:
    """A new password; other sessions end."""
    form = call.model(PasswordChange)
    await use.limits.count_account(f"account:{call.user_id}")
    await use.accounts.change_password(
        call.user_id, form.old_password, form.new_password, call.identity.session_id
    )
    return empty_response()


async def forgot(use: UseCases, call: Call) -> Response:
    """Mail a reset token."""
    email = call.model(Forgot).email
    await use.limits.count_account(f"forgot:{email.strip().lower()}")
    await use.accounts.forgot(email)
    return _dump(Accepted(), 202)


async def reset(use: UseCases, call: Call) -> Response:
    """A new password by a mailed token."""
    form = call.model(Reset)
    await use.accounts.reset(form.token, form.password)
    return empty_response()


async def verify_email(use: UseCases, call: Call) -> Response:
    """Prove the address."""
    await use.accounts.verify_email(call.model(VerifyEmail).token)
    return empty_response()


async def get_me(use: UseCases, call: Call) -> Response:
    """The caller's account."""
    return _dump(_account(await use.accounts.user(call.user_id)))


async def delete_me(use: UseCases, call: Call) -> Response:
    """Delete the account."""
    form = call.model(DeleteAccount)
    await use.limits.count_account(f"account:{call.user_id}")
    await use.accounts.delete(call.user_id, form.password)
    return empty_response()


_ERRORS: Final = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)


def _post(
    path: str,
    name: str,
    summary: str,
    handler: Handler,
    request: type | None,
    response: type | None,
    status: int = 200,
    *,
    auth: Auth = "optional",
    cost: float = 5,
) -> Operation:
    return Operation(
        RouteSpec(
            "POST",
            f"/v1/auth/{path}",
            name,
            summary,
            None,
            cost,
            request,
            response,
            status=status,
            tags=("auth",),
            bucket="writes",
            errors=_ERRORS,
        ),
        handler,
        auth=auth,
        limit_bucket="auth",
        is_secret=response is TokenAnswer,
    )


OPERATIONS: Final = (
    _post("register", "register_account", "Sign up", register, Credentials, Account, 201, cost=1),
    _post("login", "create_session", "Log in", login, LoginRequest, TokenAnswer, cost=1),
    _post("refresh", "refresh_session", "Next token pair", refresh, RefreshRequest, TokenAnswer, cost=1),
    _post("logout", "end_session", "Log out", logout, RefreshRequest, None, 204, cost=1),
    _post("logout-all", "end_all_sessions", "Log out everywhere", logout_all, None, Ended, auth="login", cost=1),
    _post("password/change", "change_password", "Change the password", change_password, PasswordChange, None, 204, auth="login"),
    _post("password/forgot", "request_password_reset", "Mail a reset token", forgot, Forgot, Accepted, 202),
    _post("password/reset", "reset_password", "Set a password by token", reset, Reset, None, 204),
    _post("verify-email", "verify_email", "Prove an address by token", verify_email, VerifyEmail, None, 204),
    Operation(
        RouteSpec("GET", "/v1/auth/sessions", "list_sessions", "Where you are logged in", None, 1, None, SessionList, tags=("auth",)),
        list_sessions, auth="login",
    ),
    Operation(
        RouteSpec("DELETE", "/v1/auth/sessions/{session_id}", "delete_session", "End one session", None, 1, None, None, status=204,
                  tags=("auth",), bucket="writes", errors=WRITE_ERRORS),
        delete_session, auth="login",
    ),
    Operation(RouteSpec("GET", "/v1/me", "get_me", "Your account", None, 1, None, Account, tags=("auth",)), get_me, auth="login"),
    Operation(
        RouteSpec("POST", "/v1/me/delete", "delete_me", "Delete your account", None, 5, DeleteAccount, None, status=204,
                  tags=("auth",), bucket="writes", errors=WRITE_ERRORS),
        delete_me, auth="login", limit_bucket="auth",
    ),
)  # fmt: skip
