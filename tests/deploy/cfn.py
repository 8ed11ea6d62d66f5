"""CloudFormation templates resolved as far as they can be without AWS: parameters, conditions and functions evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "deploy/ecs"
SERVICES: Final = ("ingestor", "indicators", "alerts", "portfolio", "gateway")
STACKS: Final = ("network", "data", "platform", "migrate", *SERVICES)
PARAMS: Final = ("small", "large")
ACCOUNT: Final = "123456789012"
RELEASE: Final = "1.4.0"
NO_VALUE: Final = object()
PSEUDO: Final[dict[str, Any]] = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::NoValue": NO_VALUE,
}


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags as their long forms."""


def _tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "Ref":
        return {"Ref": value}
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _tag)


def text_of(stack: str) -> str:
    """The template as it is written."""
    return (FOLDER / f"{stack}.yaml").read_text(encoding="utf-8")


@cache
def parse(text: str) -> dict[str, Any]:
    """The template as data, functions in their long form. Shared: nobody changes it."""
    document: dict[str, Any] = yaml.load(text, _Loader)
    return document


@dataclass
class Template:
    """One resolved template: what CloudFormation would make of it with these parameters."""

    stack: str
    raw: dict[str, Any]
    size_bytes: int
    parameters: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, bool] = field(default_factory=dict)
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Name -> properties of every resource of a type."""
        return {
            name: one.get("Properties", {}) for name, one in self.resources.items() if one["Type"] == kind
        }


def resolve(stack: str, params: str = "large", *, text: str | None = None) -> Template:
    """Resolve a stack with a file of parameters; a parameter that an earlier stack gives stands as `<Name>`."""
    text = text if text is not None else text_of(stack)
    raw = parse(text)
    given = json.loads((FOLDER / f"params/{params}.json").read_text(encoding="utf-8"))
    values = {**given.get("all", {}), **given.get(stack, {})}
    template = Template(stack, raw, len(text.encode()))
    for name, declared in raw.get("Parameters", {}).items():
        value = values.get(name, declared.get("Default"))
        if value is None and (image := re.fullmatch(r"(\w+)Image", name)):
            value = f"{ACCOUNT}.dkr.ecr.example/cryptopulse/{image[1].lower()}:{RELEASE}"
        if value is None:
            value = f"<{name}>"
        if str(declared["Type"]).startswith("List<"):
            value = [f"<{name}-{zone}>" for zone in "abc"]
        template.parameters[name] = str(value) if isinstance(value, int) else value
    for name, condition in raw.get("Conditions", {}).items():
        template.conditions[name] = bool(_value(template, condition))
    for name, resource in raw["Resources"].items():
        if "Condition" in resource and not template.conditions[resource["Condition"]]:
            continue
        template.resources[name] = _value(template, resource)
    return template


def _value(template: Template, node: Any) -> Any:
    if isinstance(node, list):
        return [one for one in (_value(template, part) for part in node) if one is not NO_VALUE]
    if not isinstance(node, dict):
        return node
    if len(node) == 1:
        (name, argument) = next(iter(node.items()))
        if name == "Ref" or name.startswith("Fn::"):
            return _function(template, name, argument)
    found = {key: _value(template, part) for key, part in node.items()}
    return {key: value for key, value in found.items() if value is not NO_VALUE}


def _function(template: Template, name: str, argument: Any) -> Any:
    if name == "Fn::If":
        chosen, yes, no = argument
        return _value(template, yes if template.conditions[chosen] else no)
    if name == "Ref":
        return _reference(template, argument)
    if name == "Fn::GetAtt":
        if argument[0] not in template.raw["Resources"]:
            raise KeyError(f"{template.stack}: GetAtt of {argument[0]}, which is not there")
        return f"<{argument[0]}.{argument[1]}>"
    if name == "Fn::Sub":
        return _substituted(template, argument)
    values = _value(template, argument)
    functions: dict[str, Callable[[], Any]] = {
        "Fn::Equals": lambda: str(values[0]) == str(values[1]),
        "Fn::Not": lambda: not values[0],
        "Fn::And": lambda: all(values),
        "Fn::Or": lambda: any(values),
        "Fn::Join": lambda: values[0].join(str(one) for one in values[1]),
        "Fn::Split": lambda: (
            str(values[1]).split(values[0]) if values[0] in str(values[1]) else [values[1]] * 2
        ),
        "Fn::Select": lambda: values[1][int(values[0])] if isinstance(values[1], list) else values[1],
        "Fn::GetAZs": lambda: ["a", "b", "c"],
        "Fn::Cidr": lambda: [f"{values[0]}#{index}" for index in range(int(values[1]))],
    }
    return functions[name]()


def _reference(template: Template, name: str) -> Any:
    if name in PSEUDO:
        return PSEUDO[name]
    if name in template.parameters:
        return template.parameters[name]
    if name not in template.raw["Resources"]:
        raise KeyError(f"{template.stack}: Ref to {name}, which is not there")
    return f"<{name}>"


def _substituted(template: Template, argument: Any) -> str:
    text, extra = (
        (argument, {}) if isinstance(argument, str) else (argument[0], _value(template, argument[1]))
    )

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name in extra:
            return str(extra[name])
        if "." in name:
            return str(_function(template, "Fn::GetAtt", name.split(".", 1)))
        return str(_reference(template, name))

    return re.sub(r"\$\{([\w:.]+)\}", one, text)


def all_stacks(params: str, changed: dict[str, str] | None = None) -> dict[str, Template]:
    """Every stack resolved; `changed` replaces the text of some."""
    changed = changed or {}
    return {stack: resolve(stack, params, text=changed.get(stack)) for stack in STACKS}
