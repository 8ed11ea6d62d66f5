"""What `make run` is told, checked before anything is started: every fault is one readable line."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptopulse.common.config import SERVICES, ServiceSettings, SettingsError, Variable, describe, load
from cryptopulse.common.config.types import FeedMode

EXIT_CONFIG = 78
DEFAULT_PORT = 8000
DEFAULT_HOST = "127.0.0.1"
_FEEDS: tuple[FeedMode, ...] = ("auto", "live", "sim")


class ConfigError(Exception):
    """The settings are wrong; `faults` are readable lines."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The settings that are the stack's own; the services' are checked by their own classes."""

    port: int
    feed: FeedMode
    folder: Path


def read_config(environ: Mapping[str, str], checkout: Path) -> RunConfig:
    """Read the stack's own settings. Raises `ConfigError` with every fault."""
    faults = []
    port = DEFAULT_PORT
    text = environ.get("PORT", "").strip()
    if text:
        if text.isdigit() and 1 <= int(text) <= 65_535:
            port = int(text)
        else:
            faults.append(f"PORT: {text!r} is not a port; give a number from 1 to 65535")
    feed = environ.get("FEED", "").strip().lower() or "auto"
    known = next((one for one in _FEEDS if one == feed), None)
    if known is None:
        faults.append(f"FEED: {feed!r} is not one of {', '.join(_FEEDS)}")
    if faults or known is None:
        raise ConfigError(faults)
    return RunConfig(port=port, feed=known, folder=run_folder(environ, checkout))


def run_folder(environ: Mapping[str, str], checkout: Path) -> Path:
    """Where servers, logs and secrets are kept: `RUN_DIR`, taken from the checkout when it is relative."""
    return checkout / (environ.get("RUN_DIR") or ".run")


def settings_of(service: str) -> type[ServiceSettings]:
    """The settings class of a service: the one in its `settings` module that names the service."""
    module = importlib.import_module(f"cryptopulse.{service}.settings")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, ServiceSettings) and value.service == service:
            return value
    raise ConfigError([f"cryptopulse.{service}.settings has no settings class of service {service!r}"])


def variables() -> dict[str, list[Variable]]:
    """Every environment variable of every service."""
    return {service: describe(settings_of(service)) for service in SERVICES}


def check_services(environ: Mapping[str, str]) -> None:
    """Let each service read the environment that it will get. Raises `ConfigError` with each fault once."""
    faults: dict[str, None] = {}
    for service in SERVICES:
        try:
            load(settings_of(service), environ)
        except SettingsError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise ConfigError(list(faults))
