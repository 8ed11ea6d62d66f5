"""Structured logs: one JSON line per event on stdout, or one readable line; secrets are taken out on the way.

Own code logs through `get_logger`; what libraries write with the standard `logging` takes the same road.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson
import structlog
from opentelemetry import trace
from structlog.contextvars import bind_contextvars, bound_contextvars, merge_contextvars, unbind_contextvars

from cryptopulse.common.telemetry.redaction import redact, redact_text

__all__ = ["bind_contextvars", "bound_contextvars", "configure", "get_logger", "unbind_contextvars"]

EventDict = MutableMapping[str, Any]

FIRST_KEYS: Final = ("timestamp", "level", "event", "service", "version", "trace_id", "span_id", "message_id")
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# Libraries that tell every connection and retry at INFO: their news reach us as states and metrics.
_QUIET: Final = (
    "aio_pika",
    "aiormq",
    "httpx",
    "httpcore",
    "asyncio",
    "uvicorn.error",
    "uvicorn.access",
    "websockets",
)
MAX_TEXT: Final = 8_000


def configure(
    service: str, version: str, level: str = "info", fmt: str = "json", *, stream: TextIO | None = None
) -> None:
    """Set up logging of this process; calling again replaces the former set-up. `fmt` is `json` or `text`."""
    number = _LEVELS[level.lower()]
    out = stream if stream is not None else sys.stdout
    shared: list[Any] = [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        _add_origin(service, version),
        _add_trace,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redacted,
    ]
    renderer = _json_line if fmt == "json" else _text_line
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _LineLogger(out),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared[:-2]],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _redacted,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in [existing for existing in root.handlers if isinstance(existing, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
        logging.getLogger(name).propagate = True
        logging.getLogger(name).handlers.clear()


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger: `log.info("feed connected", venue="binance")`. `name` is the module, shown as `module`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


class _Handler(logging.StreamHandler[TextIO]):
    """Our handler on the root logger, told apart from those of others (pytest's)."""


class _LineLogger:
    """Writes finished lines, whole ones also from several threads."""

    _lock = threading.Lock()

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        try:
            with self._lock:
                self._stream.write(message + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads our output any more; a service does not end for want of a reader.
            return

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def _add_origin(service: str, version: str) -> Any:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        event["service"] = service
        event["version"] = version
        return event

    return add


def _add_trace(_logger: Any, _method: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
        event["span_id"] = format(context.span_id, "016x")
    return event


def _redacted(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: redact(value, key) for key, value in event.items()}


def _ordered(event: EventDict) -> dict[str, Any]:
    first = {key: event[key] for key in FIRST_KEYS if key in event}
    return first | {key: value for key, value in event.items() if key not in first}


def _json_line(_logger: Any, _method: str, event: EventDict) -> str:
    return orjson.dumps(_ordered(event), default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any) -> str:
    """Whatever JSON does not know, as text without secrets."""
    return redact_text(repr(value) if not hasattr(value, "__str__") else str(value))[:MAX_TEXT]


def _text_line(_logger: Any, _method: str, event: EventDict) -> str:
    shown = _ordered(event)
    at = str(shown.pop("timestamp", ""))[11:23]
    level = str(shown.pop("level", "info")).upper()
    name = shown.pop("service", "")
    text = str(shown.pop("event", ""))
    error = shown.pop("exception", None)
    shown.pop("version", None)
    shown.pop("module", None)
    pairs = " ".join(f"{key}={_short(value)}" for key, value in shown.items())
    line = f"{at} {level:<7} {name:<10} {text}" + (f"  {pairs}" if pairs else "")
    return f"{line}\n{error}" if error else line


def _short(value: Any) -> str:
    text = (
        value
        if isinstance(value, str)
        else orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()
    )
    text = text.replace("\n", "\\n")
    return f'"{text}"' if isinstance(value, str) and (" " in text or not text) else text
