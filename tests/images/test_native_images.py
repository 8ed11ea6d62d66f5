"""What each image would hold, without Docker: an empty environment from its lock alone, its wheels, then a life from start to SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from cryptopulse.common.config import SERVICES
from cryptopulse.common.testing.servers.ports import free_port
from tests.deploy.policies import DRAIN_SECONDS
from tools.local_stack.config import variables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, STOP_SECONDS = 60.0, 60.0
SECRET = "0123456789abcdef0123456789abcdef"


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 300, **options}
    return subprocess.run(list(command), check=False, **settings)


def must(*command: str, **options: Any) -> str:
    done = run(*command, **options)
    assert done.returncode == 0, f"{' '.join(command[:6])}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the first stage: pip and what `deploy/build.lock` holds."""
    folder = tmp_path_factory.mktemp("builder")
    must(sys.executable, "-m", "venv", str(folder))
    python = folder / "bin/python"
    must(
        str(python), "-m", "pip", "-qq", "install", "--require-hashes", "-r", str(ROOT / "deploy/build.lock")
    )
    return python


def install(service: str, folder: Path, builder: Path) -> Path:
    """The steps of the Dockerfile's first stage; answers the interpreter."""
    python = folder / "venv/bin/python"
    wheels = folder / "wheels"
    must(str(builder), "-m", "venv", "--without-pip", str(folder / "venv"))
    pip = [str(builder), "-m", "pip", "-qq", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    lock = ROOT / "services" / service / "requirements.lock"
    must(*build, "--require-hashes", "--only-binary", ":all:", "--no-binary", "ta", "-r", str(lock))
    must(*build, str(ROOT / "libs/common"), str(ROOT / "services" / service))
    found = [str(wheel) for wheel in wheels.glob("*.whl")]
    must(*pip, "--python", str(python), "install", "--no-index", "--no-deps", *found)
    return python


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_s_content_lives_from_start_to_sigterm(
    service: str, tmp_path: Path, builder: Path, rabbit_vhost: str, redis_db: str, postgres_db: str
) -> None:
    began = time.monotonic()
    python = install(service, tmp_path, builder)
    installed = time.monotonic() - began
    port = free_port()
    prefix = f"CRYPTOPULSE_{service.upper()}"
    names = {variable.name for variable in variables()[service]}
    given = {
        "RABBITMQ_URL": rabbit_vhost,
        "REDIS_URL": redis_db,
        "DATABASE_URL": postgres_db,
        "INTERNAL_JWT_SECRET": SECRET,
        "JWT_SECRET": SECRET,
        "PORT": str(free_port()),
        f"{prefix}_PORT": str(port),
        # Nobody answers there: a venue that is away ends no service.
        **dict.fromkeys(("BINANCE_API_URL", "COINBASE_API_URL", "COINGECKO_API_URL"), "http://127.0.0.1:9"),
        **dict.fromkeys(("BINANCE_WS_URL", "COINBASE_WS_URL"), "ws://127.0.0.1:9"),
    }
    environ = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)}
    environ |= {name: value for name, value in given.items() if name in names}
    module = [str(python), "-P", "-m", f"cryptopulse.{service}"]
    here: dict[str, Any] = {"env": environ, "cwd": tmp_path}

    assert re.match(rf"{service} \d+\.\d+\.\d+ ", must(*module, "--version", **here))
    assert "environment:" in must(*module, "--help", **here)
    assert "valid" in must(*module, "check", **here)
    wrong = run(*module, "check", env=environ | {f"{prefix}_TYPO": "1"}, cwd=tmp_path)
    assert wrong.returncode == 78
    assert run(str(python), "-m", "pip", "--version", **here).returncode != 0
    assert not {"pytest", "mypy", "hatchling"} & {
        path.name for path in tmp_path.glob("venv/lib/*/site-packages/*")
    }
    if SERVICES[service].schema:
        must(*module, "migrate", **here)

    ask = [str(python), "-m", "cryptopulse.common.runtime.healthcheck", service]
    assert run(*ask, **here).returncode == 1
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(module, env=environ, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        started = time.monotonic()
        while run(*ask, **here).returncode != 0 or not is_running(port):
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            assert time.monotonic() - started < START_SECONDS, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.2)
        took = time.monotonic() - started
        process.send_signal(signal.SIGTERM)
        stopping = time.monotonic()
        code = process.wait(STOP_SECONDS)
        stopped = time.monotonic() - stopping
    finally:
        if process.poll() is None:
            process.kill()
        log.close()
    text = (tmp_path / "log").read_text()
    assert code == 0, text[-3000:]
    assert SECRET not in text
    budget = re.search(r'"drain_budget_seconds":\s*([0-9.]+)', text)
    assert budget is not None
    assert float(budget[1]) <= DRAIN_SECONDS[service], (
        "the stop timeouts of compose and ECS are reckoned by this"
    )
    size = sum(path.stat().st_size for path in (tmp_path / "venv").rglob("*") if path.is_file()) / 2**20
    print(
        f"\n{service}: installed in {installed:.0f} s ({size:.0f} MiB), up in {took:.1f} s, stopped in {stopped:.1f} s"
    )


def is_running(port: int) -> bool:
    """Past its start: it says what it depends on, ready or not."""
    answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=5)
    return bool(answer.json()["status"] != "starting")


def test_the_recipe_of_the_image_is_what_is_tested_here() -> None:
    recipe = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    for step in (
        "venv --without-pip",
        "pip wheel --require-hashes --no-deps --no-build-isolation --only-binary :all: --no-binary ta",
        "pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./libs/common ./service",
        "install --no-index --no-deps wheels/*.whl",
    ):
        assert step in recipe
    minor = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    if os.environ.get("CI"):
        assert minor in recipe
