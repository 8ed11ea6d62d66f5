"""Asks a service's own `/livez`. Run as `python -m cryptopulse.common.runtime.healthcheck alerts` it imports almost nothing:

a container asks every few seconds, and importing a whole service for that costs a second of CPU each time.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from cryptopulse.common.contracts.services import SERVICES, facts_of

TIMEOUT_SECONDS: Final = 4.0
ALIVE: Final = 0
NOT_ALIVE: Final = 1
EXIT_USAGE: Final = 2


def ask(host: str, port: int) -> int:
    """0 when alive; 1, with one line on stderr that says why, when not or when nobody answers."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(target, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/livez")
        response = connection.getresponse()
        body = response.read(65_536)
    except (OSError, http.client.HTTPException) as error:
        return _say(f"http://{target}:{port}/livez does not answer: {type(error).__name__} {error}".rstrip())
    finally:
        connection.close()
    if response.status == 200:
        return ALIVE
    return _say(f"http://{target}:{port}/livez says {response.status}; stalled loops: {_stalled(body)}")


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """The command: one argument, the service's name; its address as its settings give it."""
    if len(arguments) != 1 or arguments[0] not in SERVICES:
        _say(f"usage: python -m cryptopulse.common.runtime.healthcheck {'|'.join(SERVICES)}")
        return EXIT_USAGE
    prefix = f"CRYPTOPULSE_{arguments[0].upper()}"
    port = environ.get(f"{prefix}_PORT", "").strip() or "0"
    host = environ.get(f"{prefix}_HOST", "").strip() or "127.0.0.1"
    if not port.isdecimal():
        return _say(f"{prefix}_PORT: is not a port")
    return ask(host, int(port) or facts_of(arguments[0]).port)


def _stalled(body: bytes) -> str:
    try:
        loops = json.loads(body)["loops"]
        return ", ".join(name for name, loop in loops.items() if loop["state"] == "stalled") or "none"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "unknown"


def _say(line: str) -> int:
    print(line, file=sys.stderr)  # noqa: T201 - the answer of a command
    return NOT_ALIVE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
