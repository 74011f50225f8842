"""What a cold start costs: from the import of a handler to its first checkpoint at the server.

The function runs in a fresh process, which tells when the import began; the server tells when the
first request arrived. Both read the machine's one monotonic clock. CPU time is that of the
function's process from the import to the answer, so it covers a little more than the wall time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from lambda_side import FUNCTIONS, PEERS, check_answer, serve
from measure import print_measurement


def main() -> None:
    function, n = FUNCTIONS[sys.argv[1]], int(sys.argv[2])
    with serve() as server:
        event = server.new_event(n)
        done = subprocess.run(
            [sys.executable, str(PEERS / "cold_start.py"), function.module, json.dumps(event)],
            env=os.environ | server.environment,
            stdout=subprocess.PIPE,
            check=False,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.returncode)  # its own complaint is on stderr already
        told = json.loads(done.stdout.splitlines()[-1])
        check_answer(told["answer"], n)
        facts = server.read_facts(event)
    wall_s = facts["first_arrival"] - told["begin"]
    print_measurement("cold start", n, wall_s, told["cpu_s"], 1, function.packages)


if __name__ == "__main__":
    main()
