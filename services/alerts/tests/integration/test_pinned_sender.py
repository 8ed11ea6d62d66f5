"""The guard at the moment of connecting: whatever a URL says and a resolver answers, a canary on loopback sees nobody."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cryptopulse.alerts.adapters.pinned import PinnedBackend, PinnedSender
from cryptopulse.alerts.domain.addresses import UrlRefusedError

from ..unit.test_addresses import HOSTILE  # noqa: TID252 - tests are no package: the table is beside the unit tests
from .conftest import Receiver

PUBLIC = "93.184.216.34"


class Answers:
    """A resolver that answers as told, another answer each time; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_no_hostile_url_reaches_the_canary_at_creation_or_delivery(receiver: Receiver) -> None:
    sender = PinnedSender(resolver=Answers(["127.0.0.1"]))
    port = receiver.port
    own = [f"https://127.0.0.1:{port}/", f"http://localhost:{port}/", f"https://[::ffff:127.0.0.1]:{port}/"]
    for url in [*HOSTILE, *own, "https://public.example.com/", "https://public.example.com:8443/"]:
        with pytest.raises(UrlRefusedError):
            await sender.check(url)
        answer = await sender.post(url, b"{}", {})
        assert answer.status is None, url
        assert answer.error is not None
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "169.254.170.2", "10.0.0.1", "::1", "::ffff:127.0.0.1", "fd00:ec2::254"]
)
async def test_one_inner_address_among_public_ones_is_enough_to_refuse(inside: str) -> None:
    sender = PinnedSender(resolver=Answers([PUBLIC, inside]))
    with pytest.raises(UrlRefusedError):
        await sender.check("https://hooks.example.com/")
    assert (await sender.post("https://hooks.example.com/", b"{}", {})).status is None


async def test_a_name_that_rebinds_is_refused_at_delivery(receiver: Receiver) -> None:
    resolver = Answers([PUBLIC], ["127.0.0.1"])
    sender = PinnedSender(resolver=resolver)
    assert await sender.check("https://hooks.example.com:8443/")
    answer = await sender.post("https://hooks.example.com:8443/", b"{}", {})
    assert (answer.status, answer.error) == (None, "the host is not on the public internet")
    assert len(resolver.asked) == 2
    assert receiver.connections == 0


async def test_the_address_that_was_checked_is_the_one_that_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled: list[str] = []
    resolver = Answers([PUBLIC], ["127.0.0.1"])
    backend = PinnedBackend(resolver, insecure=False)

    async def dial(host: str, *_: object, **__: object) -> object:
        dialled.append(host)
        raise OSError("no network in tests")

    monkeypatch.setattr(backend._dial, "connect_tcp", dial)
    with pytest.raises(OSError, match="no network"):
        await backend.connect_tcp("hooks.example.com", 443)
    assert dialled == [PUBLIC]
    assert len(resolver.asked) == 1


async def test_redirects_are_not_followed_and_proxies_of_the_environment_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    receiver.answers = [(302, {"Location": "http://169.254.170.2/"})]
    answer = await PinnedSender(insecure=True).post(receiver.url, b"{}", {})
    assert (answer.status, receiver.connections) == (302, 1)


async def test_a_slow_endpoint_costs_a_bounded_time(receiver: Receiver) -> None:
    receiver.delay = 5.0
    sender = PinnedSender(insecure=True, total_seconds=0.3)
    async with asyncio.timeout(2):
        assert (await sender.post(receiver.url, b"{}", {})).error == "timed out"


async def test_an_endless_answer_is_cut() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"2000\r\n" + b"x" * 8192 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            return

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(5):
        answer = await PinnedSender(insecure=True).post(f"http://127.0.0.1:{port}/", b"{}", {})
    assert answer.status == 200
    assert answer.text is not None
    assert len(answer.text) == 1024
    server.close()


@pytest.fixture
async def tls(tmp_path: Path) -> AsyncIterator[tuple[int, ssl.SSLContext, list[str | None]]]:
    """A TLS server for `hooks.example.com` on loopback: (port, a context that trusts it, the names that clients asked for)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.com")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.com")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "both.pem").write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, server_name, _context: asked.append(server_name)
    receiver = Receiver(0)
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0, ssl=context)
    trusting = ssl.create_default_context(cadata=pem.decode())
    yield server.sockets[0].getsockname()[1], trusting, asked
    server.close()


async def test_tls_speaks_to_the_name_while_the_pinned_address_is_dialled(
    tls: tuple[int, ssl.SSLContext, list[str | None]],
) -> None:
    port, trusting, asked = tls
    sender = PinnedSender(insecure=True, resolver=Answers(["127.0.0.1"]), ssl_context=trusting)
    assert (await sender.post(f"https://hooks.example.com:{port}/", b"{}", {})).status == 200
    assert asked == ["hooks.example.com"]
    other = await sender.post(f"https://other.example.com:{port}/", b"{}", {})
    assert (other.status, other.error) == (None, "connection failed")
    untrusting = PinnedSender(insecure=True, resolver=Answers(["127.0.0.1"]))
    assert (await untrusting.post(f"https://hooks.example.com:{port}/", b"{}", {})).status is None


async def test_development_does_not_open_the_inner_networks() -> None:
    sender = PinnedSender(insecure=True, resolver=Answers(["10.0.0.1"]))
    with pytest.raises(UrlRefusedError):
        await sender.check("https://hooks.example.com/")
