"""How a place in a value is written: ``$.items[2].at``."""

from __future__ import annotations

import re

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*").fullmatch


def step_to(key: object) -> str:
    """Return how a path goes on from a mapping to the value at ``key``."""
    return f".{key}" if isinstance(key, str) and _IDENTIFIER(key) else f"[{shown(key)}]"


def shown(value: object) -> str:
    """Return a value as text for a message: ASCII, at most 61 characters."""
    try:
        text = ascii(value)
    except Exception:
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= 60 else f"{text[:60]}…"
