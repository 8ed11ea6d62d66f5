"""Secrets never reach a log: values under telling keys, and known shapes of secrets inside any text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "[redacted]"
DEEPER: Final = "[...]"
MAX_DEPTH: Final = 6

_SECRET_KEY: Final = re.compile(
    r"(?i)(password|passwd|secret|api[_-]?key|authorization|cookie|credential|private[_-]?key|signature"
    r"|(^|[_-])(access|refresh|id|bearer|auth|internal|session)?[_-]?token$|^dsn$)"
)
_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # A password in a URL; the user name stays, it helps to see who was refused.
    (re.compile(r"(?P<head>\b[a-zA-Z][a-zA-Z0-9+.-]{1,30}://[^\s:/@]{0,128}):[^\s@/]{1,256}@"), rf"\g<head>:{HIDDEN}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), HIDDEN),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]{4,}"), f"whsec_{HIDDEN}"),
    (re.compile(r"\bcp_(live|test)_[A-Za-z0-9_]{4,}"), rf"cp_\1_{HIDDEN}"),
    (re.compile(r"(?i)([?&](?:api[_-]?key|x_cg_\w+_api_key|token|access_token|secret|password|signature)=)[^&\s\"']+"),
     rf"\1{HIDDEN}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
)  # fmt: skip
_HINTS: Final = ("://", "earer", "asic ", "EARER", "eyJ", "whsec_", "cp_", "=", "-----BEGIN")


def redact_text(text: str) -> str:
    """The text without the secrets whose shape is known."""
    if not any(hint in text for hint in _HINTS):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact(value: Any, key: str = "", depth: int = 0) -> Any:
    """A copy of `value` without secrets: by the key it stands under, and by known shapes in any text inside."""
    if key and _SECRET_KEY.search(key) and value not in (None, "", True, False):
        return HIDDEN
    if isinstance(value, str):
        return redact_text(value)
    if depth >= MAX_DEPTH:
        # Nobody reads that deep, and a nested bomb ends here.
        return DEEPER if isinstance(value, (Mapping, list, tuple, set, frozenset)) else value
    if isinstance(value, Mapping):
        return {str(name): redact(part, str(name), depth + 1) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(part, "", depth + 1) for part in value]
    if isinstance(value, bytes):
        return redact_text(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}")
    return value
