"""Names for type annotations: what clients and contexts return.

Nothing here is constructed by users. A function that takes a handle is annotated with it:

```python
def report(handle: Handle[Receipt]) -> None: ...
```
"""

from __future__ import annotations

from pyworkflow._api.callback import Callback, SyncCallback
from pyworkflow._local.async_handle import AsyncHandle
from pyworkflow._local.handle import Handle
from pyworkflow._protocol.executions import ExecutionStatus, ExecutionSummary, Paged
from pyworkflow._protocol.records import Operation
from pyworkflow.services.history import HistoryEvent

__all__ = [
    "AsyncHandle",
    "Callback",
    "ExecutionStatus",
    "ExecutionSummary",
    "Handle",
    "HistoryEvent",
    "Operation",
    "Paged",
    "SyncCallback",
]
