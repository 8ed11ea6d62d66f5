"""The five services as facts: where each answers its internal HTTP, and its schema and role in Postgres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """Where a service answers its internal HTTP by default, and what it owns in Postgres (empty: nothing)."""

    port: int
    schema: str = ""
    role: str = ""


SERVICES: Final[dict[str, ServiceFacts]] = {
    "ingestor": ServiceFacts(port=9101),
    "indicators": ServiceFacts(port=9102, schema="market", role="cryptopulse_market"),
    "alerts": ServiceFacts(port=9103, schema="alerts", role="cryptopulse_alerts"),
    "portfolio": ServiceFacts(port=9104, schema="portfolio", role="cryptopulse_portfolio"),
    "gateway": ServiceFacts(port=9105, schema="identity", role="cryptopulse_identity"),
}
UNKNOWN_SERVICE: Final = ServiceFacts(port=9199)


def facts_of(service: str) -> ServiceFacts:
    """The facts of a service; a service that is not one of the five owns nothing and answers on 9199."""
    return SERVICES.get(service, UNKNOWN_SERVICE)
