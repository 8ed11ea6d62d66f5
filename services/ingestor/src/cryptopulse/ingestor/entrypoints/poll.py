"""Scheduled REST: the reference source's prices and coins."""

from __future__ import annotations

from cryptopulse.common.runtime import Runtime
from cryptopulse.ingestor.application.reference import ReferencePoller


def register(runtime: Runtime, poller: ReferencePoller | None) -> None:
    """Register the poller's loops; without the reference source nothing is polled."""
    if poller is not None:
        runtime.loop("reference", poller.run)
        runtime.loop("reference-status", poller.publish_status)
