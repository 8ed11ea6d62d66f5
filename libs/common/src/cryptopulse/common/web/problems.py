"""Errors as `application/problem+json` (RFC 9457): one shape for every refusal and failure, with the field and the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cryptopulse.common import errors
from cryptopulse.common.errors import FieldError
from cryptopulse.common.telemetry.logging import get_logger

MEDIA_TYPE: Final = "application/problem+json"
TYPE_BASE: Final = "/problems/"
"""Where the pages about problem types live, relative to the API."""
RETRY_AFTER_SECONDS: Final = 2
MAX_ERRORS: Final = 50
UNEXPECTED: Final = "Something went wrong on our side; the request id helps to find it."

log = get_logger(__name__)

_STATUS_OF: Final[tuple[tuple[type[errors.CryptoPulseError], int], ...]] = (
    (errors.NotFound, 404),
    (errors.Forbidden, 403),
    (errors.Unauthenticated, 401),
    (errors.Conflict, 409),
    (errors.PreconditionFailed, 412),
    (errors.LimitExceeded, 429),
    (errors.InvalidCursor, 400),
    (errors.Invalid, 422),
    (errors.Refused, 422),
    (errors.Retryable, 503),
)
_CODE_OF: Final[dict[int, tuple[str, str]]] = {
    400: ("bad-request", "Bad request"),
    401: ("unauthenticated", "Unauthenticated"),
    403: ("forbidden", "Forbidden"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    406: ("not-acceptable", "Not acceptable"),
    409: ("conflict", "Conflict"),
    411: ("length-required", "Length required"),
    412: ("precondition-failed", "Precondition failed"),
    413: ("body-too-large", "Body too large"),
    415: ("unsupported-media-type", "Unsupported media type"),
    422: ("invalid", "Invalid request"),
    429: ("limit-exceeded", "Limit exceeded"),
    500: ("internal-error", "Internal error"),
    502: ("bad-gateway", "Bad gateway"),
    503: ("unavailable", "Temporarily unavailable"),
    504: ("timeout", "Timed out"),
}
_FIXES: Final[dict[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is not known here: remove it, or check its spelling",
    "json_invalid": "is not valid JSON",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
}
_FIELD_CODES: Final[dict[str, str]] = {
    "missing": "required",
    "extra_forbidden": "unknown-field",
    "json_invalid": "malformed-json",
}


def status_of(error: errors.CryptoPulseError) -> int:
    """The HTTP status of an error of the house."""
    return next((status for kind, status in _STATUS_OF if isinstance(error, kind)), 500)


def problem_body(
    status: int,
    *,
    detail: str = "",
    code: str | None = None,
    title: str | None = None,
    request_id: str = "",
    instance: str = "",
    field_errors: Sequence[FieldError] = (),
    type_base: str = TYPE_BASE,
) -> dict[str, Any]:
    """The body of a problem. `code` is stable, for programs; `detail` is for people."""
    default_code, default_title = _CODE_OF.get(status, (f"http-{status}", _phrase(status)))
    code = code or default_code
    return {
        "type": f"{type_base}{code}",
        "title": title or default_title,
        "status": status,
        "detail": detail or default_title,
        "instance": instance,
        "code": code,
        "request_id": request_id,
        "errors": [_field(error) for error in field_errors[:MAX_ERRORS]],
    }


def problem_response(
    status: int,
    *,
    request: Request | None = None,
    detail: str = "",
    code: str | None = None,
    title: str | None = None,
    field_errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    retry_after_seconds: float | None = None,
) -> Response:
    """A problem as a response; never cached. `request` gives it the request's id and path."""
    body = problem_body(
        status,
        detail=detail,
        code=code,
        title=title,
        request_id=request_id_of(request) if request is not None else "",
        instance=request.url.path if request is not None else "",
        field_errors=field_errors,
    )
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if retry_after_seconds is not None:
        sent["Retry-After"] = str(max(1, round(retry_after_seconds + 0.499)))
    if status == HTTPStatus.UNAUTHORIZED:
        sent.setdefault("WWW-Authenticate", "Bearer")
    return Response(orjson.dumps(body), status_code=status, headers=sent, media_type=MEDIA_TYPE)


def request_id_of(request: Request) -> str:
    """The id of a request, empty where no middleware gave one."""
    value = request.scope.get("state", {}).get("request_id", "")
    return value if isinstance(value, str) else ""


def response_of(error: errors.CryptoPulseError, request: Request | None = None) -> Response:
    """An error of the house as a problem."""
    status = status_of(error)
    if isinstance(error, errors.LimitExceeded):
        return problem_response(
            status,
            request=request,
            detail=error.detail,
            code=error.code,
            field_errors=error.errors,
            retry_after_seconds=error.retry_after_seconds,
        )
    if isinstance(error, errors.Refused):
        return problem_response(
            status, request=request, detail=error.detail, code=error.code, field_errors=error.errors
        )
    if isinstance(error, errors.Retryable):
        wait = getattr(error, "retry_after_seconds", None) or RETRY_AFTER_SECONDS
        what = _what_is_away(error)
        return problem_response(
            status,
            request=request,
            detail=f"{what}; try again",
            code=_code_away(error),
            retry_after_seconds=wait,
        )
    return problem_response(status, request=request)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every refusal and failure of `app` with a problem; unexpected errors say nothing about the inside."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.CryptoPulseError)
        if isinstance(error, errors.Retryable):
            log.warning(
                "dependency was away", path=request.url.path, error=str(error), kind=type(error).__name__
            )
        return response_of(error, request)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code in {204, 304} or error.status_code < 200:
            return Response(status_code=error.status_code, headers=error.headers)
        # FastAPI lets any JSON stand in `detail`, whatever Starlette's annotation says.
        given: object = error.detail
        detail = given if isinstance(given, str) else ""
        generic = detail == _phrase(error.status_code)
        return problem_response(
            error.status_code,
            request=request,
            detail=_explain(error.status_code, request) if generic or not detail else detail,
            headers=error.headers,
        )

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = error.errors()
        if any(fault.get("type") == "json_invalid" for fault in found):
            position = next(fault["loc"][-1] for fault in found if fault.get("type") == "json_invalid")
            reason = found[0].get("ctx", {}).get("error", "")
            return problem_response(
                400,
                request=request,
                code="malformed-json",
                title="Malformed JSON",
                detail=f"The body is not valid JSON: {reason} at position {position}.",
            )
        faults = tuple(field_error(fault) for fault in found)
        detail = "; ".join(f"{fault.pointer or 'body'} {fault.detail}" for fault in faults[:3])
        return problem_response(422, request=request, detail=detail, field_errors=faults)

    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("request failed", path=request.url.path, exc_info=error)
        return problem_response(500, request=request, detail=UNEXPECTED)

    app.add_exception_handler(errors.CryptoPulseError, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


def field_error(fault: Mapping[str, Any]) -> FieldError:
    """A fault of pydantic as ours: a JSON pointer into the body, or the name of a parameter; and how to mend it."""
    place = tuple(str(part) for part in fault.get("loc", ()))
    kind = str(fault.get("type", "invalid"))
    if place and place[0] == "body":
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in place[1:]) or "/"
    elif place and place[0] in {"query", "path", "header", "cookie"}:
        pointer = place[1] if len(place) > 1 else place[0]
    else:
        pointer = "".join(f"/{part}" for part in place) or "/"
    message = _FIXES.get(kind)
    if message is None:
        text = str(fault.get("msg", "is not valid")).removeprefix("Value error, ").removeprefix("Input ")
        message = text[:1].lower() + text[1:]
    return FieldError(pointer=pointer, code=_FIELD_CODES.get(kind, kind.replace("_", "-")), detail=message)


def _field(error: FieldError) -> dict[str, str]:
    name = "pointer" if error.pointer.startswith(("/", "#")) else "parameter"
    return {name: error.pointer, "code": error.code, "detail": error.detail}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _explain(status: int, request: Request) -> str:
    path = request.url.path
    return {
        404: f"There is nothing at {path}.",
        405: f"{request.method} is not possible at {path}.",
        413: "The body is larger than this endpoint takes.",
    }.get(status, "")


def _what_is_away(error: errors.Retryable) -> str:
    if isinstance(error, errors.StoreUnavailable):
        return "A store does not answer at the moment"
    if isinstance(error, errors.BusUnavailable):
        return "The message bus does not answer at the moment"
    return "A part of the system does not answer at the moment"


def _code_away(error: errors.Retryable) -> str:
    if isinstance(error, errors.StoreUnavailable):
        return "store-unavailable"
    if isinstance(error, errors.BusUnavailable):
        return "bus-unavailable"
    if isinstance(error, errors.UpstreamUnavailable):
        return "upstream-unavailable"
    return "unavailable"
