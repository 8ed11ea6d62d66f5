"""Each contract of the floors bites: a violation planted in a copy of the tree is found, and named by its contract."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("ingestor", "indicators", "alerts", "portfolio", "gateway")
SOURCES = ("libs/common/src", *(f"services/{name}/src" for name in SERVICES))

APART = "Services never import each other"
COMMON = "The library knows no service"
PURE = "Domain, contracts and parsers do no I/O"
FLOORS = "The floors inside a service"
LIBRARY = "The floors inside the library"

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Violation:
    """A module that must not be, and the contract that says so."""

    what: str
    contract: str
    path: str
    source: str


def in_service(name: str, path: str) -> str:
    return f"services/{name}/src/cryptopulse/{name}/{path}"


def in_common(path: str) -> str:
    return f"libs/common/src/cryptopulse/common/{path}"


VIOLATIONS = (
    Violation(
        "a service imports another",
        APART,
        in_service("alerts", "adapters/planted.py"),
        "import cryptopulse.portfolio",
    ),
    Violation(
        "the library imports a service",
        COMMON,
        in_common("runtime/planted.py"),
        "from cryptopulse import gateway",
    ),
    Violation("a domain waits", PURE, in_service("gateway", "domain/planted.py"), "import asyncio"),
    Violation(
        "a domain looks at the clock",
        PURE,
        in_service("portfolio", "domain/planted.py"),
        "from time import time",
    ),
    Violation(
        "a domain does I/O through a third module",
        PURE,
        in_service("alerts", "domain/planted.py"),
        "from cryptopulse.common.database import pool",
    ),
    Violation("a contract does I/O", PURE, in_common("contracts/planted.py"), "import redis.asyncio"),
    Violation("a parser does I/O", PURE, in_service("ingestor", "adapters/planted/parse.py"), "import httpx"),
    Violation(
        "a use case knows an adapter",
        FLOORS,
        in_service("portfolio", "application/planted.py"),
        "import cryptopulse.portfolio.adapters",
    ),
    Violation(
        "an entrypoint knows an adapter",
        FLOORS,
        in_service("indicators", "entrypoints/planted.py"),
        "import cryptopulse.indicators.adapters",
    ),
    Violation(
        "an adapter reads the settings",
        FLOORS,
        in_service("ingestor", "adapters/planted.py"),
        "import cryptopulse.ingestor.settings",
    ),
    Violation("a stray module in a service", FLOORS, in_service("gateway", "utils.py"), "VALUE = 1"),
    Violation(
        "a contract knows the bus",
        LIBRARY,
        in_common("contracts/planted.py"),
        "import cryptopulse.common.bus",
    ),
    Violation(
        "the bus knows the database",
        LIBRARY,
        in_common("bus/planted.py"),
        "import cryptopulse.common.database",
    ),
    Violation(
        "the runtime knows the tests",
        LIBRARY,
        in_common("runtime/planted.py"),
        "import cryptopulse.common.testing",
    ),
    Violation("a stray module in the library", LIBRARY, in_common("helpers.py"), "VALUE = 1"),
)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A copy of all sources and of the settings of the tools."""
    for source in SOURCES:
        shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path)


def lint(tree: Path) -> tuple[int, str]:
    """import-linter on that copy: its packages come before the installed ones."""
    path = os.pathsep.join(str(tree / source) for source in SOURCES)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def broken(said: str) -> list[str]:
    """The names of the contracts that were found broken."""
    return [line.removesuffix(" BROKEN") for line in said.splitlines() if line.endswith(" BROKEN")]


def plant(tree: Path, violation: Violation) -> None:
    path = tree / violation.path
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in (path.parent, path.parent.parent):
        if "cryptopulse" in folder.parent.parts:
            (folder / "__init__.py").touch()
    path.write_text(f'"""Planted."""\n\n{violation.source}\n')


def test_the_tree_as_it_is_keeps_every_contract(tree: Path) -> None:
    code, said = lint(tree)
    assert code == 0, said
    assert "5 kept, 0 broken" in said


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda one: one.what)
def test_a_violation_is_found_and_named(tree: Path, violation: Violation) -> None:
    plant(tree, violation)
    code, said = lint(tree)
    assert code != 0
    assert violation.contract in broken(said), said


def test_every_contract_is_shown_to_bite() -> None:
    assert {one.contract for one in VIOLATIONS} == {APART, COMMON, PURE, FLOORS, LIBRARY}
