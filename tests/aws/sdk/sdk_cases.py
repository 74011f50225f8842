"""All cases of functions of AWS's SDK, from the modules that hold their programs."""

from __future__ import annotations

from tests.aws.sdk import sdk_batch_programs, sdk_context_programs, sdk_step_programs
from tests.aws.sdk.sdk_programs import CASES

__all__ = ["CASES"]

PROGRAMS = (sdk_step_programs, sdk_context_programs, sdk_batch_programs)  # they fill CASES
