"""Opaque cursors: the sort key of the last row, bound to whoever may use it and where, with a tag against tampering."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import orjson
from pydantic import SecretStr

from cryptopulse.common.errors import FieldError, InvalidCursor

TAG_BYTES: Final = 12
MAX_CURSOR_CHARS: Final = 1_024
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200


class Cursor:
    """Encodes and decodes cursors of one service. `binding` names user and resource, e.g. `("alerts", user_id)`."""

    def __init__(self, secret: SecretStr | str) -> None:
        value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        self._key = hashlib.sha256(b"cryptopulse.cursor.v1:" + value.encode()).digest()

    def encode(self, sort_key: Sequence[Any], binding: str | Sequence[str]) -> str:
        """A cursor after the row with this sort key: texts, integers, booleans, None; decimals come back as text."""
        body = orjson.dumps(list(sort_key), default=_plain)
        return base64.urlsafe_b64encode(self._tag(body, binding) + body).rstrip(b"=").decode()

    def decode(self, cursor: str, binding: str | Sequence[str]) -> tuple[Any, ...]:
        """The sort key. Raises `InvalidCursor` for another's, an altered, or a made-up cursor."""
        if len(cursor) > MAX_CURSOR_CHARS:
            raise _invalid()
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise _invalid() from error
        tag, body = raw[:TAG_BYTES], raw[TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body, binding)):
            raise _invalid()
        key = orjson.loads(body)
        return tuple(key)

    def _tag(self, body: bytes, binding: str | Sequence[str]) -> bytes:
        parts = [binding] if isinstance(binding, str) else list(binding)
        return hmac.new(self._key, orjson.dumps(parts) + b"\0" + body, hashlib.sha256).digest()[:TAG_BYTES]


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def _invalid() -> InvalidCursor:
    return InvalidCursor(
        "The cursor is not one of this list: start again without it.",
        errors=(FieldError("cursor", "invalid-cursor", "leave it out to start from the beginning"),),
    )
