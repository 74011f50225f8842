"""What importing a module costs on top of `import asyncio`, in this fresh process.

Before the clock starts nothing is imported but asyncio and time, so the module pays for everything
else that it pulls in. It shares no code with the other workers for that reason.
"""

from __future__ import annotations

import asyncio
import sys
import time

module, n = sys.argv[1], int(sys.argv[2])
del asyncio

cpu_start = time.process_time()
wall_start = time.perf_counter()
__import__(module)
wall_s = time.perf_counter() - wall_start
cpu_s = time.process_time() - cpu_start

import json  # noqa: E402  (after the clock: the module may need it too)
import platform  # noqa: E402

line = {
    "work": f"import {module}",
    "n": n,
    "wall_s": wall_s,
    "cpu_s": cpu_s,
    "executions": 1,
    "versions": {"python": platform.python_version()},
}
print(json.dumps(line))
