"""The check that schemathesis loads: no answer may be a server's fault, except the documented one of a price that is too old."""

from __future__ import annotations

from typing import Any

import schemathesis

SERVER_ERROR = 500


@schemathesis.check
def sound_answers(ctx: Any, response: Any, case: Any) -> None:
    """5xx only as 503 `stale-price`, which `max_age_ms` asks for."""
    if response.status_code < SERVER_ERROR:
        return
    kind = response.headers.get("content-type", [""])[0]
    code = response.json().get("code") if kind.startswith("application/problem+json") else None
    if (response.status_code, code) != (503, "stale-price"):
        raise AssertionError(f"{response.status_code} {code or response.text[:300]}")
