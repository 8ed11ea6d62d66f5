"""Rules of the house that no linter knows: where packages come from, what never stands in the repository."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "ingestor", "indicators", "alerts", "portfolio", "gateway")
BINARY = frozenset({".gz", ".msgpack", ".png", ".ico", ".zip", ".zst"})
LARGE_LINES, TOO_LARGE_LINES = 400, 800

# Put together here, so that this file does not hold what it forbids.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("ghcr", "io"),
    )
)
FOREIGN_LOCKS = frozenset(
    {
        "uv.lock",
        "pylock.toml",
        "poetry.lock",
        "Pipfile.lock",
        "package-lock.json",
        "yarn.lock",
        "pnpm-lock.yaml",
    }
)
# A person's folder on some machine; Homebrew's fixed place on Linux is no such.
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:root|Users|home/(?!linuxbrew\b|app\b))[/\w-]*")
HTTP_MIDDLEWARE = re.compile(r"""\.middleware\(\s*["']http["']|\bBaseHTTPMiddleware\b""")


@cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, part of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def texts(*suffixes: str) -> Iterator[tuple[str, str]]:
    """Path and text of each file, those of `suffixes` alone when any are given."""
    for path in files():
        if path.suffix in BINARY or (suffixes and path.suffix not in suffixes):
            continue
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_package_comes_from_this_checkout(name: str) -> None:
    module = importlib.import_module(f"cryptopulse.{name}")
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().is_relative_to(ROOT)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_namespace_belongs_to_nobody(name: str) -> None:
    home = "libs/common" if name == "common" else f"services/{name}"
    assert not (ROOT / home / "src/cryptopulse/__init__.py").exists()
    assert (ROOT / home / "src/cryptopulse" / name / "py.typed").exists()


def test_no_middleware_of_functions() -> None:
    """It wraps each request in a task and a stream of its own: a third of the throughput; pure ASGI is used instead."""
    own = Path(__file__).name
    found = [name for name, text in texts(".py") if not name.endswith(own) and HTTP_MIDDLEWARE.search(text)]
    assert found == []


def test_no_address_of_a_package_registry() -> None:
    found = [(name, host) for name, text in texts() for host in REGISTRIES if host in text]
    assert found == []


def test_no_lock_of_another_tool() -> None:
    assert [path for path in files() if path.name in FOREIGN_LOCKS] == []


def test_no_path_of_somebody_s_machine() -> None:
    own = Path(__file__).name
    found = [
        f"{name}: {hit}"
        for name, text in texts()
        if not name.endswith(own)
        for hit in MACHINE_PATH.findall(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("open('/root/x')", True),
        ("cd /home/anna/src", True),
        ("see /Users/", True),
        ("/home/linuxbrew/.linuxbrew/opt", False),
        ("services/root/x and ~/root/", False),
        ("$HOME/root/x", False),
    ],
)
def test_a_path_of_a_machine_is_told_from_others(text: str, is_one: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is is_one


def pins(path: Path) -> dict[str, str]:
    """Package and version of each line of a lock."""
    found = re.findall(
        r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    return {name.lower(): version for name, version in found}


LOCKS = sorted(ROOT.glob("services/*/requirements.lock"))


@pytest.mark.parametrize("lock", [ROOT / "requirements.lock", *LOCKS], ids=lambda path: path.parent.name)
def test_a_lock_names_versions_and_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-(?:-index|-extra|-find|i|f)\b", text, flags=re.MULTILINE)
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    assert [
        block.split()[0] for block in blocks if "==" in block.split("\n")[0] and "--hash=" not in block
    ] == []
    assert pins(lock)


def test_there_is_a_lock_for_each_image() -> None:
    assert [path.parent.name for path in LOCKS] == sorted(set(PACKAGES) - {"common"})


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.parent.name)
def test_the_lock_of_an_image_is_a_part_of_the_root_s(lock: Path) -> None:
    assert pins(lock).items() <= pins(ROOT / "requirements.lock").items()


def test_every_task_of_make_has_its_line_of_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", text, flags=re.MULTILINE)
    assert phony is not None
    tasks = set(phony[1].replace("\\", " ").split())
    told = set(re.findall(r"^([a-z0-9-]+):.*## \S", text, flags=re.MULTILINE))
    assert tasks == told


def test_decisions_are_numbered_once_and_titled() -> None:
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(numbers) == len(set(numbers))
    titles = [page.read_text(encoding="utf-8").splitlines()[0] for page in pages]
    assert [title[:6] for title in titles] == [f"# {number}" for number in numbers]


def test_no_file_outgrows_the_house(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {name: text.count("\n") for name, text in texts(".py")}
    large = {name: size for name, size in sizes.items() if size > LARGE_LINES}
    with capsys.disabled():
        for name, size in sorted(large.items(), key=lambda one: -one[1]):
            print(f"\nover {LARGE_LINES} lines: {name} ({size})", end="")
        print(f"\n{len(sizes)} Python files, {sum(sizes.values()) // max(1, len(sizes))} lines on average")
    assert {name: size for name, size in large.items() if size > TOO_LARGE_LINES} == {}
