"""The pytest plugin that gives tests real RabbitMQ, Redis and Postgres, and each test a corner of its own.

Order for each backend: its URL in the environment, Docker where an engine answers, programs of this machine. Where none
is to be had a test is skipped and says so; with `REQUIRE_BACKENDS=1` it fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

from cryptopulse.common.testing.servers.faults import StackError

if TYPE_CHECKING:
    from cryptopulse.common.testing.backends import Backends

REQUIRE_SETTING = "REQUIRE_BACKENDS"
_SERVERS = pytest.StashKey["Backends"]()


def _is_required() -> bool:
    return os.environ.get(REQUIRE_SETTING, "").lower() in {"1", "true", "yes"}


def _refuse(reason: str) -> None:
    if _is_required():
        pytest.fail(f"{REQUIRE_SETTING} is set, but {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which servers the tests ran on."""
    backends = config.stash.get(_SERVERS, None)
    for choice in backends.chosen.values() if backends else ():
        terminalreporter.write_line(f"backend {choice.backend.title}: {choice.kind} ({choice.reason})")


@pytest.fixture(scope="session")
def backends(request: pytest.FixtureRequest) -> Iterator[Backends]:
    """The servers of this session."""
    from cryptopulse.common.testing.backends import Backends

    found = Backends(say=print)
    request.config.stash[_SERVERS] = found
    yield found
    found.stop()


class HasUrls(Protocol):
    """What the fixtures ask of a session's servers."""

    def urls(self, name: str) -> dict[str, str]:
        """The variables that lead to one backend; raises `StackError` when it cannot be had."""
        ...


def urls_of(backends: HasUrls, name: str) -> dict[str, str]:
    """The variables that lead to a backend; skips or fails the test where it cannot be had."""
    try:
        return backends.urls(name)
    except StackError as error:
        _refuse(str(error))
        raise


@pytest.fixture(scope="session")
def rabbitmq_url(backends: Backends) -> str:
    """The AMQP URL of a RabbitMQ; its default vhost is shared by all tests, so prefer `rabbit_vhost`."""
    return urls_of(backends, "rabbitmq")["RABBITMQ_URL"]


@pytest.fixture(scope="session")
def rabbitmq_management_url(backends: Backends, rabbitmq_url: str) -> str:
    """The URL of RabbitMQ's HTTP API, with user and password."""
    del rabbitmq_url
    url = urls_of(backends, "rabbitmq").get("RABBITMQ_MANAGEMENT_URL")
    if url is None:
        _refuse(
            "tests make vhosts of their own by RabbitMQ's HTTP API: set RABBITMQ_MANAGEMENT_URL beside RABBITMQ_URL"
        )
    assert url is not None
    return url


@pytest.fixture(scope="session")
def redis_url(backends: Backends) -> str:
    """The URL of a Redis; its db 0 is shared by all tests, so prefer `redis_db`."""
    return urls_of(backends, "redis")["REDIS_URL"]


@pytest.fixture(scope="session")
def database_url(backends: Backends) -> str:
    """The URL of a Postgres with the right to make databases and roles; prefer `postgres_db`."""
    return urls_of(backends, "postgres")["DATABASE_URL"]


@pytest.fixture
def make_rabbit_vhost(rabbitmq_url: str, rabbitmq_management_url: str) -> Iterator[Callable[[], str]]:
    """Makes fresh vhosts, removed after the test."""
    from cryptopulse.common.testing.backends import VhostMaker

    maker = VhostMaker(rabbitmq_url, rabbitmq_management_url)
    made: list[str] = []

    def make() -> str:
        made.append(maker.make())
        return made[-1]

    yield make
    for url in made:
        maker.remove(url)


@pytest.fixture
def rabbit_vhost(make_rabbit_vhost: Callable[[], str]) -> str:
    """The AMQP URL of a fresh vhost of this test."""
    return make_rabbit_vhost()


@pytest.fixture
def redis_db(redis_url: str) -> Iterator[str]:
    """The URL of an empty Redis db of this test. Channels of publish and subscribe are common to all dbs."""
    from cryptopulse.common.testing.backends import RedisDatabases

    databases = RedisDatabases(redis_url)
    url = databases.take()
    yield url
    databases.give_back(url)
    databases.close()


@pytest.fixture
def make_postgres_db(database_url: str) -> Iterator[Callable[[], str]]:
    """Makes fresh databases, dropped after the test. Roles are common to all databases of a server."""
    from cryptopulse.common.testing.backends import Databases

    databases = Databases(database_url)
    made: list[str] = []

    def make() -> str:
        made.append(databases.make())
        return made[-1]

    yield make
    for url in made:
        databases.drop(url)


@pytest.fixture
def postgres_db(make_postgres_db: Callable[[], str]) -> str:
    """The URL of a fresh, empty database of this test."""
    return make_postgres_db()
