"""The file `.run/env`: the random secrets of this checkout, and, while the stack runs, where everything is."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptopulse.common.config import Variable
from cryptopulse.common.testing.servers.server import write_private
from tools.local_stack.dotenv import parse

_HEADER = "# Written by the local stack; `set -a; source {path}; set +a` gives a second terminal the same settings.\n"
_ALWAYS = ("JWT_SECRET", "INTERNAL_JWT_SECRET")


def secrets_for(
    variables: Iterable[Variable], environ: Mapping[str, str], path: Path
) -> tuple[dict[str, str], list[str]]:
    """A value for each required secret that is not given: the one of an earlier start, else a new random one.

    Backends' URLs are secrets too, but not ones to invent. Also returns the names of those that were made now.
    """
    wanted = dict.fromkeys(_ALWAYS)
    wanted |= dict.fromkeys(
        variable.name
        for variable in variables
        if variable.secret and variable.required and not variable.name.endswith("_URL")
    )
    earlier = parse(path.read_text(encoding="utf-8"), path.name) if path.exists() else {}
    found: dict[str, str] = {}
    made = []
    for name in wanted:
        if environ.get(name):
            continue
        if name not in earlier:
            made.append(name)
        found[name] = earlier.get(name) or secrets.token_urlsafe(48)
    return found, made


def write(path: Path, values: Mapping[str, str]) -> None:
    """Write the file, readable by its owner alone, in a form that shells and `.env` readers both take."""
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, _HEADER.format(path=path) + "".join(lines))
