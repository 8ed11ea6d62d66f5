"""One endpoint as a value: what the gateway's route table, scopes, costs and OpenAPI document are derived from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Bucket = Literal["reads", "writes", "imports"]

READ_ERRORS: Final = (400, 401, 403, 404, 422, 429, 503)
WRITE_ERRORS: Final = (400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503)


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """One endpoint of a service's internal HTTP, which the gateway publishes under `/v1` with the same path.

    `path` is a template (`/portfolios/{portfolio_id}`), unique with `method`; `operation_id` is `verb_resource`,
    unique over all services. `scope` is what the caller must hold, None for public reads. `cost` is the price of one
    call in its rate-limit `bucket`. `request`, `response` and `query` are pydantic models, None where there is no
    body or no query; `media_types` are those of the request body, `response_media_types` those of the answer.
    `errors` lists the status codes of its problem documents. `public` False keeps a route inside: the gateway skips it.
    `body_limit` is the largest body in bytes where it is not the usual one. `more_responses` are other answers than
    `status`, each with its model.
    """

    method: Method
    path: str
    operation_id: str
    summary: str
    scope: str | None
    cost: float
    request: type | None
    response: type | None
    status: int = 200
    query: type | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    bucket: Bucket = "reads"
    media_types: tuple[str, ...] = ("application/json",)
    errors: tuple[int, ...] = READ_ERRORS
    response_media_types: tuple[str, ...] = ("application/json",)
    public: bool = True
    body_limit: int | None = None
    more_responses: tuple[tuple[int, type], ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's placeholders, in order."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))
