"""API keys: a prefix that says whose they are, a public id, entropy, and a checksum that a scanner can verify offline."""

from __future__ import annotations

import hashlib
import ipaddress
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "cp_live_"
ID_LENGTH: Final = 8
SECRET_LENGTH: Final = 32
CHECK_LENGTH: Final = 6
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH: Final = len(PREFIX) + ID_LENGTH + 1 + SECRET_LENGTH + CHECK_LENGTH


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as presented. `hash` is what is stored: the entropy is high, so SHA-256 is enough."""

    id: str
    text: str

    @property
    def hash(self) -> bytes:
        """SHA-256 of the whole key."""
        return hashlib.sha256(self.text.encode()).digest()


def base62(number: int, length: int) -> str:
    """A number in base 62, left-padded with zeros, its lowest `length` digits."""
    digits = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def checksum(text: str) -> str:
    """CRC-32 of everything before it, in base 62."""
    return base62(zlib.crc32(text.encode()), CHECK_LENGTH)


def make(choose: Callable[[str], str]) -> ApiKey:
    """A new key; `choose` picks one character from a text with a cryptographic generator."""
    ident = "".join(choose(_ALPHABET) for _ in range(ID_LENGTH))
    body = f"{PREFIX}{ident}_" + "".join(choose(_ALPHABET) for _ in range(SECRET_LENGTH))
    return ApiKey(ident, body + checksum(body))


def parse(text: str) -> ApiKey | None:
    """The key in a text; None when its form or checksum is wrong, which needs no look into a database."""
    if len(text) != _LENGTH or not text.startswith(PREFIX) or not text.isascii():
        return None
    body, check = text[:-CHECK_LENGTH], text[-CHECK_LENGTH:]
    ident, separator = text[len(PREFIX) : len(PREFIX) + ID_LENGTH], text[len(PREFIX) + ID_LENGTH]
    if separator != "_" or not ident.isalnum() or checksum(body) != check:
        return None
    return ApiKey(ident, text)


def is_address_allowed(address: str, allowed: list[str]) -> bool:
    """True when the list is empty or one of its addresses or networks holds `address`.

    A listener for both families sees an IPv4 caller as `::ffff:10.0.0.1`: lists name him without.
    """
    if not allowed:
        return True
    try:
        caller = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(caller, ipaddress.IPv6Address) and caller.ipv4_mapped is not None:
        caller = caller.ipv4_mapped
    return any(caller in ipaddress.ip_network(item, strict=False) for item in allowed)
