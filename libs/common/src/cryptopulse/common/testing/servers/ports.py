"""Free ports and readiness on loopback, asked in each server's own protocol: an open port alone proves nothing."""

from __future__ import annotations

import socket
import struct

_PATIENCE_SECONDS = 2.0
_PROTOCOL_3 = 196608


def free_port() -> int:
    """A port that nobody listens on at this moment; whoever starts a server on it must be ready to try another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _first_reply(host: str, port: int, greeting: bytes) -> bytes:
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE_SECONDS) as connection:
            connection.sendall(greeting)
            return connection.recv(64)
    except OSError:
        return b""


def speaks_amqp(host: str, port: int) -> bool:
    """Whether a broker answers the AMQP 0-9-1 header with a method frame."""
    return _first_reply(host, port, b"AMQP\x00\x00\x09\x01")[:1] == b"\x01"


def speaks_redis(host: str, port: int) -> bool:
    """Whether a Redis answers; one that asks for a password is ready too, one that loads its data is not."""
    reply = _first_reply(host, port, b"PING\r\n")
    return reply.startswith((b"+PONG", b"-NOAUTH"))


def speaks_postgres(host: str, port: int, user: str, database: str) -> bool:
    """Whether Postgres answers a start-up message with a request for authentication, not with 'starting up'."""
    body = struct.pack("!i", _PROTOCOL_3) + f"user\0{user}\0database\0{database}\0\0".encode()
    return _first_reply(host, port, struct.pack("!i", len(body) + 4) + body)[:1] == b"R"


def speaks_http(host: str, port: int) -> bool:
    """Whether an HTTP server answers."""
    return _first_reply(host, port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/")
