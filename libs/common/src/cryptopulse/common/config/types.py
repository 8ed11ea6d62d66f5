"""Types of settings that check themselves: secrets with a minimum length, comma lists, URLs of the backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from cryptopulse.common.contracts.values import ValueRefusedError, split_symbol

SECRET_BYTES: Final = 32
SECRET_COMMAND: Final = "openssl rand -base64 48"  # noqa: S105 - a command that makes one

TOP_LIMIT: Final = 5_000
QUOTE_CHARS: Final = 20
_SYMBOLS_HELP: Final = f"give a comma list of BASE-QUOTE, all:<QUOTE> or top:<1..{TOP_LIMIT}>"

FeedMode = Literal["auto", "live", "sim"]
LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]


def _long_enough(secret: SecretStr) -> SecretStr:
    have = len(secret.get_secret_value().encode())
    if have < SECRET_BYTES:
        raise ValueError(
            f"has {have} bytes, at least {SECRET_BYTES} are needed; make one with: {SECRET_COMMAND}"
        )
    return secret


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _symbols(symbols: tuple[str, ...]) -> tuple[str, ...]:
    if not symbols:
        raise ValueError(f"names no symbol; {_SYMBOLS_HELP}")
    return tuple(dict.fromkeys(_symbol(symbol) for symbol in symbols))


def _symbol(word: str) -> str:
    """A symbol in capitals, or a choice that the ingestor resolves with the venues' product lists."""
    kind, colon, rest = word.partition(":")
    if not colon:
        try:
            base, quote = split_symbol(word.upper())
        except ValueRefusedError as error:
            raise ValueError(f"{error}; {_SYMBOLS_HELP}") from error
        return f"{base}-{quote}"
    if kind.lower() == "top" and rest.isascii() and rest.isdigit() and 0 < int(rest[:6]) <= TOP_LIMIT:
        return f"top:{int(rest)}"
    if kind.lower() == "all" and rest.isascii() and rest.isalnum() and len(rest) <= QUOTE_CHARS:
        return f"all:{rest.upper()}"
    raise ValueError(f"{word!r:.40} is no choice of symbols; {_SYMBOLS_HELP}")


def _with_scheme(*schemes: str) -> Callable[[SecretStr], SecretStr]:
    """A check of a URL that never repeats the URL, since it may hold a password."""
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)

    def check(secret: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(secret.get_secret_value())
            host, _port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(
                "is not a URL that can be read (special characters must be percent-encoded)"
            ) from error
        if parts.scheme not in schemes:
            raise ValueError(f"must begin with {wanted}")
        if not host and parts.scheme != "unix" and "host=" not in parts.query:
            raise ValueError(f"names no host; the form is {schemes[0]}://user:password@host:port/name")
        return secret

    return check


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _each_long_enough(secret: SecretStr) -> SecretStr:
    for part in secret.get_secret_value().split(","):
        _long_enough(SecretStr(part))
    return secret


SigningSecret = Annotated[SecretStr, AfterValidator(_long_enough)]
SigningSecrets = Annotated[SecretStr, AfterValidator(_each_long_enough)]
"""Secrets of one purpose, a comma list: the first signs, all are accepted, so that one follows another without a gap."""
"""A secret that signs: at least 32 bytes."""
CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A comma list; spaces around parts and empty parts are dropped."""
SymbolList = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_symbols)]
"""A comma list without repeats, in the order given: canonical symbols, `all:<QUOTE>` (every market of a quote) and
`top:<n>` (by 24 h quote volume). Only the ingestor knows the product lists and resolves the last two."""
RabbitUrl = Annotated[SecretStr, AfterValidator(_with_scheme("amqp", "amqps"))]
RedisUrl = Annotated[SecretStr, AfterValidator(_with_scheme("redis", "rediss", "unix"))]
PostgresUrl = Annotated[SecretStr, AfterValidator(_with_scheme("postgresql", "postgres"))]


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL such as http://127.0.0.1:9102")
    if parts.username or parts.password:
        raise ValueError("must not hold credentials")
    return value.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""An http or https URL without credentials, without its trailing slash."""
Level = Annotated[LogLevel, BeforeValidator(_lower)]
"""A log level in any case."""
