"""`python -m tests.deploy.dump`: the task definitions of the resolved templates as JSON, for a checker in another environment."""

from __future__ import annotations

import json
import sys

from tests.deploy.cfn import PARAMS, all_stacks


def main() -> None:
    """Every task definition with every file of parameters."""
    found = {
        f"{params}/{stack}/{name}": task
        for params in PARAMS
        for stack, template in all_stacks(params).items()
        for name, task in template.of_type("AWS::ECS::TaskDefinition").items()
    }
    json.dump(found, sys.stdout, default=str)


if __name__ == "__main__":
    main()
