"""Which process is which, and whether it lives.

A process is known by its machine's boot, its set of process ids (a container has one of its own),
its id in there and its start time: an id alone is given to another process sooner or later. Where
one of these can't be read, nobody can say that the process lives.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_STATE, _START = 0, 19
"""Fields of /proc/PID/stat, counted after the name (proc(5): 3 and 22)."""
_DEAD = {"Z", "X"}


def this_host() -> str:
    """Return what tells this boot of this machine, and this container on it, from others."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux: one set of process ids a machine
        processes = ""
    return f"{_boot()} {processes}"


@cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()


def is_gone(pid: int) -> bool:
    """Return whether no process of this machine has that id."""
    if os.name != "posix":  # elsewhere os.kill would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and somebody else's
        return False
    return False


def start_of(pid: int) -> int | None:
    """Return when a living process of this container began, in ticks since the boot.

    `None` when it is over, a zombie included, or when that can't be known.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
        fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
        return None if fields[_STATE] in _DEAD else int(fields[_START])
    except (OSError, ValueError, IndexError):
        return None
