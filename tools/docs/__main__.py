"""`python -m tools.docs` writes docs/asyncapi.json, docs/openapi.json and docs/openapi-admin.json; `--check` only says whether they are up to date."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tools.docs.asyncapi import bus_document
from tools.docs.openapi import api_document, operators_document

FOLDER = Path(__file__).resolve().parents[2] / "docs"


def rendered(document: dict[str, Any]) -> str:
    """A document as it is kept: indented, so that a change shows in a diff."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write or check the documents; 1 when a check finds an old one."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail when a document is out of date"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the documents are kept")
    options = parser.parse_args(argv)
    documents = {
        "asyncapi.json": bus_document(),
        "openapi.json": api_document(),
        "openapi-admin.json": operators_document(),
    }
    old = []
    for name, document in documents.items():
        path, text = options.folder / name, rendered(document)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(name)
        if not options.check:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    if options.check and old:
        print(f"out of date: {', '.join(old)}; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
