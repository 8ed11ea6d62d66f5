"""Where the servers' programs are looked for: a setting first, never Debian's wrapper of rabbitmq-server."""

from __future__ import annotations

from pathlib import Path

from cryptopulse.common.testing.servers import binaries


def a_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_setting_wins(tmp_path: Path) -> None:
    program = a_program(tmp_path / "my-redis")
    assert binaries.find_redis({binaries.REDIS_SETTING: str(program)}) == program


def test_path_is_searched(tmp_path: Path) -> None:
    program = a_program(tmp_path / "redis-server")
    assert binaries.find_redis({"PATH": str(tmp_path)}) == program


def test_a_file_that_cannot_be_run_is_no_program(tmp_path: Path) -> None:
    plain = tmp_path / "redis-server"
    plain.write_text("not executable")
    found = binaries.find_redis({binaries.REDIS_SETTING: str(plain), "PATH": str(tmp_path)})
    assert found != plain


def test_postgres_needs_both_programs_in_one_folder(tmp_path: Path) -> None:
    a_program(tmp_path / "half" / "postgres")
    a_program(tmp_path / "whole" / "postgres")
    a_program(tmp_path / "whole" / "initdb")
    half = binaries.find_postgres({binaries.POSTGRES_SETTING: str(tmp_path / "half"), "PATH": ""})
    assert half is None or half.postgres.parent != tmp_path / "half"
    whole = binaries.find_postgres({binaries.POSTGRES_SETTING: str(tmp_path / "whole"), "PATH": ""})
    assert whole is not None
    assert whole.initdb == tmp_path / "whole" / "initdb"


def test_newer_versions_come_first() -> None:
    folders = [Path(f"/usr/lib/postgresql/{version}/bin") for version in (9, 16, 15)]
    assert [path.parent.name for path in binaries._newest_first(folders)] == ["16", "15", "9"]


def test_the_wrapper_of_debian_is_never_started(tmp_path: Path) -> None:
    wrapper = tmp_path / "rabbitmq-server"
    wrapper.symlink_to(binaries._DEBIAN_WRAPPER)
    found = binaries.find_rabbitmq({"PATH": str(tmp_path)})
    assert found is None or found.server.resolve() != binaries._DEBIAN_WRAPPER
