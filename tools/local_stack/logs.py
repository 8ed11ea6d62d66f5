"""Follows the log files of the services: warnings and errors become one readable line each, everything else stays there."""

from __future__ import annotations

import json
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

_LOUD = frozenset({"warning", "error", "critical"})
_HIDDEN = frozenset(
    [
        "timestamp",
        "level",
        "event",
        "service",
        "version",
        "module",
        "logger",
        "trace_id",
        "span_id",
        "message_id",
        "exception",
        "stack",
    ]
)
_MAX_TEXT = 240
_MAX_CHUNK = 256 * 1024
_MAX_BYTES = 64 * 1024 * 1024
_KEPT_LINES = 12


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log, made readable; `event` is what repeats of it have in common."""

    level: str
    text: str
    event: str = ""

    @property
    def is_loud(self) -> bool:
        """Whether a person should see it at once."""
        return self.level in _LOUD


def readable(raw: str) -> Line:
    """A JSON event as `event key=value ...`; anything else, such as a traceback, as it is."""
    try:
        event = json.loads(raw)
    except ValueError:
        event = None
    if not isinstance(event, dict) or "event" not in event:
        return Line("plain", raw[:_MAX_TEXT])
    details = " ".join(f"{key}={value}" for key, value in event.items() if key not in _HIDDEN)
    exception = str(event.get("exception") or "").strip().splitlines()
    if exception:
        details = f"{details} ({exception[-1]})".strip()
    text = f"{event['event']} {details}".strip()
    level = str(event.get("level", "info")).lower()
    return Line(level, text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…", str(event["event"]))


class LogTail:
    """Reads what was added to a file since the last look. The file is ours: kept small, begun anew at each start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)

    def begin(self) -> None:
        """Put an earlier log aside as `<name>.1` and start from nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self.path.replace(self.path.with_suffix(self.path.suffix + ".1"))
        self.path.touch()
        self._offset, self._rest = 0, b""

    def read(self) -> list[Line]:
        """The new lines, at most a chunk of them; a file beyond its limit is emptied, for its writer appends."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                self._offset = min(self._offset, size)
                file.seek(self._offset)
                chunk = file.read(_MAX_CHUNK)
        except OSError:
            return []
        self._offset += len(chunk)
        if self._offset >= _MAX_BYTES:
            os.truncate(self.path, 0)
            self._offset = 0
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        lines = [readable(raw.decode("utf-8", "replace")) for raw in whole if raw.strip()]
        self._last.extend(line.text for line in lines)
        return lines

    def last_lines(self) -> list[str]:
        """The end of what was read so far."""
        return list(self._last)
