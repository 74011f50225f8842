"""A fresh Lambda function: import a handler, call it once, print when the import began.

json is imported before the clock starts, for Lambda's own runtime has it; all else is the
handler's.
"""

from __future__ import annotations

import json
import sys
import time

module, event = sys.argv[1], json.loads(sys.argv[2])

cpu_start = time.process_time()
begin = time.monotonic()
answer = __import__(module).handler(event, None)
cpu_s = time.process_time() - cpu_start
print(json.dumps({"begin": begin, "cpu_s": cpu_s, "answer": answer}))
