"""Rules for every test: markers come from folders, sockets stay on loopback, the reference data is found in one way."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent
KINDS = frozenset(
    {"unit", "contract", "architecture", "deploy", "images", "integration", "e2e", "faults", "readme"}
)
SHARED_SETTING = "CRYPTOPULSE_SHARED"

_BACKEND_URLS = ("RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL", "REDIS_URL", "DATABASE_URL")
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", ""})
_SOCKET_EVENTS = frozenset({"socket.connect", "socket.sendto"})


def kind_of(path: Path) -> str | None:
    """The folder under `tests/` that a test module lives in: its marker."""
    parts = path.resolve().relative_to(ROOT).parts
    if "tests" not in parts:
        return None
    after = parts[parts.index("tests") + 1 :]
    return after[0] if len(after) > 1 and after[0] in KINDS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test the marker of its folder; a test outside such a folder would never be run by `make test`."""
    strays = set()
    for item in items:
        kind = kind_of(item.path)
        if kind is None:
            strays.add(str(item.path))
            continue
        item.add_marker(kind)
    if strays:
        known = ", ".join(sorted(KINDS))
        raise pytest.UsageError(
            f"tests live under tests/<kind>/ with kind one of {known}; not so: {sorted(strays)}"
        )


def _is_allowed(host: str, extra: frozenset[str]) -> bool:
    if host in _LOCAL_NAMES or host in extra:
        return True
    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _guard_sockets() -> None:
    """Refuse every connection, datagram and look-up that leaves this machine, except to a backend given by its URL."""
    given = (urlsplit(os.environ[name]).hostname for name in _BACKEND_URLS if os.environ.get(name))
    extra = frozenset(host for host in given if host)

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event in _SOCKET_EVENTS:
            address = args[1]
            host = str(address[0]) if isinstance(address, tuple) else ""
        elif event == "socket.getaddrinfo":
            host = args[0].decode() if isinstance(args[0], bytes) else (args[0] or "")
        else:
            return
        if not _is_allowed(host, extra):
            raise OSError(f"a test tried to leave this machine: {event} {host}")

    sys.addaudithook(watch)


def pytest_configure() -> None:
    """Close the machine's border before anything is collected."""
    _guard_sockets()


def find_shared_data() -> Path:
    """The folder of reference data, by its setting or beside the checkout; skips the test where there is none."""
    given = Path(os.environ.get(SHARED_SETTING) or "../shared")
    folder = given if given.is_absolute() else ROOT / given
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}: set {SHARED_SETTING} to run this test")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data (recordings, indicator vectors, portfolio cases), never part of this repository."""
    return find_shared_data()
