"""Indicators in a request: names, parameters and what is computed for them; and in an answer: their descriptions."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from cryptopulse.common.contracts.intervals import Interval
from cryptopulse.common.contracts.values import plain
from cryptopulse.common.errors import FieldError, Invalid
from cryptopulse.indicators.application.query_history import Valued
from cryptopulse.indicators.domain.registry import (
    OUTPUTS,
    BadParameterError,
    Definition,
    UnknownIndicatorError,
    find,
)
from cryptopulse.indicators.domain.study import Study
from cryptopulse.indicators.domain.ta_catalogue import TA_BY_NAME, TaDefinition


def found_definition(name: str, parameter: str) -> tuple[Definition, dict[str, float]]:
    try:
        return find(name)
    except UnknownIndicatorError as error:
        raise Invalid(
            str(error), code="unknown-indicator", errors=(FieldError(parameter, "unknown", str(error)),)
        ) from error


def made_study(
    definition: Definition, given: dict[str, float], interval: Interval
) -> tuple[Study, dict[str, float]]:
    try:
        return definition.make(interval, given), definition.checked(given)
    except BadParameterError as error:
        raise Invalid(
            str(error), code="bad-parameter", errors=(FieldError(definition.name, "parameter", str(error)),)
        ) from error


KNOWN_PARAMETERS = frozenset(
    {"interval", "names", "source", "closed", "from", "to", "limit", "cursor", "engine"}
)


def parameters_of(request: Request, name: str, *, plain_names: bool = False) -> dict[str, float]:
    """Parameters of an indicator in the query: `rsi.period=7`, and `period=7` where only one indicator is asked for."""
    found = {}
    for key, value in request.query_params.items():
        if key in KNOWN_PARAMETERS:
            continue
        owner, dot, parameter = key.rpartition(".")
        if (dot and owner == name) or (not dot and plain_names):
            try:
                found[parameter] = float(value)
            except ValueError as error:
                raise Invalid(
                    f"{key} is not a number", errors=(FieldError(key, "number", "give a number"),)
                ) from error
        elif not dot:
            raise Invalid(
                f"unknown parameter {key}", errors=(FieldError(key, "unknown", "see GET /indicators"),)
            )
    return found


def wanted_outputs(
    names: str | None, request: Request, interval: Interval
) -> tuple[list[str] | None, dict[str, Study]]:
    """Outputs asked for (None: all), and studies that are not part of the live set."""
    asked = [name.strip() for name in (names or "").split(",") if name.strip()]
    owners = {key.rpartition(".")[0] for key in request.query_params if "." in key}
    if not asked and not owners:
        parameters_of(request, "")
        return None, {}
    outputs: list[str] = []
    extra: dict[str, Study] = {}
    for name in asked or sorted(owners):
        if name in OUTPUTS:
            parameters_of(request, name)
            if name not in owners:
                outputs.append(name)
                continue
        definition, given = found_definition(name, "names")
        given |= parameters_of(request, definition.name) | parameters_of(request, name)
        if not given:
            outputs += [one for live in definition.live for one in definition.make(interval, live).outputs]
            continue
        study, _ = made_study(definition, given, interval)
        outputs += study.outputs
        if not set(study.outputs) <= set(OUTPUTS) or given:
            extra[name] = study
    return list(dict.fromkeys(outputs)), extra


def definition_body(definition: Definition) -> dict[str, Any]:
    live = [definition.make("1h", given) for given in definition.live]
    return {
        "name": definition.name,
        "title": definition.title,
        "outputs": [output for study in live for output in study.outputs],
        "parameters": [
            {
                "name": parameter.name,
                "default": parameter.default,
                "minimum": parameter.minimum,
                "maximum": parameter.maximum,
                "integer": parameter.integer,
            }
            for parameter in definition.parameters
        ],
        "formula": definition.formula,
        "needed": max(study.needed for study in live),
        "engine": "cryptopulse",
        "live": True,
    }


def point_body(row: Valued) -> dict[str, Any]:
    return {"open_time": row.open_time, "close": plain(row.close), "values": row.values}


def split_names(names: str | None) -> tuple[str | None, list[TaDefinition]]:
    """Names that are ours, and indicators that only `ta` computes."""
    asked = [name.strip() for name in (names or "").split(",") if name.strip()]
    theirs = [
        one for name in asked if (one := TA_BY_NAME.get(name.lower())) is not None and not one.live_twin
    ]
    ours = [name for name in asked if name.lower() not in {one.name for one in theirs}]
    return (",".join(ours) or None), theirs


def ta_parameters(definition: TaDefinition, given: dict[str, float]) -> dict[str, float]:
    try:
        return definition.checked(given)
    except BadParameterError as error:
        raise Invalid(
            str(error), code="bad-parameter", errors=(FieldError(definition.name, "parameter", str(error)),)
        ) from error


def ta_definition_body(definition: TaDefinition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "title": definition.title,
        "outputs": list(definition.outputs),
        "parameters": [
            {
                "name": parameter.name,
                "default": parameter.default,
                "minimum": parameter.minimum,
                "maximum": parameter.maximum,
                "integer": parameter.integer,
            }
            for parameter in definition.parameters
        ],
        "formula": "as the ta package 0.11 computes it",
        "needed": definition.least,
        "engine": "ta",
        "live": False,
    }
