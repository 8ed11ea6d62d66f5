"""Compares the gateway's own request signature with botocore's over many queries, keys and times.

Run by deploy/checks/run in the checkers' environment, which holds botocore; the image does not.
"""

from __future__ import annotations

import importlib.util
import random
import string
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SOURCE = Path("services/gateway/src/cryptopulse/gateway/adapters/sigv4.py")
HOST, REGION, SERVICE = (
    "elasticloadbalancing.eu-central-1.amazonaws.com",
    "eu-central-1",
    "elasticloadbalancing",
)
CASES = 200


def load() -> ModuleType:
    """The module by its file: the package itself is not installed here."""
    spec = importlib.util.spec_from_file_location("sigv4", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sigv4"] = module
    spec.loader.exec_module(module)
    return module


def theirs(parameters: dict[str, str], key: tuple[str, str, str], at: datetime) -> str:
    """What botocore puts into the header."""
    request = AWSRequest("GET", f"https://{HOST}/", params=parameters, headers={"host": HOST})
    with mock.patch.object(auth, "datetime") as fixed:
        fixed.datetime.utcnow.return_value = at
        auth.SigV4Auth(Credentials(*key), SERVICE, REGION).add_auth(request)
    found: Any = request.headers["Authorization"]
    return str(found)


def main() -> int:
    """0 when all are equal."""
    ours, draw = load(), random.Random(7)
    for _ in range(CASES):
        parameters = {
            "".join(draw.choices(string.ascii_letters + ".1", k=9)): "".join(
                draw.choices(string.printable[:95] + "é", k=20)
            )
            for _ in range(draw.randint(1, 6))
        }
        key = (
            "".join(draw.choices(string.ascii_uppercase, k=20)),
            "".join(draw.choices(string.ascii_letters + "/+", k=40)),
            "".join(draw.choices(string.ascii_letters + "/+=", k=200)),
        )
        at = datetime.fromtimestamp(draw.randint(1_600_000_000, 2_000_000_000), UTC).replace(tzinfo=None)
        headers = ours.signed_headers(
            HOST,
            ours.query_string(parameters),
            region=REGION,
            service=SERVICE,
            credentials=ours.Credentials(*key, 0.0),
            now_seconds=at.replace(tzinfo=UTC).timestamp(),
        )
        expected = theirs(parameters, key, at)
        if headers["authorization"] != expected:
            print(
                f"signature: {parameters}: {headers['authorization']} instead of {expected}", file=sys.stderr
            )
            return 1
    print(f"signature: {CASES} requests signed as botocore signs them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
