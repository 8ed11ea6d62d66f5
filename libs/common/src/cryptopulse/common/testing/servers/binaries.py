"""Where the three servers' programs are: a setting, then the packages' own folders, then PATH, then Homebrew."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_BREW = (Path("/opt/homebrew/opt"), Path("/usr/local/opt"), Path("/home/linuxbrew/.linuxbrew/opt"))
# Debian's wrapper changes folder, switches user and refuses everybody else: never the one to start.
_DEBIAN_WRAPPER = Path("/usr/sbin/rabbitmq-server")

RABBITMQ_SETTING = "CRYPTOPULSE_LOCAL_RABBITMQ_SERVER"
REDIS_SETTING = "CRYPTOPULSE_LOCAL_REDIS_SERVER"
POSTGRES_SETTING = "CRYPTOPULSE_LOCAL_POSTGRES_BIN"


@dataclass(frozen=True, slots=True)
class RabbitBinaries:
    """The broker's start script and Erlang's port mapper."""

    server: Path
    epmd: Path


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """The server and the program that lays out its data."""

    postgres: Path
    initdb: Path


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _first(candidates: Iterable[Path]) -> Path | None:
    return next((path for path in candidates if _is_program(path)), None)


def _on_path(name: str, environ: Mapping[str, str]) -> list[Path]:
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    return [Path(found)] if found else []


def _brew(formula: str, *parts: str) -> list[Path]:
    return [
        path for base in _BREW if base.is_dir() for path in sorted(base.glob(formula + "/" + "/".join(parts)))
    ]


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    def version(path: Path) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", str(path)))

    return sorted(paths, key=version, reverse=True)


def find_rabbitmq(environ: Mapping[str, str]) -> RabbitBinaries | None:
    """The broker's programs, or None."""
    given = environ.get(RABBITMQ_SETTING)
    candidates = [
        *([Path(given)] if given else []),
        Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
        *(path for path in _on_path("rabbitmq-server", environ) if path.resolve() != _DEBIAN_WRAPPER),
        *_brew("rabbitmq", "sbin", "rabbitmq-server"),
    ]
    server = _first(candidates)
    epmd = _first(
        [
            *_on_path("epmd", environ),
            *_newest_first(Path("/usr/lib/erlang").glob("erts-*/bin/epmd")),
            *_brew("erlang*", "lib", "erlang", "erts-*", "bin", "epmd"),
        ]
    )
    return RabbitBinaries(server, epmd) if server and epmd else None


def find_redis(environ: Mapping[str, str]) -> Path | None:
    """The Redis server, or None."""
    given = environ.get(REDIS_SETTING)
    return _first(
        [
            *([Path(given)] if given else []),
            *_on_path("redis-server", environ),
            Path("/usr/bin/redis-server"),
            *_brew("redis", "bin", "redis-server"),
        ]
    )


def find_postgres(environ: Mapping[str, str]) -> PostgresBinaries | None:
    """The newest Postgres with both its programs in one folder, or None."""
    given = environ.get(POSTGRES_SETTING)
    folders = [
        *([Path(given)] if given else []),
        *_newest_first(Path("/usr/lib/postgresql").glob("*/bin")),
        *(path.parent for path in _on_path("postgres", environ)),
        *_newest_first(_brew("postgresql*", "bin")),
    ]
    for folder in folders:
        if _is_program(folder / "postgres") and _is_program(folder / "initdb"):
            return PostgresBinaries(folder / "postgres", folder / "initdb")
    return None
