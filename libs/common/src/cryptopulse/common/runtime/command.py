"""The command line of a service: run, check, healthcheck, migrate, --help, --version; and what each exit code means."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from cryptopulse.common.config.settings import DatabaseSettings, ServiceSettings, SettingsError, describe
from cryptopulse.common.errors import CryptoPulseError
from cryptopulse.common.runtime import healthcheck
from cryptopulse.common.runtime.operator_tool import Tool
from cryptopulse.common.runtime.service import Runtime
from cryptopulse.common.runtime.shutdown import Signals
from cryptopulse.common.runtime.version import version_of
from cryptopulse.common.security.identity import InternalVerifier, authenticate
from cryptopulse.common.telemetry import logging, tracing
from cryptopulse.common.telemetry.cloudwatch import CloudWatchWriter

EXIT_OK: Final = 0
EXIT_CRASH: Final = 1
EXIT_USAGE: Final = 2
EXIT_CONFIG: Final = 78

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)
Build = Callable[[SettingsT, Runtime], AbstractAsyncContextManager[None]]
Subcommand = Callable[[SettingsT], Awaitable[int | None]]

log = logging.get_logger(__name__)


def run_service(
    settings_cls: type[SettingsT],
    build: Build[SettingsT],
    *,
    subcommands: Mapping[str, Subcommand[SettingsT]] | None = None,
    tools: Mapping[str, Tool] | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """The `__main__` of a service: does what the arguments say and ends the process.

    Exit codes: 0 clean stop, 1 crash, 2 unknown command, 78 bad configuration.
    """
    sys.exit(main(settings_cls, build, subcommands=subcommands, tools=tools, argv=argv))


def main(
    settings_cls: type[SettingsT],
    build: Build[SettingsT],
    *,
    subcommands: Mapping[str, Subcommand[SettingsT]] | None = None,
    tools: Mapping[str, Tool] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """As `run_service`, answering the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "run"
    extra = dict(subcommands or {})
    if command in {"-h", "--help", "help"}:
        print(usage(settings_cls, extra, tools))  # noqa: T201 - the answer of a command
        return EXIT_OK
    if command == "--version":
        print(version_of(settings_cls.service))  # noqa: T201 - the answer of a command
        return EXIT_OK
    tools = tools or {}
    known = {"run", "check", "healthcheck", "dead-letters", "call", *extra, *tools}
    known |= {"migrate"} if migrations_of(settings_cls) else set()
    if command in {"dead-letters", "call"} and command not in extra:
        return _operator(settings_cls, command, arguments[1:])
    if command in tools:
        return _tool(settings_cls, command, tools[command], arguments[1:])
    if command not in known or len(arguments) > 1:
        _complain(
            f"{settings_cls.service}: unknown command {' '.join(arguments)!r}; one of: {', '.join(sorted(known))}"
        )
        return EXIT_USAGE
    try:
        settings = settings_cls.load()
        return _dispatch(command, settings, build, extra)
    except SettingsError as error:
        for fault in error.faults:
            _complain(f"{settings_cls.service}: {fault}")
        return EXIT_CONFIG


def _dispatch(
    command: str, settings: SettingsT, build: Build[SettingsT], extra: Mapping[str, Subcommand[SettingsT]]
) -> int:
    service = settings.service
    if command == "check":
        print(f"{service}: the configuration is valid")  # noqa: T201 - the answer of a command
        return EXIT_OK
    if command == "healthcheck":
        return healthcheck.ask(settings.host, settings.port)
    version = version_of(service).version
    logging.configure(service, version, settings.log_level, settings.log_format)
    try:
        if command == "run":
            tracing.configure(service, version, endpoint=settings.otel_exporter_otlp_endpoint)
            return _in_loop(run(settings, build))
        if command == "migrate" and command not in extra:
            return _in_loop(_migrate(settings))
        return _in_loop(extra[command](settings)) or EXIT_OK
    except SettingsError:
        raise
    except KeyboardInterrupt:
        return EXIT_CRASH
    except Exception:
        log.critical("service crashed", exc_info=True)
        return EXIT_CRASH


def _operator(settings_cls: type[SettingsT], command: str, arguments: Sequence[str]) -> int:
    """A command for an operator; its arguments are checked before the settings are."""
    from cryptopulse.common.runtime import dead_letters, operator_call

    try:
        wish = dead_letters.parse(settings_cls.service, arguments) if command == "dead-letters" else None
        request = operator_call.parse(settings_cls.service, arguments) if command == "call" else None
        settings = settings_cls.load()
    except SystemExit as end:
        return int(end.code or 0)
    except SettingsError as error:
        for fault in error.faults:
            _complain(f"{settings_cls.service}: {fault}")
        return EXIT_CONFIG
    logging.configure(settings.service, version_of(settings.service).version, "error", settings.log_format)
    if request is not None:
        return operator_call.send(request, settings)
    assert wish is not None
    url = settings.rabbitmq_url.get_secret_value()
    return _in_loop(dead_letters.answer(wish, settings.service, url, settings.shards))


def _tool(settings_cls: type[SettingsT], name: str, tool: Tool, arguments: list[str]) -> int:
    try:
        wish = tool.parse(settings_cls.service, name, arguments)
        settings = settings_cls.load()
    except SystemExit as end:
        return int(end.code or 0)
    except SettingsError as error:
        for fault in error.faults:
            _complain(f"{settings_cls.service}: {fault}")
        return EXIT_CONFIG
    logging.configure(settings.service, version_of(settings.service).version, "error", settings.log_format)
    try:
        return _in_loop(tool.answer(wish, settings))
    except CryptoPulseError as error:
        _complain(f"{settings.service}: {error}")
        return EXIT_CRASH


def _in_loop(work: Awaitable[int | None]) -> int:
    async def awaited() -> int | None:
        return await work

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(awaited()) or EXIT_OK


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def run(settings: SettingsT, build: Build[SettingsT], *, signals: Signals | None = None) -> int:
    """The whole life of a service in this event loop, until `signals` (the process's own ones) tell it to stop."""
    runtime = Runtime(settings.service)
    authenticate(runtime.app, InternalVerifier(settings.internal_jwt_secret, settings.service))
    if settings.cloudwatch_namespace:
        runtime.loop("cloudwatch", CloudWatchWriter(settings.service, settings.cloudwatch_namespace).run)
    await runtime.run(
        build(settings, runtime),
        host=settings.host,
        port=settings.port,
        port_setting=f"CRYPTOPULSE_{settings.service.upper()}_PORT",
        drain_delay_seconds=settings.drain_delay_seconds,
        signals=signals,
    )
    return EXIT_OK


async def _migrate(settings: ServiceSettings) -> int:
    from cryptopulse.common.database.migrate import MigrationRefusedError, migrate

    assert isinstance(settings, DatabaseSettings) or hasattr(settings, "database_url")
    directory = migrations_of(type(settings))
    assert directory is not None
    facts = settings.facts()
    url: Any = getattr(settings, "database_url")  # noqa: B009 - declared by the service's own settings
    try:
        applied = await migrate(
            url.get_secret_value() if hasattr(url, "get_secret_value") else str(url),
            schema=facts.schema,
            role=facts.role,
            directory=directory,
        )
    except MigrationRefusedError as error:
        raise SettingsError([f"DATABASE_URL: {line}" for line in str(error).splitlines()]) from error
    log.info("migrations are up to date", schema=facts.schema, applied=applied)
    return EXIT_OK


def migrations_of(settings_cls: type[ServiceSettings]) -> Path | None:
    """The `migrations/` folder beside the module of the settings, None when the service has none."""
    package = settings_cls.__module__.rpartition(".")[0]
    spec = importlib.util.find_spec(package) if package else None
    for place in spec.submodule_search_locations or () if spec is not None else ():
        folder = Path(place) / "migrations"
        if folder.is_dir():
            return folder
    return None


def usage(
    settings_cls: type[ServiceSettings], extra: Mapping[str, Any], tools: Mapping[str, Tool] | None = None
) -> str:
    """The text of `--help`: the commands, and every variable with its default."""
    service = settings_cls.service
    commands = {
        "run": "run the service (the default)",
        "check": "check the configuration and end",
        "healthcheck": "ask the running service's /livez",
        "call": "ask the running service as an operator; see call --help",
        "dead-letters": "list, show, replay or purge what could not be handled; see dead-letters --help",
    }
    if migrations_of(settings_cls) is not None:
        commands["migrate"] = "bring the database schema up to date"
    commands |= {name: (fn.__doc__ or "").strip().partition("\n")[0] for name, fn in extra.items()}
    commands |= {name: f"{tool.help}; see {name} --help" for name, tool in (tools or {}).items()}
    lines = [f"usage: python -m cryptopulse.{service} [command]", "", "commands:"]
    lines += [f"  {name:<14}{text}" for name, text in commands.items()]
    lines += ["", "environment:"]
    for variable in describe(settings_cls):
        default = "required" if variable.required else f"default: {variable.default or 'none'}"
        lines += [f"  {variable.name} ({default})", f"      {variable.description}"]
    return "\n".join(lines)


def _complain(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - faults go to the person who started us
