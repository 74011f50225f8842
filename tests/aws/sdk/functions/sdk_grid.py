"""Every case as a Lambda function of its own name, under the engine that `ENGINE` names."""

from __future__ import annotations

import os
from typing import Any

from tests.aws.sdk.sdk_cases import CASES
from tests.aws.sdk.sdk_runs import ENGINES

FUNCTIONS: dict[str, Any] = {}

for _name, _case in CASES.items():
    FUNCTIONS |= _case.invokes
    FUNCTIONS[_name] = ENGINES[os.environ["ENGINE"]](_case.function)


def handler(event: Any, context: Any) -> Any:
    _, _, name = context.invoked_function_arn.partition(":function:")
    return FUNCTIONS[name.partition(":")[0]](event, context)
