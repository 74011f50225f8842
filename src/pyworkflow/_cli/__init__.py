"""The command line: `pyworkflow run | worker | list | show | history | stop | callback`.

It stands on the extra ``cli``. Without it, one line says how to get it.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDS = ("typer", "rich")


def main() -> None:
    """Run the command that the process's arguments name."""
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"The command line needs {' and '.join(missing)}: install PyWorkflow with its extra "
            "cli, in a checkout with pip install '.[cli]'.\n"
        )
        sys.exit(3)  # not 1, which says that a workflow failed
    from pyworkflow._cli.app import run

    run()
