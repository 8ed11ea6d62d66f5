"""`python -m cryptopulse.<service> call METHOD PATH [JSON]`: an operator's request to the running service beside it.

It goes to the internal port of this container and is signed with `INTERNAL_JWT_SECRET`: pause a feed, ask for a backfill.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptopulse.common.config.settings import ServiceSettings
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.security.identity import InternalSigner

EXIT_OK: Final = 0
EXIT_FAULT: Final = 1
TIMEOUT_SECONDS: Final = 30.0
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Call:
    """A request, checked."""

    method: str
    path: str
    body: bytes | None


def parse(service: str, arguments: Sequence[str]) -> Call:
    """The command line; ends with a readable line when it is wrong."""
    parser = argparse.ArgumentParser(
        prog=f"python -m cryptopulse.{service} call",
        description="Ask the running service of this container, as an operator; prints its answer.",
        epilog="examples: call GET /status; call POST /feeds/binance/pause",
    )
    parser.add_argument("method", type=str.upper, choices=METHODS)
    parser.add_argument("path")
    parser.add_argument("json", nargs="?", help="the body")
    found = parser.parse_args(list(arguments))
    if not found.path.startswith("/"):
        parser.error("the path begins with /")
    if found.json is not None:
        try:
            json.loads(found.json)
        except ValueError as error:
            parser.error(f"the body is not JSON: {error}")
    return Call(found.method, found.path, found.json.encode() if found.json is not None else None)


def send(call: Call, settings: ServiceSettings) -> int:
    """Send it and print the answer: 0 for a status below 400."""
    identity = Identity(user_id=None, kind="service")
    token = InternalSigner(settings.internal_jwt_secret, "operator").sign(identity, settings.service)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(host, settings.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(call.method, call.path, body=call.body, headers=headers)
        response = connection.getresponse()
        answer = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"http://{host}:{settings.port} does not answer: {error}", file=sys.stderr)  # noqa: T201 - to the operator
        return EXIT_FAULT
    finally:
        connection.close()
    is_fine = response.status < 400
    print(answer or f"{response.status} {response.reason}", file=sys.stdout if is_fine else sys.stderr)
    return EXIT_OK if is_fine else EXIT_FAULT
