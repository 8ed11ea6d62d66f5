"""Messages of the `cryptopulse.v1` stream protocol: what clients may say, what they hear, and the close codes."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import orjson

SUBPROTOCOL: Final = "cryptopulse.v1"
MAX_FRAME_BYTES: Final = 16 * 1024
HEARTBEAT_MS: Final = 15_000

# 4000-4499: connect again; 4500-4999: do not, until something was changed.
CLOSE_AUTH_EXPIRED: Final = 4001
CLOSE_RECONNECT: Final = 4003
CLOSE_SLOW: Final = 4008
CLOSE_NO_PONG: Final = 4012
CLOSE_TOO_MANY: Final = 4013
CLOSE_RESTART: Final = 1012
CLOSE_BAD_TOKEN: Final = 4500
CLOSE_BAD_PROTOCOL: Final = 4501
CLOSE_CONNECTIONS: Final = 4504
CLOSE_FORBIDDEN: Final = 4507

UNAVAILABLE: Final = "unavailable"
"""What another service or a store does not answer for now: worth another try, after `RETRY_AFTER_MS`."""
RETRY_AFTER_MS: Final = 2_000

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What can be written back: 64 bits."""
Id = Annotated[str, msgspec.Meta(max_length=36)] | Whole | None


class Position(msgspec.Struct, frozen=True):
    """Where a client stopped: the stream's epoch and the last offset it has seen."""

    epoch: str
    offset: int


class ChannelRequest(msgspec.Struct, frozen=True):
    """One entry of `channels`. `resume` maps a symbol (or the channel's name where it has no symbols) to a position."""

    ch: str
    symbols: list[str] = []
    source: str | None = None
    every_ms: int = 100
    snapshot: bool = True
    resume: dict[str, Position] = {}


class Subscribe(msgspec.Struct, frozen=True, tag_field="op", tag="subscribe"):
    """Add subscriptions; answered by one `ack` with a result per symbol."""

    channels: list[ChannelRequest]
    id: Id = None


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="op", tag="unsubscribe"):
    """Take subscriptions back."""

    channels: list[ChannelRequest]
    id: Id = None


class ListSubscriptions(msgspec.Struct, frozen=True, tag_field="op", tag="list"):
    """Ask for the present subscriptions."""

    id: Id = None


class Ping(msgspec.Struct, frozen=True, tag_field="op", tag="ping"):
    """Answered by a pong with the same `ts`."""

    id: Id = None
    ts: Whole | float | Annotated[str, msgspec.Meta(max_length=64)] | None = None


class Auth(msgspec.Struct, frozen=True, tag_field="op", tag="auth"):
    """Present a credential, first or new before the old one expires."""

    token: str
    id: Id = None


class AckEvent(msgspec.Struct, frozen=True, tag_field="op", tag="ack"):
    """An alert event has been seen."""

    alert_event: str
    id: Id = None


Command = Subscribe | Unsubscribe | ListSubscriptions | Ping | Auth | AckEvent
_decoder: Final = msgspec.json.Decoder(Command)


class CommandRefusedError(ValueError):
    """A frame that is not a command; `code` and the text go back to the client, `id` where one could be read."""

    def __init__(self, code: str, detail: str, ident: Id = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.ident = ident


def parse_command(text: str | bytes) -> Command:
    """The command in a frame. Raises `CommandRefusedError` for anything else, whatever it is."""
    if len(text) > MAX_FRAME_BYTES:
        raise CommandRefusedError("frame_too_large", f"a frame holds at most {MAX_FRAME_BYTES} bytes")
    try:
        command: Command = _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CommandRefusedError("bad_command", f"not a command: {error}"[:300], _id_of(text)) from error
    if isinstance(command.id, str) and len(command.id) > 36:
        raise CommandRefusedError("bad_command", "id holds at most 36 characters")
    return command


def _id_of(text: str | bytes) -> Id:
    try:
        body = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    found = body.get("id") if isinstance(body, dict) else None
    if isinstance(found, str):
        return found[:36]
    return found if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 1 << 53 else None


def encode(message: dict[str, Any]) -> bytes:
    """A server message as JSON."""
    return orjson.dumps(message)


def update(sid: int, offset: int, data: bytes, skipped: int = 0) -> bytes:
    """An `update` around ready-made `data`; `skipped` counts the offsets that were left out before it."""
    if skipped > 0:
        return b'{"type":"update","sid":%d,"offset":%d,"data":%b,"skipped":%d}' % (sid, offset, data, skipped)
    return b'{"type":"update","sid":%d,"offset":%d,"data":%b}' % (sid, offset, data)


def snapshot(sid: int, epoch: str, offset: int, data: bytes) -> bytes:
    """A `snapshot`: the same `data` schema as an update, with the stream's epoch."""
    return b'{"type":"snapshot","sid":%d,"epoch":"%b","offset":%d,"data":%b}' % (
        sid,
        epoch.encode(),
        offset,
        data,
    )


def welcome(conn: str, server_ts: int, *, channels: int, queue_bytes: int, authenticated: bool) -> bytes:
    """The first message of every connection."""
    return encode(
        {
            "type": "welcome",
            "conn": conn,
            "proto": SUBPROTOCOL,
            "server_ts": server_ts,
            "authenticated": authenticated,
            "limits": {"channels": channels, "inbound_per_s": 5, "queue_bytes": queue_bytes},
            "hb_ms": HEARTBEAT_MS,
        }
    )


def error(code: str, detail: str, ident: Id = None, retry_after_ms: int | None = None) -> bytes:
    """An `error` answer."""
    body: dict[str, Any] = {"type": "error", "id": ident, "code": code, "detail": detail}
    if retry_after_ms is not None:
        body["retry_after_ms"] = retry_after_ms
    return encode(body)
