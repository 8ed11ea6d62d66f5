"""HTTP requests and responses as values, and the seam that a venue implements to be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

if TYPE_CHECKING:
    from tools.venue_sim.net.websocket import WsConnection


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; header names are lower case, `target` is the undecoded path with its query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    peer: str = ""
    path: str = field(init=False)
    query: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.target if self.target.startswith("/") else "/" + self.target)
        object.__setattr__(self, "path", unquote(parts.path))
        found = parse_qs(parts.query, keep_blank_values=True)
        object.__setattr__(self, "query", {name: values[-1] for name, values in found.items()})

    def values(self, name: str) -> list[str]:
        """Every value of a query parameter that was given more than once, or as a comma list."""
        found = parse_qs(urlsplit(self.target).query).get(name, [])
        return [part for value in found for part in value.split(",") if part]

    def json(self) -> Any:
        """The body as JSON; an empty body is an empty object."""
        return orjson.loads(self.body) if self.body else {}


@dataclass(slots=True)
class Response:
    """One HTTP answer. `cut` sends half of the body and breaks the connection; `hang` never answers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json;charset=UTF-8"
    cut: bool = False
    hang: bool = False


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer with a JSON body."""
    return Response(status, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS), headers or {})


class Session(Protocol):
    """One WebSocket client as its venue sees it."""

    def on_text(self, data: bytes, /) -> None:
        """A complete text message arrived."""

    def on_pong(self, data: bytes, /) -> None:
        """A pong arrived, asked for or not."""

    def on_ping(self) -> None:
        """A ping arrived; the connection has already answered it."""

    def on_close(self) -> None:
        """The connection is gone, for whatever reason. Called once."""


class Site(Protocol):
    """What listens on one port."""

    async def http(self, request: Request, /) -> Response:
        """Answer a plain request."""

    def websocket(self, request: Request, connection: WsConnection, /) -> Session | Response:
        """Take a WebSocket client in, or refuse it with an HTTP answer."""
