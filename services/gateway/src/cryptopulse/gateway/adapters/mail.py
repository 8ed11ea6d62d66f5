"""Mail: by SMTP, or into the log on a developer's machine. Nobody waits for a mail server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Final

import aiosmtplib

from cryptopulse.common.telemetry.logging import get_logger

log = get_logger(__name__)

WAITING_MAX: Final = 1_000
TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed over."""

    host: str
    port: int
    sender: str
    username: str | None = None
    password: str | None = None
    use_tls: bool = False
    start_tls: bool | None = None


class SmtpMailer:
    """Queues mail and hands it to a server from `run`; a full queue drops the oldest, counted in the log."""

    def __init__(self, server: SmtpServer, *, pause_seconds: float = 1.0) -> None:
        self._server = server
        self._queue: asyncio.Queue[EmailMessage] = asyncio.Queue(WAITING_MAX)
        self._pause = pause_seconds

    async def send(self, to: str, subject: str, text: str) -> None:
        """Queue one mail."""
        message = EmailMessage()
        message["From"] = self._server.sender
        message["To"] = to
        message["Subject"] = subject
        message.set_content(text)
        if self._queue.full():
            self._queue.get_nowait()
            log.error("mail was dropped: the queue is full")
        self._queue.put_nowait(message)

    async def run(self, beat: Callable[[], None]) -> None:
        """Deliver for ever; each mail is tried a few times."""
        while True:
            beat()
            try:
                message = await asyncio.wait_for(self._queue.get(), 5)
            except TimeoutError:
                continue
            await self._deliver(message, beat)

    async def _deliver(self, message: EmailMessage, beat: Callable[[], None]) -> None:
        server = self._server
        for attempt in range(1, TRIES + 1):
            beat()
            try:
                await aiosmtplib.send(
                    message,
                    hostname=server.host,
                    port=server.port,
                    username=server.username,
                    password=server.password,
                    use_tls=server.use_tls,
                    start_tls=server.start_tls,
                    timeout=10,
                )
                return
            except (aiosmtplib.SMTPException, OSError) as error:
                log.warning("mail could not be sent", attempt=attempt, error=type(error).__name__)
                await asyncio.sleep(self._pause * 2**attempt)
        log.error("mail was given up", subject=message["Subject"])


class LogMailer:
    """Writes mail to the log: for development only, the token in it is a credential."""

    async def send(self, to: str, subject: str, text: str) -> None:
        """Say what would have been sent."""
        log.info("mail was written to the log (no SMTP server is set)", to=to, subject=subject, text=text)
