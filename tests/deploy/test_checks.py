"""The checks by Debian's programs: what they refuse fails, and what is not there is never left out in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("promtool", "haproxy")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the checks read, as a copy that may be spoilt."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    for name in (".venv", "tools", "libs"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs where neither those of Debian are nor apt."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("bash", "env"):
        (folder / name).symlink_to(shutil.which(name) or "/")
    return folder


def run(checkout: Path, programs: Path, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        ["deploy/checks/packaged"],
        cwd=checkout,
        env={"PATH": str(programs), "SYSTEM_PROGRAMS": "", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_is_not_installed_is_a_failure_in_ci(checkout: Path, programs: Path) -> None:
    code, said = run(checkout, programs, CI="true")
    assert code == 1
    for name in PROGRAMS:
        assert f"FAILED  {name}: not installed" in said


def test_what_is_not_installed_is_skipped_with_a_word_elsewhere(checkout: Path, programs: Path) -> None:
    code, said = run(checkout, programs)
    assert code == 0
    assert "SKIPPED promtool: not installed (Debian: apt-get install prometheus)" in said
    assert "SKIPPED haproxy" in said
    assert "cannot be installed from here" in said


@pytest.mark.parametrize("refused", PROGRAMS)
def test_what_a_program_refuses_fails(checkout: Path, programs: Path, refused: str) -> None:
    for name in PROGRAMS:
        (programs / name).write_text(f"#!/usr/bin/env bash\nexit {int(name == refused)}\n")
        (programs / name).chmod(0o755)
    code, said = run(checkout, programs)
    assert code == 1
    assert f"FAILED  {refused}" in said
    assert all(f"FAILED  {name}" not in said for name in PROGRAMS if name != refused)


MISTAKES = {
    "a rule that is no expression": ("promtool", "deploy/prometheus/rules/slo.yml", "> 14.4 * 0.001", "> 14.4 ** 0.001"),
    "a limit that its test does not expect": ("promtool", "deploy/prometheus/rules/slo.yml", "> 14.4 * 0.001", "> 144 * 0.001"),
    "a job that Prometheus does not know": ("promtool", "deploy/prometheus/prometheus.yml", "job_name", "job"),
    "a keyword that HAProxy does not know": ("haproxy", "deploy/compose/proxy.cfg", "server-template", "servers-template"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_refused_by_the_real_program(checkout: Path, mistake: str) -> None:
    program, path, good, bad = MISTAKES[mistake]
    where = os.environ["PATH"] + ":/usr/sbin"
    for name in PROGRAMS:
        if shutil.which(name, path=where) is None:
            pytest.skip(f"{name} is not installed here; `make deploy-check` installs it where it may")
    text = (checkout / path).read_text(encoding="utf-8")
    assert good in text, "the mistake cannot be planted any more"
    (checkout / path).write_text(text.replace(good, bad), encoding="utf-8")
    done = subprocess.run(
        ["deploy/checks/packaged"], cwd=checkout, env={**os.environ, "PATH": where}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"FAILED  {program}" in done.stderr
