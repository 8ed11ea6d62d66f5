"""Reading requests: JSON without a float between, validated models, versions, keys; and writing answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError

from cryptopulse.common.contracts.http.spec import RouteSpec
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import FieldError, Forbidden, Invalid, NotFound
from cryptopulse.common.security.identity import caller
from cryptopulse.common.web.problems import field_error
from cryptopulse.portfolio.application.ports import Answer

ModelT = TypeVar("ModelT", bound=BaseModel)
MAX_ID: Final = 2**63 - 1
MAX_DEPTH_ERRORS: Final = 20
_KEY: Final = re.compile(r'^"?([\x21\x23-\x7e]{1,200})"?$')
_ETAG: Final = re.compile(r'^(?:W/)?"?v?(\d{1,18})"?$')


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: who asks, for what, and its raw body."""

    owner_id: str
    identity: Identity
    request: Request
    spec: RouteSpec
    body: bytes

    def id(self, name: str) -> int:
        """An id of the path. What cannot be an id is not there: raises `NotFound`."""
        text = str(self.request.path_params[name])
        if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MAX_ID:
            what = name.removesuffix("_id")
            raise NotFound(
                f"There is no such {what}{'' if what == 'portfolio' else ' in this portfolio'}.",
                code=f"{what}-not-found",
            )
        return int(text)

    def model(self, kind: type[ModelT]) -> ModelT:
        """The body. Raises `Invalid` naming every fault."""
        return validated(kind, parsed_json(self.body), "body")

    def query(self, kind: type[ModelT]) -> ModelT:
        """The query parameters; one that is given twice or unknown is refused."""
        given: dict[str, str] = {}
        for name, value in self.request.query_params.multi_items():
            if name in given:
                raise Invalid(
                    f"{name} is given twice.", errors=(FieldError(name, "duplicate", "give it once"),)
                )
            given[name] = value
        return validated(kind, given, "query")

    def if_match(self) -> int | None:
        """The version that the caller saw, None when it does not say or says `*`."""
        text = self.request.headers.get("if-match", "").strip()
        if not text or text == "*":
            return None
        found = _ETAG.match(text)
        if found is None:
            raise Invalid(
                "If-Match is the ETag of an earlier answer.",
                errors=(FieldError("If-Match", "invalid", "say the ETag"),),
            )
        return int(found[1])

    def idempotency_key(self) -> str | None:
        """The key of a request that may be repeated."""
        text = self.request.headers.get("idempotency-key", "").strip()
        if not text:
            return None
        found = _KEY.match(text)
        if found is None:
            raise Invalid(
                "Idempotency-Key has 1 to 200 printable characters.",
                errors=(FieldError("Idempotency-Key", "invalid", "1 to 200 printable characters"),),
            )
        return found[1]

    def request_hash(self) -> bytes:
        """What makes a repeated request the same one."""
        digest = hashlib.sha256(
            f"{self.request.method} {self.request.url.path}?{self.request.url.query}\n".encode()
        )
        digest.update(self.body)
        return digest.digest()


async def asked(request: Request, spec: RouteSpec) -> Asked:
    """The request with its verified caller. Raises `Unauthenticated`, `Forbidden`."""
    identity = caller(request)
    if spec.scope is not None:
        if identity.user_id is None:
            raise Forbidden("This needs a user.", code="user-required")
        if not identity.allows(spec.scope) and not identity.allows(spec.scope.partition(":")[0]):
            raise Forbidden(f"The credential lacks the scope {spec.scope}.", code="missing-scope")
    return Asked(identity.user_id or "", identity, request, spec, await request.body())


def parsed_json(body: bytes) -> Any:
    """JSON with numbers as exact decimals. Raises `Invalid`."""
    try:
        return json.loads(body, parse_float=_number, parse_int=_integer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        raise Invalid(f"The body is not valid JSON: {reason}.", code="malformed-json") from error


def _number(text: str) -> Decimal:
    if len(text) > 100:
        raise ValueError("a number is too long")
    return Decimal(text)


def _integer(text: str) -> int:
    if len(text) > 100:
        raise ValueError("a number is too long")
    return int(text)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def validated(kind: type[ModelT], data: Any, place: str) -> ModelT:
    """A model of plain data. Raises `Invalid` naming every fault."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = tuple(
            field_error({**fault, "loc": (place, *fault["loc"])})
            for fault in error.errors(include_url=False, include_input=False)[:MAX_DEPTH_ERRORS]
        )
        detail = "; ".join(f"{fault.pointer} {fault.detail}" for fault in faults[:3])
        raise Invalid(detail, errors=faults) from error


def etag_of(version: int) -> str:
    """A portfolio's version as a strong ETag."""
    return f'"v{version}"'


def answer_of(model: BaseModel, *, status: int = 200, version: int | None = None) -> Answer:
    """A model as an answer."""
    body = model.model_dump_json().encode()
    return Answer(status, None if version is None else etag_of(version), body)


def response_of(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as a response; never cached by anyone but the caller."""
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if answer.etag:
        sent["ETag"] = answer.etag
    return Response(answer.body, status_code=answer.status, media_type="application/json", headers=sent)
