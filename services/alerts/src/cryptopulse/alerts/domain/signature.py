"""Signatures of webhooks by Standard Webhooks 1.0.0: HMAC-SHA256 over `id.timestamp.body`, several during a rotation."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
SECRET_BYTES: Final = 32


def format_secret(key: bytes) -> str:
    """The secret as it is shown, `whsec_<base64>`. ValueError unless it has 24 to 64 bytes."""
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError("a signing secret has 24 to 64 bytes")
    return PREFIX + base64.b64encode(key).decode()


def parse_secret(text: str) -> bytes:
    """The bytes of a secret. ValueError when it is not one."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a signing secret is whsec_ and base64") from error
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError("a signing secret has 24 to 64 bytes")
    return key


def sign(message_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> str:
    """The value of `webhook-signature`: one `v1,<base64>` per secret, newest first, separated by spaces.

    `timestamp` is the unix second of the attempt. ValueError for an id with a dot, which would make the signed text ambiguous.
    """
    if "." in message_id or not message_id:
        raise ValueError("a message id holds no dot")
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        for secret in secrets
    )


def headers(message_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The three headers of a delivery."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(message_id, timestamp, body, secrets),
    }
