"""AWS Signature Version 4 for a GET without a body: the one signed call that we make needs no SDK.

Source: "Create a signed AWS API request", AWS IAM User Guide.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

ALGORITHM: Final = "AWS4-HMAC-SHA256"
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Credentials:
    """Temporary credentials of a role; `expires_at` in Unix seconds."""

    key_id: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    expires_at: float


def query_string(parameters: Mapping[str, str]) -> str:
    """The canonical query: sorted, everything but the unreserved characters escaped."""
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def signed_headers(
    host: str, query: str, *, region: str, service: str, credentials: Credentials, now_seconds: float
) -> dict[str, str]:
    """The headers that make `GET https://<host>/?<query>` ours. `query` is canonical, see `query_string`."""
    stamp = datetime.fromtimestamp(now_seconds, UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    sent = {"host": host, "x-amz-date": stamp, "x-amz-security-token": credentials.token}
    names = ";".join(sent)
    lines = "".join(f"{name}:{value}\n" for name, value in sent.items())
    request = f"GET\n/\n{query}\n{lines}\n{names}\n{_EMPTY}"
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    authorization = (
        f"{ALGORITHM} Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return sent | {"authorization": authorization}
