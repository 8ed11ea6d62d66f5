"""Keeps the settings in docker-compose.yml complete: what has no value of its own there is passed on from `.env`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from cryptopulse.common.config import Variable
from tools.local_stack.config import variables

HEADING: Final = "      # as in .env, where it is set there\n"
_ENTRY: Final = re.compile(r"^      (\w+):", flags=re.MULTILINE)


def updated(text: str, by_service: Mapping[str, Iterable[Variable]]) -> str:
    """The text of the file with every service's settings; those with a value in the file keep it."""
    for service, known in by_service.items():
        begin = text.index(f"\n  {service}:\n")
        environment = text.index("    environment:", begin)
        heading = text.index(HEADING, environment)
        given = set(_ENTRY.findall(text, environment, heading))
        passed_on = [variable.name for variable in known if variable.name not in given]
        after = re.compile(r"^(?!      \w+:\n)", flags=re.MULTILINE).search(text, heading + len(HEADING))
        assert after is not None
        lines = "".join(f"      {name}:\n" for name in passed_on)
        text = text[: heading + len(HEADING)] + lines + text[after.start() :]
    return text


def main() -> None:
    """Bring docker-compose.yml up to date."""
    path = Path(__file__).resolve().parents[2] / "docker-compose.yml"
    text = path.read_text(encoding="utf-8")
    new = updated(text, variables())
    if new != text:
        path.write_text(new, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
