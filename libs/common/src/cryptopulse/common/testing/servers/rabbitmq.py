"""A private RabbitMQ node: own cookie, own epmd, free loopback ports, nothing shared with a system installation."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

from cryptopulse.common.testing.servers.binaries import RABBITMQ_SETTING, find_rabbitmq
from cryptopulse.common.testing.servers.children import spawn
from cryptopulse.common.testing.servers.faults import MissingBinaryError
from cryptopulse.common.testing.servers.ports import free_port, speaks_amqp, speaks_http
from cryptopulse.common.testing.servers.server import USER, LocalServer, write_private

_MAX_SCHEDULERS = 4
_HOST = "127.0.0.1"


class RabbitServer(LocalServer):
    """The node and its port mapper. The mapper is our own child: a node that starts one leaves it behind."""

    name = "rabbitmq"
    stop_seconds = 20.0  # 1 s by itself, 6 s with the management plugin, more on a loaded machine

    amqp_port = 0
    management_port = 0
    _epmd_port = 0
    _distribution_port = 0

    def choose_ports(self) -> None:
        """Four ports: AMQP, the HTTP API, Erlang's distribution and its mapper."""
        self.amqp_port, self.management_port = free_port(), free_port()
        self._epmd_port, self._distribution_port = free_port(), free_port()

    def launch(self) -> None:
        """Start the mapper, then the node: the start script execs Erlang, so the child's pid is the node's."""
        found = find_rabbitmq(self._environ)
        if found is None:
            raise MissingBinaryError(f"no rabbitmq-server here: install it, or set {RABBITMQ_SETTING}")
        self.prepare_folders()
        home, configuration = self.folder / "home", self.folder / "conf"
        home.mkdir(exist_ok=True)
        configuration.mkdir(exist_ok=True)
        self._write_cookie(home / ".erlang.cookie")
        write_private(configuration / "rabbitmq.conf", self._configuration())
        plugins = "rabbitmq_management" if self.profile.management else ""
        (configuration / "enabled_plugins").write_text(f"[{plugins}].\n", encoding="ascii")

        env = self.environment()
        mapper = spawn(
            "epmd",
            [found.epmd, "-port", str(self._epmd_port), "-address", _HOST],
            pid_folder=self._pid_folder,
            cwd=self.folder,
            env=env,
            log=self._log,
        )
        self.children = [mapper]
        node = spawn(
            self.name,
            [found.server],
            pid_folder=self._pid_folder,
            cwd=self.folder,
            env=env,
            log=self._log,
            # With the management plugin an orderly end takes 6 s, which data of a test are not worth.
            stop_signal=signal.SIGTERM if self.profile.durable else signal.SIGKILL,
        )
        self.children.append(node)

    def is_ready(self) -> bool:
        """Whether the AMQP listener answers, and the HTTP API where it is on."""
        ready = speaks_amqp(_HOST, self.amqp_port)
        return ready and (not self.profile.management or speaks_http(_HOST, self.management_port))

    def urls(self) -> dict[str, str]:
        """`RABBITMQ_URL`, and `RABBITMQ_MANAGEMENT_URL` where the HTTP API is on."""
        account = f"{USER}:{self.secret()}"
        urls = {"RABBITMQ_URL": f"amqp://{account}@{_HOST}:{self.amqp_port}/"}
        if self.profile.management:
            urls["RABBITMQ_MANAGEMENT_URL"] = f"http://{account}@{_HOST}:{self.management_port}"
        return urls

    def environment(self) -> dict[str, str]:
        """What the node needs; `rabbitmqctl` works with the same, less the additional Erlang arguments."""
        configuration = self.folder / "conf"
        schedulers = min(os.cpu_count() or 1, _MAX_SCHEDULERS)
        return {
            **self._environ,
            "HOME": str(self.folder / "home"),
            "RABBITMQ_NODENAME": "cp@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": _HOST,
            "RABBITMQ_NODE_PORT": str(self.amqp_port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(configuration / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(configuration / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ALLOW_INPUT": "1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": _HOST,
            "ERL_CRASH_DUMP": str(self.folder / "erl_crash.dump"),
            # Without inet_dist_use_interface the distribution listens on every address of the machine. Erlang's
            # schedulers spin for work by default: on a small machine that takes the cores from the services.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput -kernel inet_dist_use_interface {127,0,0,1} "
                f"+S {schedulers}:{schedulers} +A 4 +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
        }

    def _configuration(self) -> str:
        lines = [
            f"listeners.tcp.1 = {_HOST}:{self.amqp_port}",
            f"default_user = {USER}",
            f"default_pass = {self.secret()}",
            "default_user_tags.administrator = true",
            "log.console = false",
            "log.file.level = warning",
            "vm_memory_high_watermark.absolute = 1GiB",
            "disk_free_limit.absolute = 200MB",
        ]
        if self.profile.management:
            lines += [
                f"management.tcp.ip = {_HOST}",
                f"management.tcp.port = {self.management_port}",
                "management_agent.disable_metrics_collector = true",
            ]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _write_cookie(path: Path) -> None:
        if not path.exists():
            write_private(path, secrets.token_hex(20).upper())
            path.chmod(0o400)

    def log_tail(self) -> str:
        """The end of our log, or of the node's own when that says more."""
        own = super().log_tail()
        if own:
            return own
        newest = sorted((self.folder / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
        if not newest:
            return ""
        lines = newest[-1].read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-8:])
