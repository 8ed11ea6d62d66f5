"""The AsyncAPI 3 document of the client streams: `/v1/ws` and the second seed's sockets."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cryptopulse.common.contracts.intervals import PUBLIC_INTERVALS
from cryptopulse.gateway.domain import protocol
from cryptopulse.gateway.domain.seed import DEFAULT_COINS

REF: Final = "#/components/schemas/{name}"
_COMMANDS: Final = (
    protocol.Subscribe,
    protocol.Unsubscribe,
    protocol.ListSubscriptions,
    protocol.Ping,
    protocol.Auth,
    protocol.AckEvent,
)
_SID: Final = {"type": "integer", "description": "The stream, as named in the ack."}
_OFFSET: Final = {
    "type": "integer",
    "description": "The message's place in its stream, from 1, by 1; a forming bar repeats the offset of the closed one before it.",
}
_EPOCH: Final = {
    "type": "string",
    "description": "Another epoch: what was known of the stream counts no more.",
}


def _message(
    name: str, text: str, properties: dict[str, Any], required: tuple[str, ...], example: dict[str, Any]
) -> dict[str, Any]:
    payload = {
        "type": "object",
        "required": ["type", *required],
        "properties": {"type": {"const": name}, **properties},
    }
    return {
        "name": name,
        "summary": text,
        "contentType": "application/json",
        "payload": payload,
        "examples": [{"payload": {"type": name, **example}}],
    }


def _server_messages() -> dict[str, Any]:
    data = {"type": "object", "description": "By channel; the same schema in snapshots and updates."}
    ticker = {
        "s": "BTC-USD",
        "p": "67012.35",
        "b": None,
        "a": None,
        "src": "consolidated",
        "st": "ok",
        "ts": 1,
        "rx": 1,
    }
    integer, text, boolean = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
    rows = (
        ("welcome", "The first message", {"conn": text, "proto": text, "server_ts": integer, "hb_ms": integer, "limits": {"type": "object"},
         "authenticated": boolean}, ("conn", "proto", "server_ts", "hb_ms"), {"conn": "c_1", "proto": "cryptopulse.v1", "server_ts": 1, "hb_ms": 15000}),
        ("ack", "The result of a command, per symbol; what is rejected with `retry_after_ms` is worth another try", {"id": {}, "ok": boolean, "subscribed": {"type": "array"}, "rejected": {"type": "array"}},
         ("ok",), {"id": 1, "ok": True, "subscribed": [{"ch": "ticker", "symbol": "BTC-USD", "sid": 7, "epoch": "k3", "offset": 1850}], "rejected": []}),
        ("snapshot", "The newest value of a stream", {"sid": _SID, "epoch": _EPOCH, "offset": _OFFSET, "data": data}, ("sid", "offset", "data"),
         {"sid": 7, "epoch": "k3", "offset": 1850, "data": ticker}),
        ("update", "A new value; `skipped` counts the offsets left out before it", {"sid": _SID, "offset": _OFFSET, "data": data, "skipped": integer},
         ("sid", "offset", "data"), {"sid": 7, "offset": 1854, "data": ticker, "skipped": 3}),
        ("hb", "Every 15 s, with the ages of the streams by sid", {"server_ts": integer, "age_ms": {"type": "object"}}, ("server_ts", "age_ms"),
         {"server_ts": 1, "age_ms": {"7": 420}}),
        ("stale", "A ticker has fallen silent", {"sid": _SID, "since_ts": integer, "reason": text}, ("sid", "since_ts", "reason"),
         {"sid": 7, "since_ts": 1, "reason": "provider_disconnected"}),
        ("fresh", "A silent ticker speaks again", {"sid": _SID}, ("sid",), {"sid": 7}),
        ("alert", "An event of one of your rules; `dedupe_key` is stable over repeats", {"event": {"type": "object"}, "event_id": text,
         "dedupe_key": text, "replayed": boolean}, ("event", "event_id", "replayed"), {"event": {"id": "ae_1"}, "event_id": "ae_1", "dedupe_key": "k", "replayed": False}),
        ("resumed", "Missed alerts have been replayed, all of them or not", {"sid": _SID, "recovered": boolean}, ("sid", "recovered"), {"sid": 9, "recovered": True}),
        ("portfolio_changed", "A portfolio's books changed", {"sid": _SID, "version": integer, "kind": text}, ("sid", "version"), {"sid": 9, "version": 4, "kind": "x"}),
        ("auth_expiring", "Send a new token", {"in_ms": integer}, ("in_ms",), {"in_ms": 60000}),
        ("going_away", "This server stops: connect again after the pause", {"reconnect_after_ms": integer}, ("reconnect_after_ms",), {"reconnect_after_ms": 4211}),
        ("pong", "The answer to a ping", {"id": {}, "ts": {}, "server_ts": integer}, ("server_ts",), {"id": 4, "ts": 1, "server_ts": 2}),
        ("error", "A command was refused", {"id": {}, "code": text, "detail": text, "retry_after_ms": integer}, ("code", "detail"),
         {"id": 1, "code": "rate_limited", "detail": "too many messages"}),
    )  # fmt: skip
    return {
        name: _message(name, about, properties, required, example)
        for name, about, properties, required, example in rows
    }


def stream_document(version: str) -> dict[str, Any]:
    """The whole document."""
    _, schemas = msgspec.json.schema_components(_COMMANDS, ref_template=REF)
    commands = {
        kind.__name__: {
            "name": kind.__name__,
            "summary": (kind.__doc__ or "").strip().splitlines()[0],
            "contentType": "application/json",
            "payload": {"$ref": REF.format(name=kind.__name__)},
        }
        for kind in _COMMANDS
    }
    answers = _server_messages()
    channel = "#/channels/stream"
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "CryptoPulse streams",
            "version": version,
            "description": _ABOUT,
        },
        "defaultContentType": "application/json",
        "channels": {
            "stream": {
                "address": "/v1/ws",
                "description": "Subprotocol `cryptopulse.v1`. Text frames, JSON, at most 16 KiB inbound.",
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"} for name in (*commands, *answers)
                },
            },
            "seed": {
                "address": "/ws/crypto/",
                "description": "An older dialect, also at `/ws/prices/`: "
                f"`price_update` of coins by CoinGecko id, first {', '.join(DEFAULT_COINS)}.",
                "messages": {"price_update": {"$ref": "#/components/messages/price_update"}},
            },
        },
        "operations": {
            "command": {
                "action": "receive",
                "channel": {"$ref": channel},
                "summary": "What a client may say",
                "messages": [{"$ref": f"{channel}/messages/{name}"} for name in commands],
            },
            "answer": {
                "action": "send",
                "channel": {"$ref": channel},
                "summary": "What a client hears",
                "messages": [{"$ref": f"{channel}/messages/{name}"} for name in answers],
            },
        },
        "components": {
            "schemas": schemas,
            "messages": {**commands, **answers, "price_update": _SEED},
        },
    }


_SEED: Final = {
    "name": "price_update",
    "summary": "On connect, on subscribe, then on change at most once a second and at least every 30 s",
    "payload": {
        "type": "object",
        "required": ["type", "data", "timestamp"],
        "properties": {
            "type": {"const": "price_update"},
            "data": {"type": "object"},
            "timestamp": {"type": "number"},
        },
    },
}
_ABOUT: Final = (
    "Channels: `ticker`, `trades`, `candles:<interval>`, `indicators:<interval>`, `indicators:<output>:<interval>`, `signals`, `market`, "
    "`status`; private: `alerts`, `portfolio:<id>`. "
    f"Intervals: {' '.join(PUBLIC_INTERVALS)}; of candles also 1s, live only: each second once it has closed, about 0.6 s after its end, "
    "flat where nothing was traded (`n` 0). "
    "Credentials by `Authorization` header, by the subprotocol `bearer.<base64url of the token>` beside `cryptopulse.v1`, or by an `auth` "
    "message; never in the address. `every_ms` is rounded up to 0, 100, 1000 or 5000. `trades` are one stream for each venue that trades the pair, "
    "each with its own `sid`, `source` and offsets; trades that an overload has made one come as one with `n`, `first_id`, `o`, `h`, `l`, `qv` "
    "and `tbv` beside (`p` is the last price, `q` all that was traded). Resume, on any server, with the `epoch` and `offset` of the last message: "
    '`"resume":{"BTC-USD":{"epoch":"1f","offset":1842}}`, by `BTC-USDT@binance` where a name stands for several streams. `recovered` true: what was '
    "missed follows, each message once (of tickers, markets and portfolios the newest stands for all); false: a snapshot follows. Close codes: 4000-4499 connect again, 4500-4999 do not; 4001 credential expired, 4003 "
    "reconnect, 4008 slow consumer, 4012 no pong, 4013 too many messages, 1012 restart, 4500 bad token, 4501 bad protocol, 4504 too many "
    "connections, 4507 forbidden."
)
