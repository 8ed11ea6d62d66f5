"""The gateway hears from its load balancer that it drains: a faked endpoint on loopback, and a signature known from elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from cryptopulse.gateway.adapters.sigv4 import Credentials, query_string, signed_headers
from cryptopulse.gateway.adapters.target_watch import TargetWatch

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/gateway/0123456789abcdef"
ROLE = {"AccessKeyId": "AKID", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}


@dataclass
class Aws:
    """The task's metadata, its role's credentials and the balancer, on one port of loopback."""

    states: list[str] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = head[0].split(" ")[1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        self.asked.append((path, headers))
        status, body = self.answer(urlsplit(path).path)
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()

    def answer(self, path: str) -> tuple[int, str]:
        if path == "/metadata":
            return 200, json.dumps({"Networks": [{"IPv4Addresses": ["10.0.1.7"]}]})
        if path == "/role":
            return 200, json.dumps(ROLE)
        state = self.states.pop(0)
        return (200, f"<R><TargetHealth><State>{state}</State></TargetHealth></R>") if state else (503, "")

    def watch(self) -> TargetWatch:
        environ = {
            "ECS_CONTAINER_METADATA_URI_V4": f"{self.url}/metadata",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/role",
        }
        return TargetWatch(ARN, 8000, environ=environ, endpoint=self.url, poll_seconds=0.01)


@pytest.fixture
async def aws() -> AsyncIterator[Aws]:
    found = Aws()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    server.close()
    await server.wait_closed()


async def test_the_farewell_begins_once_the_balancer_drains_this_task(aws: Aws) -> None:
    aws.states = ["initial", "healthy", "", "healthy", "draining", "draining"]
    acts, beats = [], []

    async def act() -> None:
        acts.append(list(aws.states))

    await asyncio.wait_for(aws.watch().until_draining(act)(lambda: beats.append(1)), 10)

    assert acts == [["draining"]], "once, at the first answer that says so; an answer that fails says nothing"
    assert len(beats) >= 5
    balancer = [(path, headers) for path, headers in aws.asked if path.startswith("/?")]
    query = parse_qs(urlsplit(balancer[0][0]).query)
    assert query["Action"] == ["DescribeTargetHealth"]
    assert query["TargetGroupArn"] == [ARN]
    assert (query["Targets.member.1.Id"], query["Targets.member.1.Port"]) == (["10.0.1.7"], ["8000"])
    signature = r"AWS4-HMAC-SHA256 Credential=AKID/\d{8}/eu-central-1/elasticloadbalancing/aws4_request, .*Signature=[0-9a-f]{64}"
    assert re.fullmatch(signature, balancer[0][1]["authorization"])
    assert sum(path == "/role" for path, _ in aws.asked) == 1, "credentials are kept until they end"


async def test_without_its_metadata_it_says_nothing_and_goes_on_asking(aws: Aws) -> None:
    aws.states = ["healthy"]
    watch = TargetWatch(ARN, 8000, environ={}, endpoint=aws.url, poll_seconds=0.01)
    beats: list[int] = []

    async def act() -> None:
        raise AssertionError("nobody said that it drains")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.until_draining(act)(lambda: beats.append(1)), 0.3)
    assert len(beats) > 2


def test_a_request_is_signed_as_the_maker_s_own_library_signs_it() -> None:
    """The expected signature was computed by botocore 1.x `SigV4Auth`; deploy/checks compares the two on every run."""
    query = query_string({"Version": "2015-12-01", "Action": "DescribeTargetHealth", "TargetGroupArn": ARN})
    headers = signed_headers(
        "elasticloadbalancing.eu-central-1.amazonaws.com",
        query,
        region="eu-central-1",
        service="elasticloadbalancing",
        credentials=Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a+token/=", 0.0),
        now_seconds=1_767_225_600,
    )
    assert headers["authorization"].endswith(
        "Signature=a1404a8afd8112210e24c8fc9fb30470428ad39da28db5db6d125b278cce684d"
    )
