"""The public API as an OpenAPI document, as the gateway makes it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from cryptopulse.gateway.entrypoints.http.admin import admin_document
from cryptopulse.gateway.entrypoints.http.app import document_of


def api_document() -> dict[str, Any]:
    """The whole document."""
    return document_of(version("cryptopulse-gateway"))


def operators_document() -> dict[str, Any]:
    """That of `/v1/admin`, which the internal port alone serves."""
    return admin_document(version("cryptopulse-gateway"))
