"""The life of a service process: start, health, supervised loops, drain, exit code.

The names are looked up on first use, so that `python -m cryptopulse.common.runtime.healthcheck` stays as light as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptopulse.common.runtime.command import main, run_service
    from cryptopulse.common.runtime.service import Runtime
    from cryptopulse.common.telemetry.checks import Check

__all__ = ["Check", "Runtime", "main", "run_service"]

_PLACES = {
    "Check": "cryptopulse.common.telemetry.checks",
    "Runtime": "cryptopulse.common.runtime.service",
    "main": "cryptopulse.common.runtime.command",
    "run_service": "cryptopulse.common.runtime.command",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
