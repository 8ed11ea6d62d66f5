"""Where a webhook may go: which URLs are accepted, and which resolved addresses may be dialled. Pure; nothing is resolved here."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import idna

PORTS: Final = frozenset({443, 8443})
MAX_URL_LENGTH: Final = 2048
MAX_HOST_LENGTH: Final = 253

_LABEL: Final = re.compile(r"^(?!-)[a-z0-9-]{1,63}(?<!-)$")
_NUMERIC: Final = re.compile(r"^(0x[0-9a-f]*|[0-9]+)$")
_PRIVATE_SUFFIXES: Final = (
    "localhost",
    "local",
    "internal",
    "localdomain",
    "lan",
    "home",
    "corp",
    "intranet",
    "private",
    "home.arpa",
    "in-addr.arpa",
    "ip6.arpa",
    "onion",
    "invalid",
    "test",
    "example",
    "alt",
)
"""Names that never belong to the public internet: reserved, or used inside networks."""

_REFUSED_NETWORKS: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: instance metadata 169.254.169.254, ECS task credentials 169.254.170.2
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",  # unspecified, loopback, IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",  # Teredo and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",  # unique local, with fd00:ec2::254 (instance metadata over IPv6)
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


class UrlRefusedError(ValueError):
    """A URL that no webhook may have; the text says why and is safe to show to its owner."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL in its parts. `host` is ASCII (IDNA), lower case, without a trailing dot."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The normalised URL; the port is left out when it is the scheme's own."""
        own = {"https": 443, "http": 80}[self.scheme]
        return (
            f"{self.scheme}://{self.host}{'' if self.port == own else f':{self.port}'}{self.path}"
            if ":" not in self.host
            else f"{self.scheme}://[{self.host}]:{self.port}{self.path}"
        )


def parse_url(text: str, *, insecure: bool = False, denied_hosts: frozenset[str] = frozenset()) -> Target:
    """The parts of a webhook URL. Raises `UrlRefusedError`.

    https only, ports 443 and 8443 only, no user or password, no fragment, a public host name (no address in any spelling).
    `insecure` (development only) also takes http, any port, loopback addresses and `localhost`; nothing else changes.
    """
    if len(text) > MAX_URL_LENGTH:
        raise UrlRefusedError(f"a webhook URL has at most {MAX_URL_LENGTH} characters")
    if any(ord(char) <= 32 or ord(char) == 127 for char in text) or "\\" in text:
        raise UrlRefusedError("a webhook URL holds no spaces, control characters or backslashes")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UrlRefusedError("this is not a URL") from error
    scheme = parts.scheme.lower()
    if scheme != "https" and not (insecure and scheme == "http"):
        raise UrlRefusedError("a webhook URL begins with https://")
    if "@" in parts.netloc:
        raise UrlRefusedError("a webhook URL holds no user or password")
    if parts.fragment or text.endswith("#"):
        raise UrlRefusedError("a webhook URL holds no fragment (#)")
    if port is None:
        port = 443 if scheme == "https" else 80
    host = _host(parts.hostname or "", parts.netloc, insecure=insecure)
    if port not in PORTS and not (insecure and 0 < port < 65_536):
        raise UrlRefusedError("a webhook URL uses port 443 or 8443")
    if host in denied_hosts or any(host.endswith("." + denied) for denied in denied_hosts):
        raise UrlRefusedError("this host cannot be a webhook")
    path = parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    try:
        path.encode("ascii")
    except UnicodeEncodeError as error:
        raise UrlRefusedError("the path of a webhook URL is percent-encoded ASCII") from error
    return Target(scheme=scheme, host=host, port=port, path=path)


def _host(name: str, netloc: str, *, insecure: bool) -> str:
    if not name:
        raise UrlRefusedError("a webhook URL names a host")
    if "%" in name:
        raise UrlRefusedError("a host name holds no %")
    if insecure and _is_local(name):
        return name.lower()
    if netloc.startswith("[") or ":" in name:
        raise UrlRefusedError("a webhook URL names a host, not an address")
    try:
        # UTS 46 maps full-width letters, ideographic dots and ligatures to what a resolver would look up.
        ascii_name = idna.encode(name, uts46=True, std3_rules=True).decode().lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise UrlRefusedError("this is not a host name") from error
    if ascii_name.endswith("."):
        raise UrlRefusedError("a host name does not end with a dot")
    if len(ascii_name) > MAX_HOST_LENGTH:
        raise UrlRefusedError("this host name is too long")
    labels = ascii_name.split(".")
    if _NUMERIC.match(labels[-1]) or all(_NUMERIC.match(label) for label in labels):
        raise UrlRefusedError("a webhook URL names a host, not an address")
    if len(labels) < 2 or not all(_LABEL.match(label) for label in labels):
        raise UrlRefusedError("a webhook URL names a public host, e.g. hooks.example.com")
    if any(ascii_name == suffix or ascii_name.endswith("." + suffix) for suffix in _PRIVATE_SUFFIXES):
        raise UrlRefusedError("this host is not on the public internet")
    return ascii_name


def _is_local(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_allowed(address: str, *, insecure: bool = False) -> bool:
    """True for an address that a delivery may connect to: global, in no special network. `insecure` adds loopback alone."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if insecure and parsed.is_loopback:
        return True
    if getattr(parsed, "scope_id", None):
        return False
    if any(parsed in network for network in _REFUSED_NETWORKS if network.version == parsed.version):
        return False
    return parsed.is_global and not parsed.is_multicast


def checked(addresses: list[str], *, insecure: bool = False) -> str:
    """The address to dial: the first, when *every* one is allowed. Raises `UrlRefusedError`, without naming the addresses."""
    if not addresses:
        raise UrlRefusedError("the host could not be resolved")
    if not all(is_allowed(address, insecure=insecure) for address in addresses):
        raise UrlRefusedError("the host is not on the public internet")
    return addresses[0]
