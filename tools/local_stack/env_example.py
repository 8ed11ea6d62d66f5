"""Writes `.env.example` from the services' own settings classes, so that it lists every variable and none that is not."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from cryptopulse.common.config import Variable

_WIDTH = 100
_HEAD = """\
# Every setting of CryptoPulse. Copy to .env, which make and Docker Compose read; a service reads its environment alone.
# What stands behind a # is the default. An unknown CRYPTOPULSE_<SERVICE>_... variable stops that service (exit code 78).
"""
_STACK = """\
# --- make run, make test ------------------------------------------------------------------------
# Where the public API listens.
#PORT=8000
# Where ticks come from: live, sim (the venue simulator), auto (live when a venue answers within seconds, else sim).
# Docker Compose and ECS know live and sim only; live is their default.
#FEED=auto
# Where local servers, logs and secrets are kept.
#RUN_DIR=.run
# "no" leaves Docker out when the servers are looked for.
#CRYPTOPULSE_LOCAL_DOCKER=
# Programs of the servers, when they are not where packages put them.
#CRYPTOPULSE_LOCAL_RABBITMQ_SERVER=
#CRYPTOPULSE_LOCAL_REDIS_SERVER=
#CRYPTOPULSE_LOCAL_POSTGRES_BIN=
# Reference data for some tests; those are skipped where it is absent.
#CRYPTOPULSE_SHARED=../shared
"""
_COMPOSE = """\
# --- Docker Compose alone (`make up`) -------------------------------------------------------------
# Passwords of its servers; scripts/compose-secrets makes what is missing, and the two secrets below.
#RABBITMQ_PASSWORD=
#REDIS_PASSWORD=
#POSTGRES_PASSWORD=
# Grafana's user admin; RABBITMQ_PASSWORD when not set.
#GRAFANA_PASSWORD=
# The images' tag, and what they are built on; a digest pins it: python@sha256:...
#CRYPTOPULSE_TAG=local
#CRYPTOPULSE_COMMIT=unknown
#PYTHON_IMAGE=python:3.11-slim-bookworm
# Ports on 127.0.0.1 of the profiles observability and tools.
#PROMETHEUS_PORT=9090
#GRAFANA_PORT=3000
#RABBITMQ_MANAGEMENT_PORT=15672
#RABBITMQ_PORT=5672
#POSTGRES_PORT=5432
#VALKEY_PORT=6379
"""
_STACK_NAMES = frozenset({"PORT", "FEED"})
_BOOTED = frozenset({"RABBITMQ_URL", "REDIS_URL", "DATABASE_URL"})


def render(by_service: Mapping[str, Iterable[Variable]]) -> str:
    """The text of the file: the stack's own settings, what services share, then each service's knobs."""
    users: dict[str, list[str]] = {}
    variables: dict[str, Variable] = {}
    for service, found in by_service.items():
        for variable in found:
            users.setdefault(variable.name, []).append(service)
            variables.setdefault(variable.name, variable)
    own = {name: services[0] for name, services in users.items() if name.startswith("CRYPTOPULSE_")}
    shared = [name for name in variables if name not in own and name not in _STACK_NAMES]
    parts = [_HEAD, _STACK, _COMPOSE, _title("shared by services, fixed names")]
    parts += [_entry(variables[name], users[name]) for name in sorted(shared)]
    for service in by_service:
        parts.append(_title(service))
        parts += [_entry(variables[name], []) for name, owner in own.items() if owner == service]
    return "\n".join(parts)


def _title(text: str) -> str:
    return f"# --- {text} ".ljust(_WIDTH, "-")


def _entry(variable: Variable, users: list[str]) -> str:
    words = variable.description or "(no description)"
    if users:
        words += f" Read by: {', '.join(users)}."
    if variable.name in _BOOTED:
        words += " make run boots one when this is not set."
    elif variable.secret and variable.required:
        words += " make run makes a random one."
    comment = textwrap.fill(words, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    default = "" if variable.secret else variable.default or ""
    setting = f"{variable.name}=" if variable.required else f"#{variable.name}={default}"
    return f"{comment}\n{setting}"
