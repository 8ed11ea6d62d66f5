"""Reads `.env` as Docker Compose does, for make's tasks alone; a service never reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")


class DotenvError(Exception):
    """A line of the file cannot be read; `faults` are readable lines."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def parse(text: str, name: str = ".env") -> dict[str, str]:
    """`NAME=value` per line; quotes are taken off, ` #` begins a comment outside them, nothing is expanded."""
    values: dict[str, str] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None:
            faults.append(f"{name} line {number}: is not of the form NAME=value")
            continue
        values[found[1]] = _unquoted(found[2])
    if faults:
        raise DotenvError(faults)
    return values


def _unquoted(text: str) -> str:
    quoted = re.match(r"""^(["'])(.*?)\1\s*(?:#.*)?$""", text)
    if quoted is not None:
        return quoted[2]
    return re.split(r"(?:^|\s+)#", text, maxsplit=1)[0].rstrip()


def with_dotenv(environ: Mapping[str, str], path: Path) -> dict[str, str]:
    """The environment, completed by the file where there is one; what is set in the environment wins."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return dict(environ)
    return {**parse(text, path.name), **environ}
