"""The request that is being served, for whoever calls on its behalf: its id travels on to other services and messages."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from typing import Final

REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
_ACCEPTED: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")


def current_request_id() -> str:
    """The id of the request in hand, empty outside of one."""
    return REQUEST_ID.get()


def accepted_request_id(given: str | None) -> str:
    """A caller's id when it has the form `^[A-Za-z0-9_-]{8,64}$`, a new one otherwise."""
    if given is not None and _ACCEPTED.fullmatch(given):
        return given
    return secrets.token_urlsafe(16)
