"""Which RabbitMQ, Redis and Postgres are used: a URL, else Docker, else programs of this machine, else apt; each on its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cryptopulse.common.testing.servers.binaries import find_postgres, find_rabbitmq, find_redis
from cryptopulse.common.testing.servers.docker import IMAGES, Engine

ENGINE_SETTING = "CRYPTOPULSE_LOCAL_DOCKER"  # "no" leaves Docker out


class Kind(StrEnum):
    """Where a backend comes from, best first."""

    GIVEN = "given"
    DOCKER = "docker"
    LOCAL = "local"
    APT = "apt"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Backend:
    """A kind of server that the system needs."""

    name: str
    title: str
    url_name: str
    apt_package: str
    find: Callable[[Mapping[str, str]], object | None]


BACKENDS = (
    Backend("rabbitmq", "RabbitMQ", "RABBITMQ_URL", "rabbitmq-server", find_rabbitmq),
    Backend("redis", "Redis", "REDIS_URL", "redis-server", find_redis),
    Backend("postgres", "Postgres", "DATABASE_URL", "postgresql", find_postgres),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for one backend, and why, in words."""

    backend: Backend
    kind: Kind
    reason: str

    @property
    def is_usable(self) -> bool:
        """Whether it can be had without installing anything."""
        return self.kind in {Kind.GIVEN, Kind.DOCKER, Kind.LOCAL}


def choose(
    backend: Backend, environ: Mapping[str, str], engine: Engine, *, has_apt: bool | None = None
) -> Choice:
    """The first of the four ways that is open now. Asking the engine may pull an image; nothing is started."""
    if environ.get(backend.url_name):
        return Choice(backend, Kind.GIVEN, f"{backend.url_name} is set")
    image = IMAGES[backend.name]
    if environ.get(ENGINE_SETTING, "").lower() not in {"no", "0", "off", "false"} and engine.answers():
        if engine.offers(image):
            return Choice(backend, Kind.DOCKER, f"container of {image}")
        docker = f"Docker has no {image} and cannot pull it; "
    else:
        docker = ""
    found = backend.find(environ)
    if found is not None:
        return Choice(backend, Kind.LOCAL, f"{docker}programs of this machine")
    if has_apt if has_apt is not None else shutil.which("apt-get") is not None:
        return Choice(
            backend, Kind.APT, f"{docker}no program of it here, but apt can install {backend.apt_package}"
        )
    return Choice(backend, Kind.NONE, f"{docker}no program of it here")


def choose_all(environ: Mapping[str, str], engine: Engine) -> list[Choice]:
    """A choice for each of the three."""
    return [choose(backend, environ, engine) for backend in BACKENDS]


def advice(choices: list[Choice]) -> str:
    """What to do about the backends that cannot be had; one sentence for each way that is open."""
    missing = [choice.backend for choice in choices if not choice.is_usable]
    names = ", ".join(backend.title for backend in missing)
    urls = ", ".join(backend.url_name for backend in missing)
    packages = " ".join(backend.apt_package for backend in missing)
    return (
        f"no {names} here: set {urls}, start Docker, "
        f"or install the servers (Debian and Ubuntu: sudo apt-get install -y {packages}; "
        "macOS: brew install rabbitmq redis postgresql)"
    )
