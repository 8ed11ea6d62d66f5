"""The README's commands, run as written on a clean clone; prints the cold and the warm time to the first price."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cryptopulse.common.testing.servers.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
COLD_SECONDS, WARM_SECONDS, STOP_SECONDS = 600, 120, 40
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[str]:
    """The shell blocks of the README, without the first: that one is `make run` and `make test`."""
    return BLOCK.findall((ROOT / "README.md").read_text())[1:]


@contextmanager
def make_run(clone: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`make run` in the clone, interrupted at the end as by Ctrl-C."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.endswith(("MQ_URL", "REDIS_URL", "DATABASE_URL"))
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["make", "run"],
            cwd=clone,
            env=environment | {"PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def until_price(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float) -> float:
    """Seconds until the gateway serves a price."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        assert process.poll() is None, f"make run ended:\n{log.read_text()[-4000:]}"
        try:
            if (
                httpx.get(f"http://127.0.0.1:{port}/prices/BTC", trust_env=False).status_code
                == httpx.codes.OK
            ):
                return time.monotonic() - started
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    pytest.fail(f"no price within {seconds} s:\n{log.read_text()[-4000:]}")


@pytest.mark.timeout(1200)
def test_every_command_of_the_readme_works_on_a_clean_clone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone, log = tmp_path / "closed" / "clone", tmp_path / "run.log"
    clone.parent.mkdir(mode=0o700)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    port, hook_port = free_port(), free_port()
    script = "\n".join(["set -eu", *blocks(), "sleep 20", "kill %1"])
    script = script.replace("localhost:8000", f"localhost:{port}").replace("9000", str(hook_port))
    script = script.replace("curl ", "curl --fail-with-body --silent --show-error ")
    with make_run(clone, port, log) as process:
        cold = until_price(port, process, log, COLD_SECONDS)
        done = subprocess.run(
            ["bash", "-m", "-c", script], cwd=clone, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
        assert "price_update" in done.stdout
        assert "alert.triggered" in done.stdout, done.stdout[-4000:]
    with make_run(clone, port, log) as process:
        warm = until_price(port, process, log, WARM_SECONDS)
    with capsys.disabled():
        print(
            f"\nfirst price after make run: {cold:.1f} s cold (fresh clone, nothing installed), {warm:.1f} s warm"
        )
