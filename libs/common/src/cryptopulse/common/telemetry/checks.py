"""The state of one dependency, as a readiness check answers it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """`ok` with a short `detail` for people; `age_seconds` says how old the knowledge is, None when it was just made."""

    ok: bool
    detail: str = ""
    age_seconds: float | None = None
