"""Settings from the environment: typed, complete, each fault one readable line; nothing is read from files.

A field is read from `CRYPTOPULSE_<SERVICE>_<FIELD>`, except the names that all services share (`SHARED_NAMES`), which
are read without a prefix. `Field(validation_alias="NAME")` gives a field a shared name of its own choice.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

from cryptopulse.common.config.types import (
    FeedMode,
    HttpUrl,
    Level,
    LogFormat,
    PostgresUrl,
    RabbitUrl,
    RedisUrl,
    SigningSecrets,
    SymbolList,
)
from cryptopulse.common.contracts.services import ServiceFacts, facts_of
from cryptopulse.common.contracts.topics import DEFAULT_SHARDS

PREFIX: Final = "CRYPTOPULSE_"
SHARED_NAMES: Final = frozenset(
    {
        "BINANCE_API_URL",
        "BINANCE_WS_URL",
        "COINBASE_API_URL",
        "COINBASE_WS_URL",
        "COINGECKO_API_KEY",
        "COINGECKO_API_URL",
        "COINGECKO_PROXY_PREFIX",
        "CORS_ALLOWED_ORIGINS",
        "DATABASE_URL",
        "FEED",
        "INDICATORS_URL",
        "INGESTOR_URL",
        "ALERTS_URL",
        "PORTFOLIO_URL",
        "INTERNAL_JWT_SECRET",
        "JWT_ALGORITHM",
        "JWT_SECRET",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "RABBITMQ_URL",
        "REDIS_URL",
        "SHARDS",
        "SYMBOLS",
    }
)
MAJORS: Final = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "AVAX", "LINK", "DOT", "LTC")
DEFAULT_SYMBOLS: Final = tuple(f"{base}-{quote}" for base in MAJORS for quote in ("USD", "USDT"))


class SettingsError(Exception):
    """The environment does not hold a valid configuration; `faults` are readable lines, one per fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable of a service. `default` is its text, None when the variable is required."""

    name: str
    field: str
    default: str | None
    required: bool
    secret: bool
    description: str


class ServiceSettings(BaseModel):
    """What every service is told. Subclasses set `service` and add their knobs, each with a unit in its name."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        populate_by_name=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    service: ClassVar[str] = ""

    rabbitmq_url: RabbitUrl
    """The bus, `amqp://user:password@host:port/vhost`, or `amqps://`."""
    redis_url: RedisUrl
    """The latest values and snapshots, `redis://host:port/db`, or `rediss://`."""
    internal_jwt_secret: SigningSecrets
    """Signs the tokens that services show each other: at least 32 bytes, the same for all. At a rotation two, `signs,accepted`."""
    shards: int = Field(default=DEFAULT_SHARDS, ge=1, le=64)
    """How many shards the market is split into: the same for all services."""
    symbols: SymbolList = DEFAULT_SYMBOLS
    """What is followed: BASE-QUOTE, `all:<QUOTE>`, `top:<n>` by quote volume, in any mixture."""
    feed: FeedMode = "live"
    """Where ticks come from: `live` venues, the simulator (`sim`), or whatever answers (`auto`)."""
    log_level: Level = "info"
    """The lowest level that is logged: debug, info, warning, error."""
    log_format: LogFormat = "json"
    """`json` for machines, `text` for one readable line per event."""
    otel_exporter_otlp_endpoint: HttpUrl | None = None
    """Where traces go (an OTLP collector's HTTP address); unset: nowhere."""
    cloudwatch_namespace: str = Field(default="", pattern=r"^[A-Za-z0-9_./#:-]{0,255}$")
    """Namespace of the figures that are written to stdout once a minute for CloudWatch; empty: none."""
    host: str = "127.0.0.1"
    """The address that the internal HTTP listens on; 0.0.0.0 in a container."""
    port: int = Field(default=0, ge=0, le=65_535)
    """The port of the internal HTTP (0: the service's own one): /livez, /readyz, /metrics, /version and the routes for other services."""
    drain_delay_seconds: float = Field(default=0.0, ge=0.0, le=60.0)
    """How long a draining service still takes requests after /readyz turned to 503, for a balancer to notice."""

    @classmethod
    def facts(cls) -> ServiceFacts:
        """Port, schema and role of this service."""
        return facts_of(cls.service)

    @field_validator("port")
    @classmethod
    def _own_port(cls, port: int) -> int:
        return port or cls.facts().port

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the environment. Raises `SettingsError` with every fault found, not only the first."""
        return load(cls, environ)


class DatabaseSettings(ServiceSettings):
    """The settings of a service that owns a schema."""

    database_url: PostgresUrl
    """Postgres, `postgresql://user:password@host:port/name`; `postgres://` works as well."""


def variable_name(cls: type[ServiceSettings], name: str, info: FieldInfo) -> str:
    """The environment variable of a field."""
    if isinstance(info.validation_alias, str):
        return info.validation_alias
    if name.upper() in SHARED_NAMES:
        return name.upper()
    return f"{PREFIX}{cls.service.upper()}_{name.upper()}"


SettingsT = TypeVar("SettingsT", bound="ServiceSettings")


def load(cls: type[SettingsT], environ: Mapping[str, str] = os.environ) -> SettingsT:
    """Read `cls` from the environment; an empty variable counts as not given.

    Raises `SettingsError` with one line per fault: missing, malformed, and unknown variables under the service's prefix.
    """
    names = {field: variable_name(cls, field, info) for field, info in cls.model_fields.items()}
    faults = _unknown(cls, environ, frozenset(names.values()))
    values: dict[str, Any] = {}
    for field, info in cls.model_fields.items():
        text = environ.get(names[field], "").strip()
        if not text:
            continue
        try:
            values[field] = _parsed(text, info)
        except ValueError as error:
            faults.append(f"{names[field]}: {error}")
            values[field] = None
    try:
        settings = cls.model_validate(values)
    except ValidationError as error:
        unread = {fault.partition(":")[0] for fault in faults}
        faults += [line for line in _lines(error, names) if line.partition(":")[0] not in unread]
        raise SettingsError(faults) from None
    if faults:
        raise SettingsError(faults)
    return settings


def describe(cls: type[ServiceSettings]) -> list[Variable]:
    """Every variable of the service, in the order of its fields: what compose, ECS and `.env.example` must agree with."""
    variables = []
    for field, info in cls.model_fields.items():
        required = info.is_required()
        default: Any = None if required else info.get_default(call_default_factory=True)
        if field == "port" and not default:
            default = cls.facts().port
        variables.append(
            Variable(
                name=variable_name(cls, field, info),
                field=field,
                default=None if required else _text(default),
                required=required,
                secret=_is_secret(info.annotation),
                description=" ".join((info.description or "").split()),
            )
        )
    return variables


def _unknown(cls: type[ServiceSettings], environ: Mapping[str, str], known: frozenset[str]) -> list[str]:
    """One fault per variable under the service's prefix that no field reads."""
    prefix = f"{PREFIX}{cls.service.upper()}_"
    faults = []
    for name in sorted(environ):
        if name.upper().startswith(prefix) and name not in known:
            # Without the prefix, which is common to all; a shared name is often given one by mistake.
            ends = {one.removeprefix(prefix): one for one in sorted(known)}
            near = difflib.get_close_matches(name.upper().removeprefix(prefix), ends, n=1, cutoff=0.6)
            help_line = f"see `python -m cryptopulse.{cls.service} --help`"
            hint = f"; did you mean {ends[near[0]]}?" if near else f"; {help_line}"
            faults.append(f"{name}: is not a setting of {cls.service}{hint}")
    return faults


def _parsed(text: str, info: FieldInfo) -> Any:
    """The text of a variable as what the field's type takes: lists from commas, mappings from JSON, the rest as it is."""
    kinds = [get_origin(kind) or kind for kind in (info.annotation, *get_args(info.annotation))]
    if dict in kinds or Mapping in kinds:
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError("is not JSON") from error
    if kinds[0] in {tuple, list, frozenset, set}:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _lines(error: ValidationError, names: Mapping[str, str]) -> list[str]:
    """One readable line per fault; a value is never repeated, it may be a secret."""
    lines = []
    for fault in error.errors(include_input=False, include_url=False):
        place = fault["loc"]
        name = names.get(str(place[0]), str(place[0])) if place else "settings"
        if fault["type"] == "missing":
            lines.append(f"{name}: is required and not set")
            continue
        text = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {text[:1].lower()}{text[1:]}")
    return list(dict.fromkeys(lines))


def _is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation)


def _text(value: Any) -> str:
    """A default as it would be written in the environment; never that of a secret."""
    if value is None or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list, frozenset, set)):
        return ",".join(str(part) for part in value)
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value)
