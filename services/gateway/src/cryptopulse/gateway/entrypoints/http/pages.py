"""Pages for people: the front page with live prices, the reference at /docs, a page per problem; and the documents."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from cryptopulse.gateway.entrypoints.http.asyncapi import stream_document

CSP: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS: Final = {"Content-Security-Policy": CSP, "Cache-Control": "public, max-age=60"}

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --up: #0a7d32; --down: #b3261e; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; } .up { color: var(--up); } .down { color: var(--down); }
code, pre { background: var(--soft); border-radius: 4px; padding: .1rem .3rem; } pre { padding: .8rem; overflow: auto; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } .m { display: inline-block; min-width: 4rem; font-weight: 600; } .tag { opacity: .7; }
"""

SCRIPT: Final = """
const rows = new Map(), table = document.getElementById("prices"), state = document.getElementById("state");
function row(symbol) {
  if (!rows.has(symbol)) {
    const tr = table.insertRow(); for (let i = 0; i < 5; i++) tr.insertCell();
    tr.cells[0].textContent = symbol; for (let i = 1; i < 4; i++) tr.cells[i].className = "n"; rows.set(symbol, tr);
  }
  return rows.get(symbol);
}
function show(d) {
  const tr = row(d.s), before = tr.dataset.p;
  tr.cells[1].textContent = d.p; tr.cells[2].textContent = d.c24 === null ? "" : Number(d.c24).toFixed(2) + " %";
  tr.cells[2].className = "n " + (Number(d.c24) < 0 ? "down" : "up");
  tr.cells[3].textContent = new Date(d.ts).toISOString().slice(11, 19); tr.cells[4].textContent = d.st + (d.sim ? " (simulated)" : "");
  if (before !== undefined && before !== d.p) tr.cells[1].className = "n " + (Number(d.p) < Number(before) ? "down" : "up");
  tr.dataset.p = d.p;
}
function connect(wait) {
  const ws = new WebSocket(location.origin.replace(/^http/, "ws") + "/v1/ws", "cryptopulse.v1");
  ws.onopen = () => { wait = 1000; ws.send(JSON.stringify({op: "subscribe", id: 1, channels: [{ch: "ticker", symbols: table.dataset.symbols.split(","), every_ms: 1000}]})); };
  ws.onmessage = (e) => { const m = JSON.parse(e.data); if (m.type === "snapshot" || m.type === "update") { show(m.data); state.textContent = "live"; } };
  ws.onclose = () => { state.textContent = "not connected, trying again"; setTimeout(() => connect(Math.min(wait * 2, 30000)), wait); };
}
connect(1000);
"""

FRONT: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>CryptoPulse</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/assets/style.css"></head><body>
<h1>CryptoPulse</h1><p>Real-time crypto prices, indicators, alerts and portfolios, over REST and WebSocket.</p>
<p><a href="/docs">API reference</a> · <a href="/v1/openapi.json">OpenAPI</a> · <a href="/v1/asyncapi.json">AsyncAPI of the stream</a>
 · <a href="/health/">health</a> · <a href="/v1/status">feeds</a></p>
<h2>Prices <small id="state">connecting</small></h2>
<table id="prices" data-symbols="BTC-USD,ETH-USD,SOL-USD,XRP-USD,DOGE-USD,ADA-USD,AVAX-USD,LINK-USD,DOT-USD,LTC-USD">
<thead><tr><th>symbol</th><th class="n">price</th><th class="n">24 h</th><th class="n">time (UTC)</th><th>status</th></tr></thead></table>
<h2>Try it</h2>
<pre>curl {origin}/prices/BTC
curl '{origin}/prices/BTC/history?interval=1h&amp;limit=24'
curl '{origin}/indicators/BTC?interval=1h&amp;names=rsi,macd'</pre>
<p>Stream: connect to <code>/v1/ws</code> and send
<code>{{"op":"subscribe","id":1,"channels":[{{"ch":"ticker","symbols":["BTC-USD"]}}]}}</code></p>
<script src="/assets/front.js"></script></body></html>"""


def routes(document: dict[str, Any]) -> list[BaseRoute]:
    """The pages' routes. They are no part of the API document: nothing in them is for programs."""
    openapi = orjson.dumps(document)
    reference = _reference(document)
    return [
        Route("/", _front, methods=["GET"]),
        Route("/docs", _fixed(HTMLResponse(reference, headers=_HEADERS)), methods=["GET"]),
        Route("/v1/openapi.json", _json(openapi), methods=["GET"]),
        Route(
            "/v1/asyncapi.json",
            _json(orjson.dumps(stream_document(document["info"]["version"]))),
            methods=["GET"],
        ),
        Route("/openapi.json", _json(openapi), methods=["GET"]),
        Route("/assets/style.css", _asset(STYLE, "text/css"), methods=["GET"]),
        Route("/assets/front.js", _asset(SCRIPT, "text/javascript"), methods=["GET"]),
        Route("/problems/{code}", _problem, methods=["GET"]),
        Route("/favicon.ico", _fixed(Response(status_code=204)), methods=["GET"]),
    ]


def _fixed(response: Response) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_request: Request) -> Response:
        return response

    return endpoint


def _json(body: bytes) -> Callable[[Request], Awaitable[Response]]:
    headers = {"Cache-Control": "public, max-age=300"}

    async def endpoint(_request: Request) -> Response:
        return Response(body, headers=headers, media_type="application/json")

    return endpoint


def _asset(text: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    return _fixed(Response(text, media_type=kind, headers={"Cache-Control": "public, max-age=3600"}))


async def _front(request: Request) -> Response:
    origin = f"{request.url.scheme}://{request.headers.get('host', 'localhost:8000')}"
    return HTMLResponse(
        FRONT.format(origin=html.escape(origin)), headers={**_HEADERS, "Cache-Control": "no-cache"}
    )


async def _problem(request: Request) -> Response:
    code = html.escape(request.path_params["code"])[:80]
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{code}</title>'
        f'<link rel="stylesheet" href="/assets/style.css"></head><body><h1>{code}</h1>'
        "<p>This code is stable: programs may rely on it. The problem's <code>detail</code> says what happened, "
        "<code>errors</code> names the fields and the fix, <code>request_id</code> helps us to find the request.</p>"
        '<p><a href="/docs">API reference</a></p></body></html>'
    )
    return HTMLResponse(text, headers=_HEADERS)


def _reference(document: dict[str, Any]) -> str:
    """The reference as one plain page, rendered from the document: nothing is loaded from elsewhere."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>CryptoPulse API</title>',
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/assets/style.css"></head><body>',
        f"<h1>CryptoPulse API {html.escape(document['info']['version'])}</h1><p>{html.escape(document['info']['description'])}</p>",
        '<p><a href="/">Front page</a> · <a href="/v1/openapi.json">OpenAPI 3.1</a> · <a href="/v1/asyncapi.json">AsyncAPI</a></p>',
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{html.escape(tag['name'])}</h2><p>{html.escape(tag['description'])}</p>")
        for path, methods in document["paths"].items():
            for method, entry in methods.items():
                if tag["name"] in entry["tags"][:1]:
                    parts.append(_entry(path, method, entry))
    parts.append("</body></html>")
    return "".join(parts)


def _entry(path: str, method: str, entry: dict[str, Any]) -> str:
    rows = []
    for item in entry["parameters"]:
        schema = item["schema"]
        kind = schema.get("type") or "/".join(str(one.get("type", "")) for one in schema.get("anyOf", ()))
        choices = f" one of {', '.join(map(str, schema['enum']))}" if "enum" in schema else ""
        default = f" (default {schema['default']})" if schema.get("default") not in {None, ""} else ""
        note = html.escape(f"{item.get('description', '')}{choices}{default}")
        rows.append(
            f"<tr><td><code>{html.escape(item['name'])}</code></td><td>{item['in']}</td>"
            f"<td>{html.escape(kind)}{' *' if item.get('required') else ''}</td><td>{note}</td></tr>"
        )
    table = (
        f"<table><tr><th>name</th><th>in</th><th>type</th><th></th></tr>{''.join(rows)}</table>"
        if rows
        else ""
    )
    needs = (
        "public"
        if {} in entry["security"]
        else "needs " + " or ".join(next(iter(s)) for s in entry["security"])
    )
    bodies = ""
    for content in entry.get("requestBody", {}).get("content", {}).values():
        ref = content["schema"].get("$ref", "").rpartition("/")[2]
        bodies = f"<p>Body: <code>{html.escape(ref or 'text')}</code></p>"
    answers = ", ".join(f"<code>{status}</code>" for status in entry["responses"])
    return (
        f'<details><summary><span class="m">{method.upper()}</span> <code>{html.escape(path)}</code> '
        f'{html.escape(entry["summary"])} <span class="tag">{needs}, cost {entry["x-cost"]:g}</span></summary>'
        f"<p>{html.escape(entry.get('description', ''))}</p>{table}{bodies}<p>Answers: {answers}</p></details>"
    )
