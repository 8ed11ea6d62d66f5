"""Settings of a service, read from the environment alone."""

from cryptopulse.common.config.settings import (
    DEFAULT_SYMBOLS,
    DatabaseSettings,
    ServiceSettings,
    SettingsError,
    Variable,
    describe,
    load,
)
from cryptopulse.common.config.types import (
    CommaList,
    HttpUrl,
    PostgresUrl,
    RabbitUrl,
    RedisUrl,
    SigningSecret,
    SymbolList,
)
from cryptopulse.common.contracts.services import SERVICES, ServiceFacts, facts_of

__all__ = [
    "DEFAULT_SYMBOLS",
    "SERVICES",
    "CommaList",
    "DatabaseSettings",
    "HttpUrl",
    "PostgresUrl",
    "RabbitUrl",
    "RedisUrl",
    "ServiceFacts",
    "ServiceSettings",
    "SettingsError",
    "SigningSecret",
    "SymbolList",
    "Variable",
    "describe",
    "facts_of",
    "load",
]
