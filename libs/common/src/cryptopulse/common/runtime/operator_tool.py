"""A subcommand of a service for operators: a command line that is checked first, and work on the service's settings."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tool:
    """`add_arguments` describes the command line to argparse; `answer` prints what was asked and gives the exit code."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    answer: Callable[[argparse.Namespace, Any], Awaitable[int]]

    def parse(self, service: str, name: str, arguments: list[str]) -> argparse.Namespace:
        """The command line. Raises `SystemExit` with a readable line when it is wrong."""
        parser = argparse.ArgumentParser(
            prog=f"python -m cryptopulse.{service} {name}", description=self.help
        )
        self.add_arguments(parser)
        return parser.parse_args(arguments)
