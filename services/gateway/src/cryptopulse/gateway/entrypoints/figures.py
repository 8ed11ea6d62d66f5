"""The gateway's own metrics: sockets, frames, slow clients, refusals by limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptopulse.common.telemetry.metrics import counter, gauge
from cryptopulse.gateway.application.fan_out import Hub

_OPEN: Final = gauge("cryptopulse_sockets_open", "WebSocket connections that are open.", ("tier",))
_SENT: Final = counter("cryptopulse_socket_frames_sent_total", "Stream frames written to clients.")
_SLOW: Final = counter("cryptopulse_socket_slow_closes_total", "Clients closed because they did not read.")
_LIMITED: Final = counter("cryptopulse_rate_limited_total", "Requests refused by a rate limit.", ("policy",))


@dataclass
class Figures:
    """Publishes what the engine has counted since the last time."""

    hub: Hub
    _sent: int = 0
    _slow: int = 0

    def publish(self) -> None:
        """Bring the metrics up to date."""
        tiers: dict[str, int] = {}
        for connection in self.hub.connections.values():
            tiers[connection.identity.tier] = tiers.get(connection.identity.tier, 0) + 1
        for tier in ("anonymous", "free", "pro", "enterprise"):
            _OPEN.labels(tier).set(tiers.get(tier, 0))
        _SENT.inc(self.hub.frames_written - self._sent)
        _SLOW.inc(self.hub.closed_slow - self._slow)
        self._sent, self._slow = self.hub.frames_written, self.hub.closed_slow


def count_refusal(policy: str) -> None:
    """A request was refused by a limit."""
    _LIMITED.labels(policy).inc()
