"""Asks the AWS load balancer about this very task: while it drains, sockets must go, for it tells nobody and cuts them at the end.

The addresses of the task's metadata and of its role's credentials are put into the environment by ECS.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final

import httpx

from cryptopulse.common.telemetry.logging import get_logger
from cryptopulse.gateway.adapters.sigv4 import Credentials, query_string, signed_headers

POLL_SECONDS: Final = 5.0
TIMEOUT_SECONDS: Final = 4.0
RENEW_SECONDS: Final = 300.0
SERVICE: Final = "elasticloadbalancing"
CREDENTIALS_HOST: Final = "http://169.254.170.2"
_STATE: Final = re.compile(r"<State>([a-z.]+)</State>")

log = get_logger(__name__)


class TargetWatch:
    """`DescribeTargetHealth` for our own address in one target group. `endpoint` replaces the region's public one."""

    def __init__(
        self,
        arn: str,
        port: int,
        *,
        environ: Mapping[str, str] = os.environ,
        endpoint: str | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._region = arn.split(":")[3]
        domain = "amazonaws.com.cn" if arn.startswith("arn:aws-cn:") else "amazonaws.com"
        self._endpoint = httpx.URL(endpoint or f"https://{SERVICE}.{self._region}.{domain}")
        self._metadata = environ.get("ECS_CONTAINER_METADATA_URI_V4", "")
        path = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
        self._credentials_url = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", CREDENTIALS_HOST + path)
        self._arn, self._port, self._poll_seconds = arn, port, poll_seconds
        self._address = ""
        self._credentials = Credentials("", "", "", 0.0)

    def until_draining(self, act: Callable[[], Awaitable[None]]) -> Callable[[Callable[[], None]], Any]:
        """A loop that calls `act` once, when the balancer has begun to drain this task, and ends."""

        async def run(beat: Callable[[], None]) -> None:
            failing = False
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as http:
                while True:
                    beat()
                    try:
                        state = await self.state(http)
                    except (httpx.HTTPError, KeyError, ValueError, IndexError) as error:
                        if not failing:
                            log.warning(
                                "the target group does not answer", error=f"{type(error).__name__}: {error}"
                            )
                        state, failing = "", True
                    else:
                        failing = False
                    if state == "draining":
                        break
                    await asyncio.sleep(self._poll_seconds)
            log.info("the balancer drains this task: sockets are sent elsewhere")
            beat()
            await act()

        return run

    async def state(self, http: httpx.AsyncClient) -> str:
        """`initial`, `healthy`, `unhealthy`, `draining`, `unused`. Raises `httpx.HTTPError` or `ValueError`."""
        if not self._address:
            networks = (await _json(http, self._metadata))["Networks"]
            self._address = networks[0]["IPv4Addresses"][0]
        query = query_string(
            {
                "Action": "DescribeTargetHealth",
                "Version": "2015-12-01",
                "TargetGroupArn": self._arn,
                "Targets.member.1.Id": self._address,
                "Targets.member.1.Port": str(self._port),
            }
        )
        headers = signed_headers(
            self._endpoint.netloc.decode(),
            query,
            region=self._region,
            service=SERVICE,
            credentials=await self._role(http),
            now_seconds=time.time(),
        )
        answer = await http.get(f"{self._endpoint}/?{query}", headers=headers)
        answer.raise_for_status()
        found = _STATE.search(answer.text)
        if found is None:
            raise ValueError("the answer tells no state")
        return found[1]

    async def _role(self, http: httpx.AsyncClient) -> Credentials:
        if self._credentials.expires_at - time.time() < RENEW_SECONDS:
            found = await _json(http, self._credentials_url)
            self._credentials = Credentials(
                found["AccessKeyId"],
                found["SecretAccessKey"],
                found["Token"],
                datetime.fromisoformat(found["Expiration"]).timestamp(),
            )
        return self._credentials


async def _json(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    answer = await http.get(url)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found
