"""`backup`: copy a database while others use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from pyworkflow._cli.console import plain, print_document, stderr, stdout
from pyworkflow._cli.reading import existing

if TYPE_CHECKING:
    from pathlib import Path


def back_up(db: Path, destination: Path, *, as_json: bool) -> None:
    """Copy the database and print where to; a terminal sees how far it is."""
    console = stderr()
    columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with existing(db) as client, bar:
        task = bar.add_task("")
        client.backup(
            destination, on_progress=lambda done, all_: bar.update(task, completed=done, total=all_)
        )
    size = destination.stat().st_size
    if as_json:
        print_document({"path": str(destination.absolute()), "bytes": size})
    else:
        stdout().print(plain(f"{destination} is a backup of {db}: {size:,} bytes"))
