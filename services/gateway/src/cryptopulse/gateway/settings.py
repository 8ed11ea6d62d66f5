"""The gateway's settings."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from cryptopulse.common.config.settings import DatabaseSettings
from cryptopulse.common.config.types import HttpUrl, SigningSecret
from cryptopulse.gateway.domain.limits import Policies


class Settings(DatabaseSettings):
    """What the public door is told."""

    service: ClassVar[str] = "gateway"

    public_port: int = Field(default=8000, ge=0, le=65_535, validation_alias="PORT")
    """The port of the public API."""
    public_host: str = "127.0.0.1"
    """The address that the public API listens on; 0.0.0.0 in a container."""
    public_url: str = "http://localhost:8000"
    """How clients reach the public API: the address in mails, and the issuer of tokens."""
    cors_allowed_origins: tuple[str, ...] = ()
    """Origins that browsers may call from, a comma list; `*` allows all, without credentials."""
    trusted_proxies: int = Field(default=0, ge=0, le=5)
    """How many proxies stand before this service and append to X-Forwarded-For; 0: the header is not believed."""

    target_group_arn: str = Field(
        default="", pattern=r"^(arn:[\w-]+:elasticloadbalancing:[\w-]+:\d{12}:targetgroup/.+)?$"
    )
    """The AWS target group that this gateway stands in: sockets are sent elsewhere once it drains; empty: not watched."""

    jwt_secret: SigningSecret
    """Signs access tokens with HS256; also the seed of refresh rotation and cursors. At least 32 bytes."""
    jwt_algorithm: Literal["HS256", "EdDSA", "ES256", "RS256"] = "HS256"
    """How access tokens are signed: HS256 with JWT_SECRET, or a key pair of `jwt_private_key_file`."""
    jwt_private_key_file: Path | None = None
    """PEM file with the private key that signs, for every algorithm but HS256."""
    jwt_public_key_files: tuple[Path, ...] = ()
    """PEM files with public keys that are still, or will be, accepted: the previous and the next key of a rotation."""
    access_token_seconds: int = Field(default=600, ge=60, le=86_400)
    """How long an access token lives."""

    ready_after_seconds: float = Field(default=10.0, ge=0, le=60)
    """How long streams are recorded before this replica is ready: who is cut off elsewhere resumes here without a gap."""
    limits: str = ""
    """Rate limits that differ from the built-in ones: `<tier>.<bucket>=<quota>/<seconds>[:<burst>]`, comma-separated."""
    argon2_threads: int = Field(default=2, ge=1, le=16)
    """How many passwords are hashed at once."""
    argon2_memory_kib: int = Field(default=19_456, ge=8, le=1_048_576)
    """Memory of one password hash; 19456 is OWASP's minimum with two passes."""

    ingestor_url: HttpUrl = "http://127.0.0.1:9101"
    """The ingestor's internal HTTP."""
    indicators_url: HttpUrl = "http://127.0.0.1:9102"
    """The indicators service's internal HTTP."""
    alerts_url: HttpUrl = "http://127.0.0.1:9103"
    """The alerts service's internal HTTP."""
    portfolio_url: HttpUrl = "http://127.0.0.1:9104"
    """The portfolio service's internal HTTP."""

    smtp_host: str = ""
    """The mail server; empty: mails are written to the log, for development only."""
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    """The mail server's port."""
    smtp_username: str = ""
    """The mail server's user; empty: no login."""
    smtp_password: SecretStr = SecretStr("")
    """The mail server's password."""
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    """How the line to the mail server is protected."""
    mail_from: str = "CryptoPulse <no-reply@localhost>"
    """The sender of mails."""

    @field_validator("limits")
    @classmethod
    def _limits_are_readable(cls, text: str) -> str:
        Policies(text)
        return text
