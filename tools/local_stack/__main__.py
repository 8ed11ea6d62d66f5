"""`python -m tools.local_stack`: run, servers, exec, env, example, clean, system, programs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cryptopulse.common.testing.servers.children import die_with_parent
from cryptopulse.common.testing.servers.docker import DockerEngine
from cryptopulse.common.testing.servers.faults import StackError
from tools.local_stack.bare import clean, exec_with_servers, serve
from tools.local_stack.config import EXIT_CONFIG, ConfigError, run_folder
from tools.local_stack.console import complain, stop_signals
from tools.local_stack.dotenv import DotenvError, with_dotenv
from tools.local_stack.system import provide, provide_programs

CHECKOUT = Path(__file__).resolve().parents[2]


class _Stopped(BaseException):
    """A signal came while something was being started; what was started is stopped on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _raise_on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    raise _Stopped(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.local_stack", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    tied = argparse.ArgumentParser(add_help=False)
    tied.add_argument("--tied", action="store_true", help="stop when the process that started this one ends")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--folder", type=Path, help="where the data go (default: `test` in the run folder)")
    tasks.add_parser("run", parents=[tied], help="the whole system, until Ctrl-C")
    servers = tasks.add_parser(
        "servers", parents=[tied, folder], help="the three servers alone, until Ctrl-C"
    )
    servers.add_argument("--env-file", type=Path, help="write the export lines there too")
    runs = tasks.add_parser("exec", parents=[tied, folder], help="boot the servers, run a command, stop them")
    runs.add_argument("command", nargs="+")
    env = tasks.add_parser("env", help="run a command with the settings of .env")
    env.add_argument("command", nargs="+")
    tasks.add_parser("example", help="write .env.example from the services' settings")
    tasks.add_parser("clean", help="remove the run folder with all data in it")
    tasks.add_parser("system", help="install the servers that are missing")
    programs = tasks.add_parser("programs", help="install programs that are missing, without starting them")
    programs.add_argument("wanted", nargs="+", metavar="PROGRAM=PACKAGE")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one task; the exit code."""
    args = _parser().parse_args(arguments)
    if getattr(args, "tied", False):
        die_with_parent(signal.SIGTERM)
    for number in stop_signals():
        signal.signal(number, _raise_on_signal)
    try:
        return _do(args)
    except (ConfigError, DotenvError) as error:
        complain("\n".join(error.faults))
        return EXIT_CONFIG
    except StackError as error:
        complain(str(error))
        return 1
    except _Stopped as stopped:
        return 128 + stopped.number


def _do(args: argparse.Namespace) -> int:
    environ = with_dotenv(os.environ, CHECKOUT / ".env")
    if args.task == "env":
        os.execvpe(args.command[0], args.command, environ)  # noqa: S606 - the command is make's own
    if args.task == "example":
        from tools.local_stack.config import variables
        from tools.local_stack.env_example import render

        (CHECKOUT / ".env.example").write_text(render(variables()), encoding="utf-8")
        return 0
    if args.task == "system":
        provide(environ, DockerEngine())
        return 0
    if args.task == "programs":
        provide_programs(args.wanted)
        return 0
    if args.task == "run":
        from tools.local_stack.stack import Stack

        return Stack(environ, CHECKOUT).run()
    runs = run_folder(environ, CHECKOUT)
    if args.task == "clean":
        return clean(runs, environ)
    target = CHECKOUT / args.folder if args.folder else runs / "test"
    if args.task == "servers":
        return serve(target, environ, args.env_file)
    return exec_with_servers(target, environ, args.command)


if __name__ == "__main__":
    sys.exit(main())
