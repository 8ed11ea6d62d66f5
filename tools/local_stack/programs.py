"""The programs of the system as child processes: their commands, environments, and the order in which they stop."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptopulse.common.config import SERVICES
from cryptopulse.common.testing.servers.ports import free_port
from tools.local_stack.config import DEFAULT_HOST
from tools.local_stack.taken import is_free

# What the stack itself is told: no service has these settings.
_OUR_OWN = ("RUN_DIR", "REQUIRE_BACKENDS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")

STOP_ORDER: tuple[tuple[str, ...], ...] = (
    ("ingestor",),  # no new ticks
    ("indicators", "alerts", "portfolio", "gateway"),
    ("simulator",),
)


@dataclass(frozen=True, slots=True)
class Program:
    """One process that the supervisor keeps running.

    `before` are commands that must end well before it starts; `waits_for` are ports of this machine that must answer,
    for a while at most: what comes late is the program's own to cope with.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    before: tuple[tuple[str, ...], ...] = ()
    waits_for: tuple[int, ...] = ()


ALONE: Final = {"CRYPTOPULSE_GATEWAY_READY_AFTER_SECONDS": "0"}
"""Settings of a system with one replica of each service: nobody is cut off elsewhere and resumes here."""


def internal_ports(environ: Mapping[str, str]) -> dict[str, int]:
    """A port for the internal HTTP of each service: the one that is set, else the usual one, else a free one."""
    ports = {}
    for service, facts in SERVICES.items():
        given = environ.get(_port_name(service), "")
        if given.isdigit() and int(given):
            ports[service] = int(given)
        else:
            ports[service] = facts.port if is_free(DEFAULT_HOST, facts.port) else free_port()
    return ports


def _port_name(service: str) -> str:
    return f"CRYPTOPULSE_{service.upper()}_PORT"


def addresses(ports: Mapping[str, int]) -> dict[str, str]:
    """The variables that tell each service its own port and the addresses of the others."""
    values = {_port_name(service): str(port) for service, port in ports.items()}
    values |= {
        f"{service.upper()}_URL": f"http://{DEFAULT_HOST}:{port}"
        for service, port in ports.items()
        if service != "gateway"
    }
    return values


def service_environment(environ: Mapping[str, str], *more: Mapping[str, str]) -> dict[str, str]:
    """What a service gets: the environment less what is meant for us, then the rest, later ones winning."""
    env = {name: value for name, value in environ.items() if name not in _OUR_OWN}
    for values in more:
        env |= values
    return env


def services(env: Mapping[str, str], logs: Path, *, venue_ports: Sequence[int] = ()) -> list[Program]:
    """The five, those with a schema migrated first; the ingestor waits for venues on this machine."""
    found = []
    for name, facts in SERVICES.items():
        command = (sys.executable, "-m", f"cryptopulse.{name}")
        before = ((*command, "migrate"),) if facts.schema else ()
        waits_for = tuple(venue_ports) if name == "ingestor" else ()
        found.append(Program(name, command, env, logs / f"{name}.log", before, waits_for))
    return found
