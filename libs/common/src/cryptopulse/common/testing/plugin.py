"""The pytest plugin that gives tests real RabbitMQ, Redis and Postgres, each test its own corner of them."""

from __future__ import annotations

import os

import pytest


def _url(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"{name} is not set")
    return value


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """A RabbitMQ that takes connections."""
    return _url("RABBITMQ_URL")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis that takes connections."""
    return _url("REDIS_URL")


@pytest.fixture(scope="session")
def database_url() -> str:
    """A Postgres that takes connections."""
    return _url("DATABASE_URL")
