"""API keys over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from cryptopulse.common.contracts.http.spec import WRITE_ERRORS, RouteSpec
from cryptopulse.common.web.pagination import Cursor
from cryptopulse.gateway.application.manage_keys import OVERLAP_MAX_SECONDS
from cryptopulse.gateway.application.ports import KeyRecord
from cryptopulse.gateway.application.use_cases import UseCases
from cryptopulse.gateway.domain.api_keys import PREFIX
from cryptopulse.gateway.entrypoints.http.operations import Call, Operation, empty_response

Name = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$", examples=["trading bot"])
]
Scopes = Annotated[list[str], Field(min_length=1, max_length=20, examples=[["alerts", "portfolio:read"]])]
Addresses = Annotated[list[str], Field(max_length=20, examples=[["203.0.113.0/24"]])]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class KeyCreate(_In):
    """A new key. No `expires_at`: it lives until it is deleted. No `addresses`: it works from everywhere."""

    name: Name
    scopes: Scopes
    addresses: Addresses = []
    expires_at: AwareDatetime | None = None


class KeyUpdate(_In):
    """What to change; what is left out stays."""

    name: Name | None = None
    scopes: Scopes | None = None
    addresses: Addresses | None = None
    expires_at: AwareDatetime | None = None


class KeyRotate(_In):
    """How long the old key goes on beside the new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=OVERLAP_MAX_SECONDS)] = 86_400


class KeyQuery(_In):
    """Paging."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=512)] = None


class KeyView(BaseModel):
    """A key without its secret; `prefix` is how it begins."""

    id: str
    prefix: str
    name: str
    scopes: list[str]
    addresses: list[str]
    tier: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    last_address: str | None
    replaces: str | None


class KeyCreated(KeyView):
    """A new key with its secret `key`, which is never shown again."""

    key: str


class KeyList(BaseModel):
    """Your keys, newest first."""

    data: list[KeyView]
    next_cursor: str | None


def _fields(record: KeyRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "prefix": f"{PREFIX}{record.id}",
        "name": record.name,
        "scopes": record.scopes,
        "addresses": record.addresses,
        "tier": record.tier,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "last_used_at": record.last_used_at,
        "last_address": record.last_address,
        "replaces": record.replaces,
    }


def _dump(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json().encode(), status, media_type="application/json")


async def create_key(use: UseCases, call: Call) -> Response:
    """Make a key."""
    form = call.model(KeyCreate)
    record, text = await use.keys.create(
        call.identity,
        name=form.name,
        wanted=form.scopes,
        addresses=form.addresses,
        expires_at=form.expires_at,
    )
    return _dump(KeyCreated(**_fields(record), key=text), 201)


async def list_keys(use: UseCases, call: Call) -> Response:
    """List keys."""
    query = call.query_model(KeyQuery)
    cursors = Cursor(use.cursor_secret)
    binding = f"api-keys:{call.user_id}"
    after = None
    if query.cursor is not None:
        at, ident = cursors.decode(query.cursor, binding)
        after = (datetime.fromisoformat(str(at)), str(ident))
    rows = await use.keys.page(call.identity, query.limit, after)
    following = None
    if len(rows) > query.limit:
        rows = rows[: query.limit]
        following = cursors.encode((rows[-1].created_at.isoformat(), rows[-1].id), binding)
    return _dump(KeyList(data=[KeyView(**_fields(row)) for row in rows], next_cursor=following))


async def get_key(use: UseCases, call: Call) -> Response:
    """One key."""
    return _dump(KeyView(**_fields(await use.keys.one(call.identity, call.params["key_id"]))))


async def update_key(use: UseCases, call: Call) -> Response:
    """Change a key."""
    form = call.model(KeyUpdate)
    changes = {name: getattr(form, name) for name in form.model_fields_set}
    changes = {name: value for name, value in changes.items() if value is not None or name == "expires_at"}
    return _dump(KeyView(**_fields(await use.keys.change(call.identity, call.params["key_id"], changes))))


async def delete_key(use: UseCases, call: Call) -> Response:
    """End a key."""
    await use.keys.revoke(call.identity, call.params["key_id"])
    return empty_response()


async def rotate_key(use: UseCases, call: Call) -> Response:
    """Replace a key."""
    form = call.model(KeyRotate) if call.body else KeyRotate()
    record, text = await use.keys.rotate(call.identity, call.params["key_id"], form.overlap_seconds)
    return _dump(KeyCreated(**_fields(record), key=text), 201)


def _write(method: str, path: str, name: str, summary: str, **more: Any) -> RouteSpec:
    return RouteSpec(
        method,  # type: ignore[arg-type]  # literals below
        path, name, summary, None, 2, more.get("request"), more.get("response"), status=more.get("status", 200),
        tags=("api-keys",), bucket="writes", errors=WRITE_ERRORS,
    )  # fmt: skip


OPERATIONS: Final = (
    Operation(
        _write("POST", "/v1/api-keys", "create_api_key", "Make an API key", request=KeyCreate, response=KeyCreated, status=201),
        create_key, auth="login", is_secret=True,
    ),
    Operation(
        RouteSpec("GET", "/v1/api-keys", "list_api_keys", "Your API keys", None, 2, None, KeyList, query=KeyQuery, tags=("api-keys",)),
        list_keys, auth="login",
    ),
    Operation(
        RouteSpec("GET", "/v1/api-keys/{key_id}", "get_api_key", "One API key", None, 2, None, KeyView, tags=("api-keys",)),
        get_key, auth="login",
    ),
    Operation(
        _write("PATCH", "/v1/api-keys/{key_id}", "update_api_key", "Change an API key", request=KeyUpdate, response=KeyView),
        update_key, auth="login",
    ),
    Operation(
        _write("DELETE", "/v1/api-keys/{key_id}", "delete_api_key", "End an API key", status=204), delete_key, auth="login",
    ),
    Operation(
        _write("POST", "/v1/api-keys/{key_id}/rotate", "rotate_api_key", "Replace an API key", request=KeyRotate, response=KeyCreated, status=201),
        rotate_key, auth="login", is_secret=True,
    ),
)  # fmt: skip
