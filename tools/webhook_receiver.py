"""`python -m tools.webhook_receiver [PORT] [--secret whsec_...]`: prints each webhook that arrives, its signature checked when the secret is given."""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

MAX_BODY_BYTES = 64 * 1024


def _handler(secret: str | None) -> type[BaseHTTPRequestHandler]:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = min(int(self.headers.get("content-length", "0")), MAX_BODY_BYTES)
            body = self.rfile.read(length)
            verdict = _verdict(secret, body, dict(self.headers.items()))
            print(
                json.dumps(
                    {
                        "webhook-id": self.headers.get("webhook-id"),
                        "signature": verdict,
                        "body": json.loads(body),
                    }
                ),
                flush=True,
            )
            self.send_response(400 if verdict == "wrong" else 204)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """One line a webhook is enough."""

    return Hook


def _verdict(secret: str | None, body: bytes, headers: dict[str, str]) -> str:
    if secret is None:
        return "not checked"
    try:
        Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})
    except WebhookVerificationError:
        return "wrong"
    return "right"


def main() -> int:
    """Serve on loopback until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tools.webhook_receiver", description=__doc__)
    parser.add_argument("port", nargs="?", type=int, default=9000)
    parser.add_argument("--secret")
    args = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", args.port), _handler(args.secret))
    print(f"receiving webhooks on http://127.0.0.1:{args.port}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
