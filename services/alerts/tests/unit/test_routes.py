from __future__ import annotations

from typing import Any, cast

import pytest
from fastapi.routing import APIRoute

from cryptopulse.alerts.entrypoints.http import alert_routes, user_of, version_of
from cryptopulse.alerts.entrypoints.http_webhooks import webhook_routes
from cryptopulse.common.contracts.http.alerts import ROUTES, AlertCreate
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import Forbidden, PreconditionFailed

NONE = cast("Any", None)


def test_the_service_serves_exactly_the_published_routes() -> None:
    routers = (alert_routes(NONE, NONE, NONE, NONE, NONE, NONE), webhook_routes(NONE, NONE, NONE, NONE))
    served = {
        (method, route.path, route.status_code or 200)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert served == {(spec.method, spec.path, spec.status) for spec in ROUTES}
    assert len({spec.operation_id for spec in ROUTES}) == len(ROUTES)


def test_a_caller_needs_a_user_and_the_scope_or_its_family() -> None:
    assert user_of(Identity("ann", frozenset({"alerts:read"})), "alerts:read") == "ann"
    assert user_of(Identity("ann", frozenset({"alerts"})), "alerts:read") == "ann"
    assert user_of(Identity("ann", frozenset({"*"})), "webhooks") == "ann"
    for identity in (
        Identity("ann", frozenset({"alerts:read"})),
        Identity("ann"),
        Identity(None, frozenset({"*"})),
    ):
        with pytest.raises(Forbidden):
            user_of(identity, "alerts")


def test_if_match_names_a_version() -> None:
    assert [version_of(text) for text in (None, "*", '"7"', 'W/"7"', "7")] == [None, None, 7, 7, 7]
    with pytest.raises(PreconditionFailed):
        version_of('"abc"')


@pytest.mark.parametrize(
    "body",
    [
        {"symbol": "BTC", "condition": "cross", "price": "1", "for_seconds": 5},
        {"symbol": "BTC", "condition": {"type": "price_cross", "value": "1"}, "notify_resolved": True},
        {"symbol": "BTC", "condition": "above", "price": "1", "cooldown_seconds": 60},
        {"symbol": "BTC", "condition": "above", "price": "1", "trigger": "recurring", "cooldown_seconds": 1},
        {"symbol": "BTC", "condition": {"type": "price_enter_range", "low": "2", "high": "1"}},
        {"symbol": "BTC", "condition": {"type": "pct_change", "pct": "5"}},
        {"symbol": "BTC", "condition": {"type": "indicator", "output": "rsi_14", "op": "above"}},
        {
            "symbol": "BTC",
            "condition": {"type": "all", "conditions": [{"type": "price_above", "value": "1"}] * 6},
        },
        {
            "symbol": "BTC",
            "condition": {"type": "not", "conditions": [{"type": "price_above", "value": "1"}] * 2},
        },
        {
            "symbol": "BTC",
            "condition": {"type": "any", "conditions": [{"type": "signal", "kind": "macd_cross"}]},
        },
        {"symbol": "BTC", "condition": "above", "price": "NaN"},
        {"symbol": "BTC", "condition": "above", "price": "1e400"},
        {"symbol": "BTC", "condition": "above", "price": "1", "message": "{price!r}"},
        {"symbol": "BTC", "condition": "above", "price": "1", "state": "completed"},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        AlertCreate.model_validate(body)
