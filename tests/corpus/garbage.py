"""What hypothesis draws for the fields of records: plausible here and there, garbage otherwise."""

from __future__ import annotations

import json
import os

from hypothesis import strategies as st

from pyworkflow._protocol.records import ErrorRecord

EXAMPLES = 4_000 if os.environ.get("HYPOTHESIS_PROFILE") == "proof" else 150

texts = st.sampled_from(["", "a", "b", "nap", "child", "\ud800", "x" * 300, "patched p", "é"])
numbers = st.sampled_from([0, 1, 2, 3, -1, 1_000_050, 2**31, 2**63, 10**30])
json_texts = st.sampled_from(
    [
        *("", "null", "1", "1e999", "nan", "true", "[", "{", "[1,", "[1, 2", "[[]]", "[" * 5_000),
        *('"a(0)"', '"\ud800"', "\x00", '["a"]', '{"id": 1}', '{"id": "x"}', '{"a": 1, "a": 2}'),
    ]
)
payloads = st.none() | json_texts | st.text(max_size=5)
types = st.sampled_from(
    [
        *("ValueError", "OSError", "SystemExit", "UnicodeDecodeError", "ExceptionGroup", "Step"),
        *("", ".", "a..b", "Garbage", "os._exit", "asyncio.CancelledError"),
        "pyworkflow.errors.FatalError",
    ]
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["bases", "args", "attributes", "state", "group", "tuples", "__notes__"]
            )
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
errors = st.none() | st.builds(
    ErrorRecord,
    message=st.text(max_size=5) | texts,
    type=types | st.text(max_size=5),
    data=payloads | plain.map(json.dumps),
    stack_trace=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)
any_json = plain.map(json.dumps) | payloads | st.text()
